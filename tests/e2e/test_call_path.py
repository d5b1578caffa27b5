"""A run enters the files that ARCHITECTURE.md names, in that order."""

import re
import sys
from pathlib import Path
from types import FrameType

import pytest

import cryoinfer
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SILENT
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio

ROOT = Path(__file__).parents[2]
WORKFLOWS = str(Path(cryoinfer.__file__).parent / "workflows")
SMALL = SimulationConfig(n=250, box=24, pixel_size_angstrom=4.8, snr_db=10.0)


def written_path() -> list[str]:
    """Return the files of the table under "Call path"."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.split("## Call path")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+\.py)` \|", section, re.MULTILINE)


# A trace makes every call three times as long.
@pytest.mark.slow
def test_abinitio_enters_the_files_of_its_call_path(tmp_path: Path) -> None:
    particles = Particles.load(simulate(SMALL, tmp_path / "set", SILENT))
    entered: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # Asked millions of times. The body of a module runs where it is imported.
        if event == "call" and code.co_filename.startswith(WORKFLOWS):
            if code.co_name != "<module>":
                entered[Path(code.co_filename).name] = None

    before = sys.gettrace()
    sys.settrace(note)
    try:
        abinitio(particles, AbinitioConfig(max_shift_angstrom=0.0, starts=1))
    finally:
        sys.settrace(before)
    assert list(entered) == written_path()
