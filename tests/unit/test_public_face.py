"""What ``import cryoinfer`` offers, and what it does not import."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cryoinfer as ci
from cryoinfer.interfaces import SilentMonitor

NAMES = """
    AbinitioConfig ClassConfig DynamicsConfig EncoderConfig HeterogeneityConfig
    InferConfig InputError Latents TrainingData MovingModel Optics Particles Pose
    ReconstructConfig Reconstruction RefineConfig Run RunResult SimulationConfig
    StartingMap __version__ abinitio classes dynamics evaluate fsc heterogeneity
    infer load_encoder load_particles load_run load_structure reconstruct refine
    save_encoder simulate train
""".split()
"""All that users may rely on: a name that goes, or is called otherwise, breaks them."""

WORKFLOWS = ("abinitio", "refine", "reconstruct", "train", "infer", "dynamics")
WORKFLOWS += ("heterogeneity", "classes")


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these() -> None:
    assert sorted(ci.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(ci))
    for name in NAMES:
        assert getattr(ci, name) is not None


def test_type_checkers_see_what_is_there() -> None:
    tree = ast.parse(Path(inspect.getfile(ci)).read_text(encoding="utf-8"))
    static = {"load_particles": ci.Particles.load, "__version__": ci.__version__}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("cryoinfer"):
            module = import_module(node.module)
            for one in node.names:
                static[one.asname or one.name] = getattr(module, one.name)
    assert static.keys() == set(NAMES)
    for name, found in static.items():
        assert getattr(ci, name) == found, name


def test_a_name_that_is_not_there_is_told_as_such() -> None:
    with pytest.raises(AttributeError, match="no attribute 'abinito'"):
        ci.abinito  # noqa: B018


@pytest.mark.parametrize("name", [*WORKFLOWS, "simulate"])
def test_workflows_are_silent_unless_asked(name: str) -> None:
    parameters = inspect.signature(getattr(ci, name)).parameters
    assert isinstance(parameters["monitor"].default, SilentMonitor)
    if name != "simulate":  # of which something must be said
        kind = type(parameters["config"].default)
        assert parameters["config"].default == kind()


def test_every_public_thing_is_described() -> None:
    for name in NAMES:
        if name != "__version__":
            assert inspect.getdoc(getattr(ci, name)), name


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, cryoinfer; cryoinfer.__version__, dir(cryoinfer);"
        "print({'torch', 'numba', 'numpy', 'scipy', 'typer'} & set(sys.modules))"
    )
    assert run_python(code).strip() == "set()"


def test_a_library_knows_nothing_of_the_command_line() -> None:
    code = (
        "import sys, cryoinfer as ci\n"
        "[getattr(ci, name) for name in ci.__all__]\n"
        "found = {'typer', 'rich', 'matplotlib', 'cryoinfer.cli', 'cryoinfer.report'}\n"
        "print(found & set(sys.modules))"
    )
    assert run_python(code).strip() == "set()"
