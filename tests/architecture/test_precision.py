"""Nothing asks for products whose rounding depends on the processor.

PyTorch's settings for float32 products (bfloat16 or TensorFloat32 factors) change
nothing where a processor has no matrix units and round to 8 bits where it has: the
same program then gives another likelihood on another machine, and no message.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SOURCE = Path(__file__).parents[2] / "src" / "cryoinfer"

SETTINGS = {
    "fp32_precision",
    "set_float32_matmul_precision",
    "allow_tf32",
    "allow_bf16_reduced_precision_reduction",
    "autocast",
    "bfloat16",
}

# cryoPoseNet as published, where half precision is asked for by name and off otherwise.
ALLOWED = {"inference/published_encoder.py", "inference/published_training.py"}


def settings_used(text: str) -> set[str]:
    """Return which of the settings a module names."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        if isinstance(node, ast.Name):
            found.add(node.id)
        if isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names)
    return found & SETTINGS


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_products_are_exact_on_every_processor(path: Path) -> None:
    if str(path.relative_to(SOURCE)) in ALLOWED:
        pytest.skip("half precision is an option there, and off unless asked for")
    assert not settings_used(path.read_text(encoding="utf-8"))


DIVIDED = {"fftn", "ifftn", "rfftn", "irfftn"}


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_no_transform_is_divided_between_threads(path: Path) -> None:
    """Transforms of three axes are those of arithmetic.py."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & DIVIDED


@pytest.mark.parametrize(
    "line",
    [
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
        "with torch.autocast('cpu', dtype=torch.bfloat16): pass",
        "from torch import autocast",
        "torch.set_float32_matmul_precision('medium')",
    ],
)
def test_the_rule_bites(line: str) -> None:
    assert settings_used(line)


@pytest.fixture
def allowed() -> Iterator[None]:
    """Set what a processor with matrix units needs to round factors."""
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    yield
    backend.fp32_precision = before


def factors() -> torch.Tensor:
    return torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("allowed")
def test_the_emulated_processor_rounds_where_it_may(matrix_units) -> None:
    first, second = factors()
    with matrix_units():
        found = first @ second
    expected = first.bfloat16().double() @ second.bfloat16().double()
    # Sums of 64 products of up to 16 in single precision.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=64 * 16 * 2**-24)
    # Factors of 8 bits: a relative error of 2^-9 each, over 64 products of size one.
    assert (found - first.double() @ second.double()).abs().max() > 2**-9 * 64**0.5


def test_the_emulated_processor_changes_nothing_otherwise(matrix_units) -> None:
    first, second = factors()
    with matrix_units():
        assert torch.equal(first @ second, torch.mm(first, second))
