"""The command that draws masks: what it writes, says and refuses."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.io.mrc import read_mask, write_map
from cryoinfer.reconstruction.mask import distance_from_centre

N, VOXEL = 32, 2.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a map of a ball of 10 A, and a smaller one beside it."""
    density = (distance_from_centre(N) <= 5).float()
    write_map(tmp_path / "map.mrc", density, VOXEL)
    density[26:30, 26:30, 26:30] = 1.0
    write_map(tmp_path / "two.mrc", density, VOXEL)
    return tmp_path


def run(folder: Path, words: str) -> tuple[int, str]:
    args = [str(folder / one) if one.endswith(".mrc") else one for one in words.split()]
    done = CliRunner().invoke(app, ["mask", *args])
    return done.exit_code, " ".join(done.output.split())


def test_it_writes_what_it_says(folder: Path) -> None:
    words = "two.mrc --threshold 0.5 --extend 4 --soft-edge 8 -o mask.mrc"
    code, said = run(folder, words)
    assert code == 0, said
    assert "0.5, given, of the map as it is" in said
    assert "one smaller part was left out" in said
    assert "A3 in one part" in said
    assert "a soft edge of 8 A" in said
    # 64 of the 64 + 515 voxels: more than a tenth.
    assert "hold 11% of what is above the threshold" in said
    found = read_mask(folder / "mask.mrc")
    assert found.pixel_size_angstrom == pytest.approx(VOXEL)
    distance = distance_from_centre(N).numpy()
    assert (found.density[distance <= 6] == 1).all()
    assert np.abs(found.density[distance >= 12]).max() < 1e-6
    code, said = run(folder, words)
    assert code == 2
    assert "--overwrite" in said


def test_a_threshold_that_is_found_is_told(folder: Path) -> None:
    code, said = run(folder, "map.mrc --soft-edge 2 --extend 24 -o mask.mrc")
    assert code == 0, said
    assert "found, of the map at 15 A" in said
    assert "reaches the edge of the box" in said
    assert "less than three voxels" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("map.mrc --threshold 5 -o mask.mrc", "between the lowest and the highest"),
        ("map.mrc --extend 100 -o mask.mrc", "the mask fills the box"),
        ("map.mrc -o map.mrc --overwrite", "is what is read"),
    ],
)
def test_what_cannot_work_is_told(folder: Path, words: str, message: str) -> None:
    before = (folder / "map.mrc").read_bytes()
    code, said = run(folder, words)
    assert code == 2, said
    assert message in said
    assert not (folder / "mask.mrc").exists()
    assert (folder / "map.mrc").read_bytes() == before
