"""Runs that torchrun shares between two processes, against those of one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import mrcfile
import numpy as np
import pyarrow.parquet
import pytest
import torch
from numpy.typing import NDArray

from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import StackWriter
from cryoinfer.records import Pose

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


def rotation_sd(arrays: Mapping[str, NDArray[np.floating]]) -> torch.Tensor:
    """Return the sd (radian) of rotations; files with conformations keep blocks."""
    if "covariance_upper" in arrays:
        diagonal = arrays["covariance_upper"][:, [0, 6, 11]]
    else:
        diagonal = np.diagonal(arrays["covariance"], axis1=1, axis2=2)[:, :3]
    return torch.from_numpy(diagonal.mean(1)).sqrt()


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
        sd = rotation_sd(a)
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
    wait_for(group, out / "log.txt", "iteration 2")
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


@pytest.fixture(scope="module")
def two_states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of particles of two states with their true poses."""
    folder = tmp_path_factory.mktemp("states")
    parts, poses = [], []
    for number, name in enumerate((STRUCTURE, "adenylate-kinase-closed")):
        config = SimulationConfig(
            name, n=150, box=24, pixel_size_angstrom=4.8, snr_db=5.0, seed=number
        )
        file = simulate(config, folder / str(number), SilentMonitor())
        parts.append(Particles.load(file))
        pose = Particles.load(file.with_name("truth.star")).pose
        assert pose is not None
        poses.append(pose)
    path = folder / "particles.star"
    join(parts).particles.with_results(pose=Pose.joined(poses)).save(path)
    return path


def latents_of(run: Path) -> pyarrow.Table:
    return pyarrow.parquet.read_table(run / "latents.parquet")


@pytest.mark.slow
def test_two_processes_find_the_subspace_of_one(
    two_states: Path, tmp_path: Path
) -> None:
    words = ("--poses", "given")
    for name in ("one", "two"):
        shared = name == "two"
        said = finish(
            "heterogeneity", two_states, tmp_path / name, *words, shared=shared
        )
        assert said.count("z carries information") == 1
    first, second = (latents_of(tmp_path / name) for name in ("one", "two"))
    apart = first["z_1"].to_numpy() - second["z_1"].to_numpy()
    # Nothing is searched: single precision, through forty iterations; 4e-6 was found.
    assert float(abs(apart / first["z_1_sd"].to_numpy()).max()) < 1e-3
    for name in ("mean.mrc", "component_1.mrc", "map.mrc"):
        maps = (
            torch.tensor(mrcfile.read(tmp_path / one / name)) for one in ("one", "two")
        )
        assert float(fourier_shell_correlation(*maps)[:-1].min()) > 0.999


@pytest.mark.slow
def test_two_processes_find_the_classes_of_one(
    two_states: Path, tmp_path: Path
) -> None:
    words = ("--model", "classes", "--classes", "2", "--poses", "given")
    for name in ("one", "two"):
        shared = name == "two"
        finish("heterogeneity", two_states, tmp_path / name, *words, shared=shared)
    first, second = (latents_of(tmp_path / name) for name in ("one", "two"))
    assert first["class"].equals(second["class"])
    for name in ("class_1.mrc", "class_2.mrc"):
        maps = (
            torch.tensor(mrcfile.read(tmp_path / one / name)) for one in ("one", "two")
        )
        assert float(fourier_shell_correlation(*maps)[:-1].min()) > 0.999


@pytest.mark.slow
def test_a_process_that_dies_is_told_of_once_and_conformations_go_on_in_one(
    two_states: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / "run", ("--dims", "1", "--max-shift", "0")
    call = command("heterogeneity", two_states, out, *words, shared=True)
    group = subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(group, out / "log.txt", "first subspace")
    os.kill(worker_of(group.pid, rank=1), signal.SIGKILL)
    said, _ = group.communicate(timeout=120)
    assert group.returncode != 0
    assert said.count("\nError: ") + said.count("Interrupted.") == 1, said
    assert "fault of the program" not in said
    finish("heterogeneity", two_states, out, *words, "--resume")
    z = latents_of(out)["z_1"].to_numpy()
    found, second = z > np.median(z), np.arange(300) >= 150
    wrong = min((found != second).sum(), (found == second).sum())
    # As of a run that was not interrupted: a few particles whose poses are lost.
    assert wrong <= 15


@pytest.mark.slow
def test_noise_is_told_of_once(tmp_path: Path) -> None:
    noise, random = tmp_path / "particles.mrcs", np.random.default_rng(0)
    with StackWriter(noise, 100, 24, 4.8) as stack:
        stack.write(torch.from_numpy(random.normal(size=(100, 24, 24))).float())
    call = command("heterogeneity", noise, tmp_path / "run", shared=True)
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("no structure was found") == 1


def wait_for(group: subprocess.Popen[str], log: Path, text: str) -> None:
    """Wait until a run has written a text into its log."""
    deadline = time.monotonic() + 300
    while not (log.exists() and text in log.read_text()):
        assert group.poll() is None, group.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
