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
from accuracy import accuracy, limit
from rows import HERE, Results, Row

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.memory_allocator import keep_freed_memory
from cryoinfer.thread_waiting import wait_briefly_for_work
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio

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
        wait_briefly_for_work()  # as the command line does
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
    keep_freed_memory()  # as the command line does
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
        "outlier_score": result.outlier_score_nats,
        "outlier": result.left_out(),
        "costs": costs,
    }
    torch.save(saved, file)


if __name__ == "__main__":
    source, settings, target, where = sys.argv[1:]
    _work(Path(source), AbinitioConfig(**json.loads(settings)), Path(target), where)
