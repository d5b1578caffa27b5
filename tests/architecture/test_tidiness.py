"""Files and functions stay small, names say what is inside, nothing is left behind."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "benchmarks", "book")
WRITTEN_ELSEWHERE = ("benchmarks/data/", "benchmarks/runs/")  # results, not source

MAX_FILE_LINES = 400
MAX_CHAPTER_LINES = 450  # half of which is text
MAX_FUNCTION_LINES = 60

# Functions that may be longer, each with its reason.
_KERNELS = "src/cryoinfer/inference/refinement_kernel.py"
LONG_FUNCTIONS: dict[str, str] = {
    f"{_KERNELS}::_add_normal_equations": "one loop body whose 26 sums must stay in "
    "registers; a function called for a part of them would send them through memory",
    f"{_KERNELS}::refine": "one parallel loop body that owns its thread's work arrays; "
    "each part cut off would take nearly all of them as arguments",
    "src/cryoinfer/inference/subspace_kernel.py::refine": "as that of a map",
}

EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
SECOND_VERSION = re.compile(r"_(v\d+|old|new|fast|legacy|backup)$")

# A folder of one machine; the look-behind lets addresses on the web through.
MACHINE_PATH = re.compile(r"(?<![\w.:/~-])/(?:work|root|home|Users|mnt|scratch)/")


def python_files(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((root / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the length without the docstring, which nobody should make short."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def most_lines(path: Path) -> int:
    return MAX_CHAPTER_LINES if path.parent.name == "chapters" else MAX_FILE_LINES


def long_files(root: Path) -> list[str]:
    counts = {p: len(p.read_text().splitlines()) for p in python_files(root)}
    return [
        f"{path.relative_to(root)}: {lines} lines"
        for path, lines in counts.items()
        if lines > most_lines(path)
    ]


def long_functions(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}::{function.name}"
        for path in python_files(root)
        for function in functions(path)
        if code_lines(function) > MAX_FUNCTION_LINES
    ]


def poor_names(root: Path) -> list[str]:
    poor = []
    for path in python_files(root):
        where = path.relative_to(root)
        names = [*where.parts[:-1], where.stem]
        if any(n in EMPTY_NAMES or SECOND_VERSION.search(n) for n in names):
            poor.append(str(where))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if SECOND_VERSION.search(node.name):
                    poor.append(f"{where}::{node.name}")
    return poor


def text_files(root: Path) -> Iterator[Path]:
    yield from (path for path in sorted(root.glob("*")) if path.is_file())
    for folder in (*FOLDERS, "docs", "book", ".ci"):
        for path in sorted((root / folder).rglob("*")):
            where = path.relative_to(root)
            made = "__pycache__" in where.parts or path.suffix in {".gz", ".png"}
            if path.is_file() and not made:
                if not where.as_posix().startswith(WRITTEN_ELSEWHERE):
                    yield path


def machine_paths(root: Path) -> list[str]:
    found = []
    for path in text_files(root):
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(root)}:{number}")
    return found


def imported_libraries(root: Path) -> set[str]:
    """Return the libraries that the package imports; all are named as in pip."""
    found = set()
    for path in (root / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"cryoinfer"}


def declared_libraries(root: Path) -> set[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]}


def test_dependencies_are_those_that_are_imported() -> None:
    assert declared_libraries(ROOT) == imported_libraries(ROOT)


def test_files_are_short() -> None:
    assert long_files(ROOT) == []


def test_functions_are_short() -> None:
    assert set(long_functions(ROOT)) == LONG_FUNCTIONS.keys()


def test_names_say_what_is_inside() -> None:
    assert poor_names(ROOT) == []


def test_no_paths_of_one_machine() -> None:
    assert machine_paths(ROOT) == []


def write_source(root: Path, name: str, text: str) -> None:
    path = root / "src" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_canary_long_file(tmp_path: Path) -> None:
    write_source(tmp_path, "good.py", "x = 1\n" * MAX_FILE_LINES)
    write_source(tmp_path, "bad.py", "x = 1\n" * (MAX_FILE_LINES + 1))
    assert long_files(tmp_path) == ["src/bad.py: 401 lines"]


def test_canary_long_function(tmp_path: Path) -> None:
    documented = '    """Say.\n\n    More.\n    """\n'
    body = "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
    write_source(tmp_path, "good.py", "def f():\n" + documented + body)
    write_source(tmp_path, "bad.py", "def f():\n" + body + "    y = 1\n")
    assert long_functions(tmp_path) == ["src/bad.py::f"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("utils.py", ""),
        ("io/helpers.py", ""),
        ("common/star.py", ""),
        ("search_v2.py", ""),
        ("search.py", "def align_fast(): ..."),
        ("search.py", "class _Search_old: ..."),
    ],
)
def test_canary_poor_name(tmp_path: Path, name: str, text: str) -> None:
    write_source(tmp_path, "good.py", "def steadfast(): ...")
    write_source(tmp_path, name, text)
    assert len(poor_names(tmp_path)) == 1


@pytest.mark.parametrize("folder", ["work", "root", "home"])
def test_canary_machine_path(tmp_path: Path, folder: str) -> None:
    write_source(tmp_path, "good.md", f"https://example.org/{folder}/x ../{folder}/x")
    write_source(tmp_path, "bad.toml", f"data = '/{folder}/someone/data'")
    assert machine_paths(tmp_path) == ["src/bad.toml:1"]


def test_canary_dependencies(tmp_path: Path) -> None:
    write_source(tmp_path, "io/star.py", "import os, torch.nn\nfrom .a import b")
    write_source(tmp_path, "cli/app.py", "def f():\n    from rich.table import Table")
    assert imported_libraries(tmp_path) == {"torch", "rich"}
    project = '[project]\ndependencies = ["numpy>=2", "scikit-learn", "torch ==2.1"]'
    (tmp_path / "pyproject.toml").write_text(project)
    assert declared_libraries(tmp_path) == {"numpy", "scikit-learn", "torch"}
