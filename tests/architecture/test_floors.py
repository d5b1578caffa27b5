"""Imports point down only, so that every part can be read without those above it.

Imports inside functions and under ``TYPE_CHECKING`` count as well: they hide a
tangle without undoing it.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "cryoinfer"

# From the top down. Those on one line never see each other.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"report"},
    {"workflows"},
    {"results"},
    {"evaluation"},
    {"inference", "reconstruction"},
    {"data"},
    {"io"},  # dialects of other programs are translated into physics
    {"physics"},
    {"interfaces"},
    {"geometry", "fourier"},
    {"records", "arithmetic", "world", "operations"},
    {"errors", "wording", "matrix_library", "memory_allocator", "thread_waiting"},
)
HEIGHT = {part: -row for row, parts in enumerate(FLOORS) for part in parts}

# Forbidden although they point down: evaluation judges results of any program,
# so it may know neither where particles came from nor how images are made; a report
# shows the results of a run, however it was made.
ALSO_FORBIDDEN = {
    *(("evaluation", low) for low in ("data", "physics", "io")),
    ("report", "workflows"),
}

Imports = dict[str, set[str]]


def module_name(path: Path, source: Path) -> str:
    """Return ``io.star`` for ``<source>/io/star.py``; the package itself is ``""``."""
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported_names(path: Path, module: str) -> Iterator[str]:
    """Yield the full name of everything that a file imports."""
    package = ["cryoinfer", *module.split(".")] if module else ["cryoinfer"]
    if path.stem != "__init__":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def read_imports(source: Path) -> Imports:
    """Return which modules of the package each of its modules imports."""
    files = {module_name(path, source): path for path in source.rglob("*.py")}
    imports: Imports = {}
    for module, path in files.items():
        found = set()
        for name in imported_names(path, module):
            if name.split(".")[0] != "cryoinfer" or name == "cryoinfer.__version__":
                continue  # the version stands alone and imports nothing
            inside = name.removeprefix("cryoinfer").removeprefix(".")
            while (
                inside and inside not in files
            ):  # a function of a module, or namespace
                inside = inside.rpartition(".")[0]
            found.add(inside)
        imports[module] = found - {module}
    return imports


def wrong_directions(imports: Imports) -> list[str]:
    """Return every import that does not point down."""
    wrong = []
    for module, targets in sorted(imports.items()):
        part = module.split(".")[0]
        for target in sorted(targets):
            below = target.split(".")[0]
            down = below and (not part or HEIGHT[below] < HEIGHT[part])
            if (part != below and not down) or (part, below) in ALSO_FORBIDDEN:
                wrong.append(
                    f"{module} imports {target or 'the package, or what is not there'}"
                )
    return wrong


def cycle(imports: Imports) -> list[str]:
    """Return one cycle of modules, or nothing."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_part_has_a_floor() -> None:
    parts = {module.split(".")[0] for module in read_imports(SOURCE)} - {""}
    assert parts <= HEIGHT.keys(), "add the new part to FLOORS, on its own floor"


def test_imports_point_down() -> None:
    assert wrong_directions(read_imports(SOURCE)) == []


def test_no_cycles() -> None:
    assert cycle(read_imports(SOURCE)) == []


def write_package(source: Path, files: dict[str, str]) -> Imports:
    for name, text in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_imports(source)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("physics/ctf.py", "from cryoinfer.inference import search"),
        ("physics/ctf.py", "from cryoinfer.io.star import read_star"),
        ("geometry/rotations.py", "import cryoinfer.fourier.transform"),
        ("inference/search.py", "from cryoinfer import evaluation"),
        ("inference/search.py", "def f():\n    from cryoinfer.evaluation import fsc"),
        ("reconstruction/mask.py", "from cryoinfer.evaluation.fsc import fsc"),
        ("evaluation/fsc.py", "from cryoinfer.physics.ctf import evaluate_ctf"),
        ("evaluation/fsc.py", "from ..data import particles"),
        ("results/trial.py", "from cryoinfer.workflows.train import train"),
        ("report/html.py", "def f():\n    from cryoinfer.workflows import train"),
        ("errors.py", "from .records import Pose"),
        ("io/star.py", "from cryoinfer import Particles"),
    ],
)
def test_canary_wrong_direction(tmp_path: Path, file: str, line: str) -> None:
    others = {
        f"{part}/{name}.py": ""
        for part, name in [
            ("inference", "search"),
            ("io", "star"),
            ("fourier", "transform"),
            ("reconstruction", "mask"),
            ("evaluation", "fsc"),
            ("physics", "ctf"),
            ("data", "particles"),
            ("workflows", "train"),
            ("results", "trial"),
            ("report", "html"),
        ]
    }
    packages = {f"{Path(other).parent}/__init__.py": "" for other in others}
    files = {**others, **packages, "records.py": "", "__init__.py": "", file: line}
    assert len(wrong_directions(write_package(tmp_path, files))) == 1


def test_canary_allowed_imports(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from cryoinfer.data.particles import Particles",
        "cli/app.py": "from cryoinfer import __version__\nimport numpy",
        "evaluation/exact.py": "from cryoinfer.inference import prior",
        "inference/prior.py": "",
        "data/particles.py": "from cryoinfer.io import star",
        "io/__init__.py": "from cryoinfer.io.star import read_star",
        "io/star.py": "from cryoinfer.errors import InputError",
        "errors.py": "",
    }
    imports = write_package(tmp_path, files)
    assert wrong_directions(imports) == []
    assert cycle(imports) == []
    assert imports["data.particles"] == {"io.star"}
    assert imports["io.star"] == {"errors"}


def test_canary_cycle(tmp_path: Path) -> None:
    files = {
        "io/a.py": "from cryoinfer.io.b import f",
        "io/b.py": "def g():\n    import cryoinfer.io.a",
    }
    assert set(cycle(write_package(tmp_path, files))) == {"io.a", "io.b"}
