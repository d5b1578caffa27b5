"""Runs that torchrun shares between two processes, against those of one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pyarrow.parquet
import pytest
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.interfaces import SilentMonitor

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
SEARCH = ("--starts", "1", "--max-shift", "4")
STRUCTURE = "adenylate-kinase-open"


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SimulationConfig(n=600, box=32, pixel_size_angstrom=3.2, snr_db=0.0)
    return simulate(config, tmp_path_factory.mktemp("set"), SilentMonitor())


@pytest.fixture(scope="module")
def alone(star: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    finish("abinitio", star, out, *SEARCH)
    return out


def command(name: str, particles: Path, out: Path, *words: str, shared: bool = False):
    launcher = TORCHRUN if shared else ()
    start = [sys.executable, *launcher, "-m", "cryoinfer", name, str(particles)]
    return [*start, "--out", str(out), "--threads", "1", *words]


def finish(name: str, particles: Path, out: Path, *words: str, shared: bool = False):
    call = command(name, particles, out, *words, shared=shared)
    done = subprocess.run(call, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def require_same(one: Path, two: Path) -> None:
    """Sums are added in another order: single precision, and what follows from it."""
    first, second = (torch.tensor(mrcfile.read(run / "map.mrc")) for run in (one, two))
    curve = fourier_shell_correlation(first, second)
    # The outermost shell holds next to nothing.
    assert float(curve[:-1].min()) > 0.999
    if not (one / "posteriors.npz").exists():
        return
    with np.load(one / "posteriors.npz") as a, np.load(two / "posteriors.npz") as b:
        # Of small angles, which a trace in single precision does not tell.
        apart = torch.from_numpy(a["rotation"] - b["rotation"])
        turn = apart.flatten(1).norm(dim=1) / 2**0.5
        variance = torch.from_numpy(a["covariance_upper"][:, [0, 6, 11]])
    sd = variance.mean(1).sqrt()
    # Rounding decides whether a step that promises about as much as is negligible is
    # taken, for a few particles; each pass then multiplies the difference. A run ends
    # when poses move by less than 0.15 of their sd: a fifth of that. Found: 0.001 to
    # 0.02, more with fewer particles.
    assert float((turn / sd).median()) < 0.03


@pytest.mark.slow
def test_two_processes_find_the_map_of_one(star: Path, alone: Path, tmp_path: Path):
    told = finish("abinitio", star, tmp_path / "two", *SEARCH, shared=True)
    assert told.count("Resolution") == 1
    require_same(alone, tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["refine", "reconstruct"])
def test_two_processes_go_on_from_poses_as_one(name: str, alone: Path, tmp_path: Path):
    particles = alone / "particles.star"
    finish(name, particles, tmp_path / "one")
    finish(name, particles, tmp_path / "two", shared=True)
    require_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_processes_infer_as_one(star: Path, alone: Path, tmp_path: Path) -> None:
    finish("train", alone, tmp_path / "encoder", "--steps", "12", "--side", "16")
    encoder = tmp_path / "encoder" / "encoder.pt"
    told = [
        finish("infer", encoder, tmp_path / name, str(star), shared=name == "two")
        for name in ("one", "two")
    ]
    assert told[1].count("Resolution") == told[0].count("Resolution") == 1
    require_same(tmp_path / "one", tmp_path / "two")
    call = command("infer", encoder, tmp_path / "never", str(star.parent), shared=True)
    done = subprocess.run(
        [*call, "--watch"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert "--watch runs in one process, found 2" in done.stdout + done.stderr
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_two_processes_find_the_motions_of_one(star: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.star"
    Particles.load(star.with_name("truth.star")).select(torch.arange(60)).save(few)
    words = ("--structure", STRUCTURE, "--modes", "1", "--poses", "given")
    found = []
    for name in ("one", "two"):
        finish("dynamics", few, tmp_path / name, *words, shared=name == "two")
        found.append(pyarrow.parquet.read_table(tmp_path / name / "latents.parquet"))
    require_same(tmp_path / "one", tmp_path / "two")
    first, second = (one["mode_1"].to_numpy() for one in found)
    sd = found[0]["mode_1_sd"].to_numpy()
    # The same refinements of the same images, but for batches of other sizes.
    assert float(abs((first - second) / sd).max()) < 0.01


@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_the_run_goes_on_in_one(
    star: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    call = command("abinitio", star, out, *SEARCH, shared=True)
    group = subprocess.Popen(
        call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    log, deadline = out / "log.txt", time.monotonic() + 300
    while not (log.exists() and "iteration 2" in log.read_text()):
        assert group.poll() is None, group.stderr
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = worker_of(group.pid, rank=1)
    os.kill(second, signal.SIGKILL)
    group.communicate(timeout=120)
    assert group.returncode != 0
    assert (out / "checkpoint.pt").exists()
    finish("abinitio", star, out, *SEARCH, "--resume")
    require_same(alone, out)


@pytest.mark.slow
def test_what_cannot_be_shared_is_refused_once(star: Path, tmp_path: Path) -> None:
    words = (*SEARCH, "--method", "amortized")
    call = command("abinitio", star, tmp_path / "run", *words, shared=True)
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "runs in one process" in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()


def worker_of(launcher: int, rank: int) -> int:
    """Return the process of a rank that a launcher has started."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            words = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(parent) == launcher and f"RANK={rank}".encode() in words:
            return int(entry.name)
    raise AssertionError("no such process")
