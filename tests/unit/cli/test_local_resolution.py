"""The command about local resolution: what it writes, says and refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.io.mrc import read_map, write_map

N, VOXEL = 32, 2.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of half-maps whose second half (in z) is noise, and masks."""
    generator = torch.Generator().manual_seed(0)
    signal, first, second = (
        torch.randn((N, N, N), generator=generator) for _ in range(3)
    )
    signal[N // 2 :] = 0.0
    # As strong as the signal there: windows reach over the border.
    level = torch.where(torch.arange(N) < N // 2, 0.1, 1.0)[:, None, None]
    mask = torch.zeros((N, N, N))
    mask[6:10] = 1.0
    for name, density in (
        ("half1", signal + level * first),
        ("half2", signal + level * second),
        ("mask", mask),
        ("tight", mask * (torch.arange(N) < 8)),
        ("nowhere", 0 * mask),
    ):
        write_map(tmp_path / f"{name}.mrc", density, VOXEL)
    return tmp_path


def run(folder: Path, words: str):
    args = [
        str(folder / one) if one.endswith(".mrc") or one == "out" else one
        for one in words.split()
    ]
    done = CliRunner().invoke(app, ["local-resolution", *args])
    return done.exit_code, " ".join(done.output.split())


def test_it_writes_what_it_says(folder: Path) -> None:
    code, said = run(folder, "half1.mrc half2.mrc --mask mask.mrc -o out")
    assert code == 0, said
    assert "50% of the voxels at least, in the mask" in said
    resolution = read_map(folder / "out" / "local_resolution.mrc")
    assert resolution.pixel_size_angstrom == pytest.approx(VOXEL)
    # White signal of a hundred times the power of the noise agrees to Nyquist.
    assert np.median(resolution.density[5:11]) == pytest.approx(2 * VOXEL)
    # Windows of coarse bands span so small a box: only the finest tell.
    assert np.median(resolution.density[22:26]) > 1.1 * (2 * VOXEL)
    filtered = read_map(folder / "out" / "locally_filtered.mrc").density
    assert filtered[22:26].std() < 0.3 * filtered[5:11].std()
    script = (folder / "out" / "local_resolution.cxc").read_text()
    assert "color sample #1 map #2" in script


def test_the_solvent_and_a_tight_mask_are_spoken_of(folder: Path) -> None:
    _, said = run(folder, "half1.mrc half2.mrc -o out")
    assert "without --mask the solvent is counted" in said
    _, said = run(folder, "half1.mrc half2.mrc --mask tight.mrc -o out --overwrite")
    assert "outside the mask are as good" in said


def test_one_map_twice_is_no_resolution(folder: Path) -> None:
    _, said = run(folder, "half1.mrc half1.mrc --mask mask.mrc -o out")
    assert "the same map, which agrees with itself" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("half1.mrc half2.mrc --mask nowhere.mrc -o out", "found 0 in all"),
        ("half1.mrc half2.mrc -o half1.mrc", "is a file"),
        ("half1.mrc half2.mrc --mask half1.mrc -o out", "mask"),
    ],
)
def test_what_cannot_work_is_told(folder: Path, words: str, message: str) -> None:
    code, said = run(folder, words)
    assert code == 2, said
    assert message in said


def test_results_are_not_replaced_unasked(folder: Path) -> None:
    assert run(folder, "half1.mrc half2.mrc -o out")[0] == 0
    code, said = run(folder, "half1.mrc half2.mrc -o out")
    assert code == 2
    assert "--overwrite" in said
