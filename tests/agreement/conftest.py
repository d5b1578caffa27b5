"""What agreement tests need: RELION and reference files, or a loud skip."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RelionRunner = Callable[..., str]

_REFERENCE_FILES = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def relion() -> RelionRunner:
    """Return ``run(folder, program, *arguments)``, which returns what it printed.

    RELION finds stacks from the folder where it is started: always give that of the
    STAR file.
    """

    def run(folder: Path, program: str, *arguments: str | Path) -> str:
        if shutil.which(program) is None:
            pytest.skip(f"{program} of RELION is not installed: no agreement is tested")
        done = subprocess.run(
            [program, *map(str, arguments)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of other projects' test data, which cannot be shipped."""
    if not (_REFERENCE_FILES / "INDEX.tsv").is_file():
        pytest.skip(f"{_REFERENCE_FILES} is absent: other projects' files go untested")
    return _REFERENCE_FILES
