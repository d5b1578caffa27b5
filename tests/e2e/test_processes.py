"""A training that torchrun starts at the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows.encoder_file import load_encoder
from cryoinfer.workflows.trained_encoder import TrainedEncoder

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


def train(
    run: Path, out: Path, *launcher: str, resume: bool = False
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, "-m", "cryoinfer", "train", str(run)]
    command += ["--out", str(out), "--steps", str(STEPS), "--side", "16"]
    command += ["--threads", "1"] + ["--resume"] * resume
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def trained(run: Path, out: Path, *launcher: str) -> TrainedEncoder:
    done = train(run, out, *launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    return load_encoder(out / "encoder.pt")


@pytest.mark.slow
def test_processes_of_torchrun_train_one_encoder(run: Path, tmp_path: Path) -> None:
    one = trained(run, tmp_path / "one")
    two = trained(run, tmp_path / "two", *TORCHRUN)
    assert [check.step for check in one.checks] == [check.step for check in two.checks]
    for a, b in zip(one.checks, two.checks, strict=True):
        # That curves are the same is tested where they have time to differ.
        assert a.loss_nats == pytest.approx(b.loss_nats, abs=0.01)
    taken = train(run, tmp_path / "two", *TORCHRUN)
    told = taken.stdout + taken.stderr
    assert taken.returncode != 0
    assert told.count("already holds") == 1, told
    assert "fault of the program" not in told
    again = train(run, tmp_path / "two", *TORCHRUN, resume=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("nothing to do") == 1
