"""Focus masks that cannot be applied are refused, and one that can be is recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SILENT
from cryoinfer.io.mrc import read_map, write_map
from cryoinfer.reconstruction.mask import soft_sphere

BOX, PIXEL_SIZE, N = 20, 5.6, 60


def run(*arguments: object) -> tuple[int, str]:
    """Return the exit code of a command, and what it says on one line."""
    answer = CliRunner().invoke(app, [str(one) for one in arguments])
    return answer.exit_code, " ".join(answer.output.split())


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SimulationConfig(n=N, box=BOX, pixel_size_angstrom=PIXEL_SIZE, snr_db=5.0)
    folder = tmp_path_factory.mktemp("set")
    simulate(config, folder, SILENT)
    return folder / "truth.star"


def mask_file(folder: Path, density: torch.Tensor, voxel: float = PIXEL_SIZE) -> Path:
    path = folder / "mask.mrc"
    write_map(path, density.numpy().astype(np.float32), voxel)
    return path


BALL = soft_sphere(BOX, 4.0, 2.0)


@pytest.mark.parametrize(
    ("density", "voxel", "words"),
    [
        (soft_sphere(24, 4.0, 2.0), PIXEL_SIZE, "24 voxels of 5.6 A"),
        (BALL, 4.0, "20 voxels of 4 A"),
        (torch.zeros_like(BALL), PIXEL_SIZE, "found 0 in all"),
        (3 * BALL, PIXEL_SIZE, "from 0 to 3"),
        (BALL - 0.5, PIXEL_SIZE, "from -0.5 to 0.5"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(
    particles: Path, tmp_path: Path, density: torch.Tensor, voxel: float, words: str
) -> None:
    mask, out = mask_file(tmp_path, density, voxel), tmp_path / "out"
    code, said = run(
        *("heterogeneity", particles, "--poses", "given", "--out", out),
        *("--focus-mask", mask),
    )
    assert code == 2
    assert words in said
    assert said.count("Error:") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "with --poses given"),
        (("--model", "classes", "--poses", "given"), "is of --model subspace"),
        (("--method", "amortized"), "infers poses"),
    ],
)
def test_a_mask_that_would_not_be_applied_is_refused(
    particles: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    mask, out = mask_file(tmp_path, BALL), tmp_path / "out"
    code, said = run(
        "heterogeneity", particles, "--out", out, "--focus-mask", mask, *options
    )
    assert code == 2
    assert words in said
    assert not out.exists()


def test_components_lie_inside_and_the_run_says_so(
    particles: Path, tmp_path: Path
) -> None:
    mask, out = mask_file(tmp_path, BALL), tmp_path / "out"
    words = ("--poses", "given", "--dims", 1, "--resolution", 14)
    code, said = run(
        *("heterogeneity", particles, "--out", out, "--focus-mask", mask, *words)
    )
    assert code == 0, said
    assert "inside the focus mask" in said
    record = json.loads((out / "run.json").read_text())
    assert record["arguments"]["focus-mask"] == str(mask)
    assert set(record["inputs"]) == {"stacks", "particles", "focus mask"}
    mask_file(tmp_path, 0.5 * BALL)
    again = run(
        *("heterogeneity", particles, "--out", out, "--focus-mask", mask, *words),
        "--resume",
    )
    assert again[0] == 2
    assert "The input (focus mask) has changed" in again[1]
    component = read_map(out / "component_1.mrc").density
    outside = component[BALL.numpy() == 0]
    # Its voxels were those of a smaller map.
    assert float(np.square(outside).sum()) < 0.05 * float(np.square(component).sum())
    assert len(Particles.load(out / "particles.star")) == N
