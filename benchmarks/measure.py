"""Simulated sets, runs on them in their own processes, comparison with the truth.

A run is a fresh process, ``python measure.py SET CONFIG RESULT DEVICE``: its wall time
includes the start of Python, its peak memory is its own. Kernels are compiled before
it, as after the first use. Memory is read from ``/proc``, so on Linux only.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rows import HERE, Results, Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.evaluation.calibration import coverage_curve, mahalanobis_levels
from cryoinfer.evaluation.fsc import fourier_shell_correlation, resolution_at
from cryoinfer.evaluation.pose_error import align_poses, pose_errors, tangent_error
from cryoinfer.evaluation.volume_alignment import align_map
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map
from cryoinfer.records import Pose
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct

LEVELS = (0.5, 0.9, 0.95)
"""Credible levels whose coverage is measured."""

_POLL_SECONDS = 0.05
_KERNEL_SET = SimulationConfig(
    n=200,
    box=32,
    pixel_size_angstrom=3.2,
    snr_db=0.0,
    defocus_range_angstrom=(4000.0, 12000.0),
)


# --- Options and cases --------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One run of one simulated set.

    Attributes
    ----------
    key : Row
        What tells it from the other rows of its benchmark, beside the number of
        images and their box.
    simulation : SimulationConfig
    abinitio : AbinitioConfig
    true_symmetry : str
        Of the structure, whatever the run is told.
    device : str
        That the run computes on.
    """

    key: Row
    simulation: SimulationConfig
    abinitio: AbinitioConfig
    true_symmetry: str = "C1"
    device: str = "cpu"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every script."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", action="store_true", help="repeat finished rows")
    parser.add_argument(
        "--table", action="store_true", help="only print the table of stored rows"
    )
    parser.add_argument(
        "--keep-data",
        choices=("yes", "no"),
        default="yes",
        help="whether simulated images stay in benchmarks/data/ (default: yes)",
    )
    parser.add_argument(
        "--n", type=int, help="another number of images: a trial, kept in runs/"
    )
    parser.add_argument(
        "--box",
        type=int,
        help="another box over the same length: a trial, kept in runs/",
    )
    return parser


def results_of(name: str, options: argparse.Namespace) -> Results:
    """Return where the rows of this call belong."""
    return Results(name, trial=options.n is not None or options.box is not None)


def measure_cases(
    cases: Sequence[Case], results: Results, options: argparse.Namespace
) -> None:
    """Run all cases that have no row yet, and store their rows one by one."""
    if options.table:
        return
    todo = []
    for case in cases:
        simulation = resized(case.simulation, options)
        key = {**case.key, "images": simulation.n, "box": simulation.box}
        if options.again or not results.has(key):
            todo.append(replace(case, key=key, simulation=simulation))
    if todo:
        run_abinitio(simulated(_KERNEL_SET), AbinitioConfig())
    for number, case in enumerate(todo):
        print(f"{number + 1} of {len(todo)}: {case.key}", flush=True)
        set_dir = simulated(case.simulation)
        row = run_abinitio(set_dir, case.abinitio, case.true_symmetry, case.device)
        row |= limit(set_dir, case.abinitio.symmetry)
        row["ratio_to_limit"] = row["truth_0143_angstrom"] / row["limit_0143_angstrom"]
        results.put(case.key, row)
        later = [other.simulation for other in todo[number + 1 :]]
        if options.keep_data == "no" and case.simulation not in later:
            shutil.rmtree(set_dir)


def simulated(config: SimulationConfig) -> Path:
    """Return the folder of a simulated set, made if it is absent."""
    usual = asdict(SimulationConfig())
    chosen = {k: v for k, v in asdict(config).items() if v != usual[k]}
    text = json.dumps(chosen, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    name = f"{Path(config.structure).stem}-{config.n}-{config.box}-{digest}"
    folder = HERE / "data" / name
    # Written last: a set without it was interrupted.
    if not (folder / "particles.star").exists():
        shutil.rmtree(folder, ignore_errors=True)
        simulate(config, folder, SilentMonitor())
        (folder / "simulation.json").write_text(text)
    return folder


def resized(config: SimulationConfig, options: argparse.Namespace) -> SimulationConfig:
    """Return the set with the images' number and box that were asked for."""
    n = options.n or config.n
    return replace(in_box(config, options.box or config.box), n=n)


def in_box(config: SimulationConfig, box: int) -> SimulationConfig:
    """Return the set in a box of other pixels over the same length."""
    pixel_size = config.pixel_size_angstrom * config.box / box
    return replace(config, box=box, pixel_size_angstrom=pixel_size)


# --- Runs ---------------------------------------------------------------------------


def run_abinitio(
    set_dir: Path,
    config: AbinitioConfig,
    true_symmetry: str = "C1",
    device: str = "cpu",
) -> Row:
    """Run ab initio in a process of its own and compare the result with the truth.

    Parameters
    ----------
    set_dir : Path
        Of :func:`simulated`.
    config : AbinitioConfig
    true_symmetry : str
        Point group of the structure: poses that it makes equal count as equal.
    device : str

    Returns
    -------
    Row
        Costs (``wall_seconds``, ``cpu_seconds``, ``peak_mb``, ``peak_anonymous_mb``,
        ``stage_seconds``; ``peak_gpu_mb``) and the values of :func:`accuracy`.
    """
    with scratch_folder() as folder:
        file = Path(folder) / "result.pt"
        settings = json.dumps(asdict(config))
        command = [sys.executable, __file__, str(set_dir), settings, str(file), device]
        costs = run_process(command)
        saved = torch.load(file, weights_only=True)
    return costs | saved.pop("costs") | accuracy(saved, set_dir, true_symmetry)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder in ``runs/`` that is gone when its block ends."""
    runs = HERE / "runs"
    runs.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=runs)


def run_process(command: Sequence[str]) -> Row:
    """Run a command to its end and return its time and peak memory.

    Returns
    -------
    Row
        ``wall_seconds``; ``cpu_seconds`` of all threads, by which a busy machine can
        be told; ``peak_mb``, with the pages of mapped files, and
        ``peak_anonymous_mb``, without.

    Raises
    ------
    RuntimeError
        If the command fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command)
    peak = {"VmHWM": 0, "RssAnon": 0}
    done, status, usage = 0, 0, None
    while not done:
        # The children's own maximum would include this process, whose copy they are
        # until they start the command.
        for name, kilobytes in _memory(process.pid).items():
            peak[name] = max(peak[name], kilobytes)
        time.sleep(_POLL_SECONDS)
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
    wall_seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or usage is None:
        raise RuntimeError(f"exit status {process.returncode} of {' '.join(command)}")
    return {
        "wall_seconds": wall_seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": peak["VmHWM"] / 1e3,
        "peak_anonymous_mb": peak["RssAnon"] / 1e3,
    }


def _memory(pid: int) -> dict[str, int]:
    """Return the largest resident size and the anonymous one, in kB."""
    found = {}
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    for line in lines:
        name, _, value = line.partition(":")
        if name in ("VmHWM", "RssAnon"):
            found[name] = int(value.split()[0])
    return found


class _StageClock(SilentMonitor):
    """Adds up seconds by kind of stage, and prints messages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name = "reading"
        self._since = time.perf_counter()

    def stage(self, name: str, total: int) -> None:
        now = time.perf_counter()
        before = self.seconds.get(self._name, 0.0)
        self.seconds[self._name] = before + now - self._since
        # "refinement to 3.1 A" and its kin are one.
        self._name, self._since = name.split(" to ")[0], now

    def message(self, text: str) -> None:
        print(f"    {text}", flush=True)


def _work(set_dir: Path, config: AbinitioConfig, file: Path, device: str) -> None:
    """Do one run; what follows in the process that was started for it."""
    clock = _StageClock()
    particles = Particles.load(set_dir / "particles.star")
    result = abinitio(particles, config, clock, device=device)
    clock.stage("end", 0)
    costs: Row = {"passes": len(result.iterations), "stage_seconds": clock.seconds}
    if device != "cpu":
        costs["peak_gpu_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    saved = {
        "rotation": result.latents.pose.rotation,
        "shift_angstrom": result.latents.pose.shift_angstrom,
        "covariance": result.inferred.covariance[:, 0, :5, :5].clone(),
        "density": result.reconstruction.density,
        "mask": result.reconstruction.mask,
        "gold_standard_angstrom": result.reconstruction.resolution_angstrom,
        "costs": costs,
    }
    torch.save(saved, file)


# --- Verdicts -----------------------------------------------------------------------


def accuracy(saved: Row, set_dir: Path, true_symmetry: str = "C1") -> Row:
    """Compare poses, their covariance and the map with the truth.

    Parameters
    ----------
    saved : Row
        ``rotation`` (n, 3, 3), ``shift_angstrom`` (n, 2), ``covariance`` (n, 5, 5),
        ``density`` and ``mask`` (box, box, box), ``gold_standard_angstrom``.
    set_dir : Path
    true_symmetry : str

    Returns
    -------
    Row
        Median, mean and 95th percentile of the pose errors after the best global
        alignment, resolutions against the truth under the run's mask, and the
        coverage of the credible sets of the rotation and of the whole pose.
    """
    truth = Particles.load(set_dir / "truth.star")
    assert truth.pose is not None
    group = symmetry_rotations(true_symmetry)
    estimated = Pose(saved["rotation"], saved["shift_angstrom"])
    generator = torch.Generator().manual_seed(0)
    alignment = align_poses(estimated, truth.pose, generator, group)
    errors = pose_errors(estimated, truth.pose, alignment, group)
    masked = saved["density"] * saved["mask"]
    pixel_size = truth.pixel_size_angstrom
    moved = align_map(_true_map(set_dir), masked, alignment, pixel_size)
    fsc = fourier_shell_correlation(moved * saved["mask"], masked)
    error = tangent_error(estimated, truth.pose, alignment, group)
    row: Row = {
        **errors.summary(),
        "mirrored": alignment.mirrored,
        "gold_standard_angstrom": saved["gold_standard_angstrom"],
        "truth_0143_angstrom": resolution_inside(fsc, 0.143, pixel_size),
        "truth_05_angstrom": resolution_inside(fsc, 0.5, pixel_size),
    }
    for name, dims in (("rotation", range(3)), ("pose", range(5))):
        levels = mahalanobis_levels(error, saved["covariance"], list(dims))
        covered = coverage_curve(levels, torch.tensor(LEVELS)).tolist()
        for level, share in zip(LEVELS, covered, strict=True):
            row[f"coverage_{name}_{round(100 * level)}"] = share
    return row


def limit(set_dir: Path, symmetry: str = "C1") -> Row:
    """Return the resolution of the same images at their true poses; kept in the set.

    Parameters
    ----------
    set_dir : Path
    symmetry : str
        Imposed on the map, as in the run that it is the limit of.

    Returns
    -------
    Row
        ``limit_0143_angstrom`` and ``limit_05_angstrom`` against the truth, under a
        mask found as the runs find theirs, and ``limit_gold_standard_angstrom``.
    """
    kept = set_dir / f"limit-{symmetry}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    truth = Particles.load(set_dir / "truth.star")
    particles = Particles.load(set_dir / "particles.star").with_results(pose=truth.pose)
    best = reconstruct(particles, ReconstructConfig(symmetry), SilentMonitor())
    fsc = fourier_shell_correlation(
        _true_map(set_dir) * best.mask, best.density * best.mask
    )
    row = {
        "limit_0143_angstrom": resolution_inside(fsc, 0.143, best.pixel_size_angstrom),
        "limit_05_angstrom": resolution_inside(fsc, 0.5, best.pixel_size_angstrom),
        "limit_gold_standard_angstrom": best.resolution_angstrom,
    }
    kept.write_text(json.dumps(row))
    return row


def resolution_inside(
    fsc: Tensor, threshold: float, pixel_size_angstrom: float
) -> float:
    """Return the first crossing among the shells that runs use; Nyquist without one.

    Runs use coefficients up to ``n // 2 - 1`` Fourier pixels: the outermost shell
    holds next to nothing of the map, and says nothing about it.
    """
    inside = torch.cat([fsc[:-1], fsc[-2:-1]])
    return resolution_at(inside, threshold, 2 * (len(fsc) - 1), pixel_size_angstrom)


def _true_map(set_dir: Path) -> Tensor:
    return torch.from_numpy(read_map(set_dir / "truth.mrc").density.copy()).float()


if __name__ == "__main__":
    source, settings, target, where = sys.argv[1:]
    _work(Path(source), AbinitioConfig(**json.loads(settings)), Path(target), where)
