"""Wall time until the same median pose error: RELION and cryoinfer in turn.

Both start from nothing on set F of cryoPoseNet (9,000 x 128 x 128, -10 dB). RELION
makes an initial model by stochastic gradient descent and refines it to convergence,
on a copy of the images whose background has mean 0 and standard deviation 1. At every
iteration that either program writes, its poses are compared with the truth after the
best global alignment; the comparison itself is not timed. RELION 3.1 and Open MPI must
be installed; with two cores its refinement runs two workers and an idle leader.

    python benchmarks/relion_comparison.py

takes hours. To try the script on images that teach nothing, make all of it small:

    python benchmarks/relion_comparison.py --n 200 --box 48 --limit-minutes 0.5
        --sgd-iterations 2 1 2 --sgd-subset 10 10 --write-every 1
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from measure import argument_parser, resized, results_of, simulated
from printed import KERNELS, NOISE, PRODUCTS, Column, table
from relion import (
    Ran,
    Snapshot,
    initial_model_command,
    last_map,
    normalise,
    refine_command,
    run_relion,
)
from rows import HERE, Results, Row

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.records import Pose
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio

REACHED = 1.05
"""Factor of an error within which it counts as the same."""

_SEEN = 0.25
"""Share of the particles that must have poses: a few can be aligned with anything."""

_LOST_DEGREES = 45.0
"""A median error beyond it is that of random poses: nothing was found."""

COLUMNS = (
    Column("program", "program"),
    Column("stage", "stage"),
    Column("done", "done"),
    Column("iterations", "iterations"),
    Column("wall (s)", "wall_seconds", ",.0f"),
    Column("least median error (deg)", "best_degrees", ".2f"),
    Column("after (s)", "best_seconds", ",.0f"),
    Column("cryoinfer as good after (s)", "cryoinfer_seconds", ".0f"),
    Column("ratio", "ratio", ".0f"),
)


# --- cryoinfer ----------------------------------------------------------------------


class _PoseClock(SilentMonitor):
    """Keeps the poses of every checkpoint and when they were there."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.kept: list[dict[str, torch.Tensor | float]] = []

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        poses = state["poses"]
        assert isinstance(poses, dict)
        if not bool((poses["rotation"] != poses["rotation"][0]).any()):
            return  # the random start knows no poses
        self.keep(poses["rotation"], poses["shift_angstrom"])

    def keep(self, rotation: torch.Tensor, shift_angstrom: torch.Tensor) -> None:
        self.kept.append(
            {
                "seconds": time.perf_counter() - self.started,
                "rotation": rotation.double().clone(),
                "shift_angstrom": shift_angstrom.double().clone(),
            }
        )


def _work(set_dir: Path, seed: int, file: Path) -> None:
    """Do one run; what follows in the process that was started for it."""
    clock = _PoseClock()
    particles = Particles.load(set_dir / "particles.star")
    result = abinitio(particles, AbinitioConfig(seed=seed), clock)
    clock.keep(result.latents.pose.rotation, result.latents.pose.shift_angstrom)
    torch.save(clock.kept, file)


def run_cryoinfer(set_dir: Path, folder: Path, seed: int) -> Ran:
    """Run ab initio in a process of its own, whose start is counted."""
    file = folder / "cryoinfer.pt"
    started = time.perf_counter()
    command = [sys.executable, __file__, "--work", str(set_dir), str(seed), str(file)]
    subprocess.run(command, check=True)
    wall_seconds = time.perf_counter() - started
    kept = torch.load(file, weights_only=True)
    # The process began with its imports, before its clock.
    before = wall_seconds - kept[-1]["seconds"]
    snapshots = [
        Snapshot(
            entry["seconds"] + before,
            np.arange(len(entry["rotation"])),
            Pose(entry["rotation"], entry["shift_angstrom"]),
        )
        for entry in kept
    ]
    return Ran(wall_seconds, True, snapshots)


# --- Comparison ---------------------------------------------------------------------


def error_curve(snapshots: Sequence[Snapshot], true: Pose) -> list[list[float]]:
    """Return [seconds, median error in degrees, share of particles] of each."""
    curve = []
    for snapshot in snapshots:
        known = true[torch.from_numpy(snapshot.rows)]
        generator = torch.Generator().manual_seed(0)
        alignment = align_poses(snapshot.pose, known, generator)
        errors = pose_errors(snapshot.pose, known, alignment).geodesic_degrees
        share = len(snapshot.rows) / len(true)
        curve.append([snapshot.seconds, float(errors.median()), share])
    return curve


def seconds_until(curve: Sequence[Sequence[float]], degrees: float) -> float | None:
    """Return when the median error was first as small as that, within a tolerance."""
    return next(
        (
            seconds
            for seconds, median, share in curve
            if share >= _SEEN and median <= REACHED * degrees
        ),
        None,
    )


def summary(ran: Ran, curve: list[list[float]]) -> Row:
    """Return what is kept of one stage of one program."""
    row: Row = {
        "wall_seconds": ran.wall_seconds,
        "done": "yes" if ran.finished else "stopped",
        "iterations": len(curve),
        "curve": curve,
    }
    best = min((point[1] for point in curve if point[2] >= _SEEN), default=180.0)
    if best < _LOST_DEGREES:
        row |= {"best_degrees": best, "best_seconds": seconds_until(curve, best)}
    return row


def compare_round(
    set_dir: Path, number: int, options: argparse.Namespace, results: Results
) -> None:
    """Run RELION, then cryoinfer, and store a row for each stage."""
    folder = HERE / "runs" / f"relion-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    normalise(set_dir, folder)
    truth = Particles.load(set_dir / "truth.star")
    assert truth.pose is not None
    limit = options.limit_minutes
    key: Row = {"round": number, "images": len(truth), "box": truth.box}

    start = run_relion(initial_model_command(options, number), folder, limit)
    rows = {"initial model": summary(start, error_curve(start.snapshots, truth.pose))}
    command = refine_command(options, number, last_map(folder))
    refined = run_relion(command, folder, limit)
    curve = error_curve(refined.snapshots, truth.pose)
    # The refinement needs the initial model: its time counts from there.
    later = [[s + start.wall_seconds, *rest] for s, *rest in curve]
    rows["auto-refine"] = summary(refined, later)

    mine = run_cryoinfer(set_dir, folder, number)
    my_curve = error_curve(mine.snapshots, truth.pose)
    for stage, row in rows.items():
        if "best_degrees" in row:
            row["cryoinfer_seconds"] = seconds_until(my_curve, row["best_degrees"])
            if row["cryoinfer_seconds"]:
                row["ratio"] = row["best_seconds"] / row["cryoinfer_seconds"]
        results.put({**key, "program": "RELION", "stage": stage}, row)
    results.put(
        {**key, "program": "cryoinfer", "stage": "abinitio"}, summary(mine, my_curve)
    )
    shutil.rmtree(folder)


def parse_options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=1, help="how often both run (default: 1)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="of RELION")
    add("--limit-minutes", type=float, default=240.0, help="of each RELION job")
    add("--write-every", type=int, default=10, help="SGD iterations (default: 10)")
    add("--sgd-iterations", type=int, nargs=3, default=(50, 200, 50))
    add("--sgd-subset", type=int, nargs=2, default=(100, 500))
    add("--sgd-resolution", type=float, nargs=2, default=(20.0, 8.0), metavar="A")
    add("--refine-iterations", type=int, default=999, help="at most")
    return parser.parse_args()


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (NOISE, KERNELS, PRODUCTS))


def main() -> None:
    options = parse_options()
    results = results_of("relion_comparison", options)
    if not options.table:
        missing = [
            name
            for name in ("relion_refine", "relion_refine_mpi", "mpirun")
            if shutil.which(name) is None
        ]
        if missing:
            raise SystemExit(f"not installed: {', '.join(missing)}")
        set_dir = simulated(resized(simulation_preset("cryoposenet-f"), options))
        for number in range(1, options.rounds + 1):
            key = {"round": number, "program": "cryoinfer"}
            if options.again or not results.has(key):
                compare_round(set_dir, number, options, results)
        if options.keep_data == "no":
            shutil.rmtree(set_dir, ignore_errors=True)
    print(shown(results.rows()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        _work(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
