"""A first run, which compiles the kernels, computes the same bits as the next one."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "cryoinfer"
SCRIPT = Path(__file__).with_name("kernel_bits.py")


def called_kernels(text: str) -> list[int]:
    """Return the lines that compile a function which is neither inlined nor outermost.

    Such a function is called: which of several copies, the linker decides.
    """
    return [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"njit", "jit"}
        and not {"forceinline", "parallel"} & {word.arg for word in node.keywords}
    ]


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_kernels_call_no_kernels(path: Path) -> None:
    assert not called_kernels(path.read_text(encoding="utf-8"))


def test_the_rule_bites() -> None:
    assert called_kernels("numba.njit(cache=True)(function)") == [1]


@pytest.mark.slow
def test_a_first_run_computes_the_bits_of_the_next(tmp_path: Path) -> None:
    first, second = (
        subprocess.run(
            [sys.executable, SCRIPT],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbi"))  # else both have compiled
    assert first == second
    assert len(first) == 8
