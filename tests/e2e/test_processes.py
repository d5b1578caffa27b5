"""A training in two processes is that of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows.encoder_file import load_encoder
from cryoinfer.workflows.train import TrainedEncoder

STEPS = 12
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = SimulationConfig(n=300, box=32, pixel_size_angstrom=2.8, snr_db=0.0)
    star = simulate(config, folder / "set", SilentMonitor())
    words = ["abinitio", str(star), "--out", str(folder / "run"), "--threads", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    return folder / "run"


def train(run: Path, out: Path, *launcher: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, "-m", "cryoinfer", "train", str(run)]
    command += ["--out", str(out), "--steps", str(STEPS), "--side", "16"]
    command += ["--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def trained(run: Path, out: Path, *launcher: str) -> TrainedEncoder:
    done = train(run, out, *launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    return load_encoder(out / "encoder.pt")


def test_two_processes_learn_what_one_does(run: Path, tmp_path: Path) -> None:
    one = trained(run, tmp_path / "one")
    two = trained(run, tmp_path / "two", *TORCHRUN)
    assert [check.step for check in one.checks] == [check.step for check in two.checks]
    for a, b in zip(one.checks, two.checks, strict=True):
        # Gradients are summed in bfloat16, in another order: 2^-8 of themselves.
        assert a.loss_nats == pytest.approx(b.loss_nats, abs=0.01)
    weights = zip(
        one.encoder.network.parameters(), two.encoder.network.parameters(), strict=True
    )
    for a, b in weights:
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)


def test_a_finished_training_is_left_by_all(run: Path, tmp_path: Path) -> None:
    trained(run, tmp_path / "done")
    command = [sys.executable, *TORCHRUN, "-m", "cryoinfer", "train", str(run)]
    command += ["--out", str(tmp_path / "done"), "--steps", str(STEPS)]
    command += ["--side", "16", "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing to do") == 1
