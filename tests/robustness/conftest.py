"""Inputs for all commands, made once: particles, maps, a model, an encoder, a run."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from cryoinfer.cli.app import app
from cryoinfer.data.particles import Particles
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.amortized import PoseEncoder
from cryoinfer.inference.convergence import Check
from cryoinfer.inference.outlier_score import InlierStatistics
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid
from cryoinfer.io.mrc import read_map
from cryoinfer.workflows.acquisition import AcquisitionStatistics
from cryoinfer.workflows.encoder_file import save_encoder
from cryoinfer.workflows.trained_encoder import TrainedEncoder

BOX, PIXEL_SIZE_ANGSTROM, N = 16, 6.4, 100


def cryoinfer(*words: object) -> Result:
    """Run a command in this process."""
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def make_encoder(folder: Path) -> None:
    """Write an encoder that has learned nothing, as a training writes one."""
    density = torch.tensor(read_map(folder / "truth.mrc").density)
    prior = PosePrior(2.0, 0.0)
    torch.manual_seed(0)
    network = PoseNetwork(PoseNetworkConfig(side=8), prior)
    grid = ReferenceGrid(BOX, PIXEL_SIZE_ANGSTROM)
    noise = (torch.full((BOX // 2 + 1,), 100.0),)
    particles = Particles.load(folder / "truth.star")
    imaging = AcquisitionStatistics.of(
        particles, torch.arange(N), torch.Generator().manual_seed(0)
    )
    trained = TrainedEncoder(
        encoder=PoseEncoder(network, grid, noise, symmetry_rotations("C1")),
        density=density,
        components=(),
        last_radius=BOX // 2 - 1,
        prior=prior,
        symmetry="C1",
        # So that its map is not empty: nothing is flagged.
        inliers=InlierStatistics(1.0, 1e3, 1.0, 3.0),
        imaging=(imaging,),
        checks=(Check(1, 1.0, 100.0),),
        verdict="not converged: it has learned nothing",
        covariance_inflation=torch.ones(6, dtype=torch.float64),
    )
    save_encoder(folder / "encoder.pt", trained)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of inputs that are as they should be."""
    folder = tmp_path_factory.mktemp("inputs")
    small = ["--n", N, "--box", BOX, "--pixel-size", PIXEL_SIZE_ANGSTROM]
    small += ["--snr-db", 10, "--defocus", 0.5, 1.5]
    steps = [
        ["simulate", "adenylate-kinase-open", *small, "--out", folder],
        ["convert", folder / "truth.star", folder / "particles.cs"],
        ["flip", folder / "truth.mrc", "--out", folder / "half.mrc"],
        ["beads", folder / "truth.mrc", "--count", 40, "--out", folder / "model.cif"],
    ]
    for words in steps:
        answer = cryoinfer(*words)
        assert answer.exit_code == 0, answer.output
    # Particles with the poses that they were made with, and a mask of ones.
    (folder / "particles.star").write_bytes((folder / "truth.star").read_bytes())
    data = (folder / "truth.mrc").read_bytes()
    ones = torch.ones(BOX**3).numpy().astype("<f4").tobytes()
    (folder / "mask.mrc").write_bytes(data[: -len(ones)] + ones)
    make_encoder(folder)
    words = ["infer", folder / "encoder.pt", folder / "particles.star"]
    answer = cryoinfer(*words, "--out", folder / "run", "--threads", 1)
    assert answer.exit_code == 0, answer.output
    answer = cryoinfer("evaluate", folder / "run", "--truth", folder)
    assert answer.exit_code == 0, answer.output
    answer = cryoinfer("prepare", folder / "particles.star", "-o", folder / "prepared")
    assert answer.exit_code == 0, answer.output
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere").symlink_to("absent")
    return folder
