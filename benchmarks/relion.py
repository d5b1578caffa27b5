"""RELION's two jobs that start from nothing, run and read.

The commands are those of RELION 3.1's jobs "3D initial model" and "3D auto-refine";
what they take from the options is described in ``relion_comparison.py``.
"""

import argparse
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.mrc import StackWriter
from cryoinfer.io.star import read_star
from cryoinfer.records import Pose

DIAMETER_ANGSTROM = 80.0
"""Of the mask that RELION puts on the images; the molecule is 60 angstrom long."""


@dataclass(frozen=True)
class Snapshot:
    """Poses at one moment of a run.

    Attributes
    ----------
    seconds : float
        Since the program's start.
    rows : array of int64, shape (m,)
        Of the particles that have a pose by then, among all.
    pose : Pose, of length m
    """

    seconds: float
    rows: NDArray[np.int64]
    pose: Pose


@dataclass(frozen=True)
class Ran:
    """One command of RELION.

    Attributes
    ----------
    wall_seconds : float
    finished : bool
        Whether it came to its end within the limit.
    snapshots : list of Snapshot
    """

    wall_seconds: float
    finished: bool
    snapshots: list[Snapshot]


def normalise(set_dir: Path, folder: Path) -> Path:
    """Write images whose background has mean 0 and deviation 1, as RELION needs.

    Returns the STAR file, whose stack lies beside it.
    """
    particles = Particles.load(set_dir / "particles.star")
    box, pixel_size = particles.box, particles.pixel_size_angstrom
    axis = torch.arange(box) - box // 2
    radius_px = DIAMETER_ANGSTROM / 2 / pixel_size
    outside = axis[:, None] ** 2 + axis**2 > radius_px**2
    stack = folder / "particles.mrcs"
    with StackWriter(stack, len(particles), box, pixel_size) as writer:
        for batch in particles.batches(500):
            background = batch.images[:, outside]
            mean = background.mean(1)[:, None, None]
            deviation = background.std(1)[:, None, None]
            writer.write((batch.images - mean) / deviation)
    # The names of the images in it are relative to its folder.
    shutil.copy(set_dir / "particles.star", folder)
    return folder / "particles.star"


def initial_model_command(options: argparse.Namespace, seed: int) -> list[str]:
    """Return the command of RELION 3.1's job "3D initial model"."""
    first, middle, last = options.sgd_iterations
    return [
        *("relion_refine", "--i", "particles.star", "--o", "initial/run"),
        *("--sgd", "--denovo_3dref", "--K", "1", "--sym", "C1"),
        *("--sgd_ini_iter", str(first), "--sgd_inbetween_iter", str(middle)),
        *("--sgd_fin_iter", str(last), "--sgd_write_iter", str(options.write_every)),
        *("--sgd_ini_resol", str(options.sgd_resolution[0])),
        *("--sgd_fin_resol", str(options.sgd_resolution[1])),
        *("--sgd_ini_subset", str(options.sgd_subset[0])),
        *("--sgd_fin_subset", str(options.sgd_subset[1])),
        *("--healpix_order", "1", "--oversampling", "1"),
        *("--offset_range", "2", "--offset_step", "2"),
        *("--flatten_solvent", "--zero_mask", "--pad", "1"),
        *("--particle_diameter", str(DIAMETER_ANGSTROM)),
        *("--preread_images", "--pool", "3", "--dont_combine_weights_via_disc"),
        *("--j", str(options.threads), "--random_seed", str(seed)),
    ]


def refine_command(options: argparse.Namespace, seed: int, start: Path) -> list[str]:
    """Return the command of RELION 3.1's job "3D auto-refine" from a map."""
    workers = max(2, options.threads)
    return [
        *("mpirun", "-n", str(workers + 1), "--oversubscribe", "--allow-run-as-root"),
        *("relion_refine_mpi", "--i", "particles.star", "--o", "refine/run"),
        *("--ref", str(start), "--ini_high", str(options.sgd_resolution[0])),
        *("--auto_refine", "--split_random_halves", "--low_resol_join_halves", "40"),
        *("--auto_iter_max", str(options.refine_iterations), "--sym", "C1"),
        *("--healpix_order", "2", "--auto_local_healpix_order", "4"),
        *("--oversampling", "1", "--offset_range", "2", "--offset_step", "2"),
        *("--flatten_solvent", "--zero_mask", "--norm", "--scale", "--pad", "2"),
        *("--particle_diameter", str(DIAMETER_ANGSTROM)),
        *("--preread_images", "--pool", "3", "--dont_combine_weights_via_disc"),
        *("--j", "1", "--random_seed", str(seed)),
    ]


def run_relion(command: Sequence[str], folder: Path, limit_minutes: float) -> Ran:
    """Run a command in a folder, and read the poses of every iteration it wrote.

    Raises
    ------
    RuntimeError
        If it fails by itself; its output is in ``log.txt``.
    """
    output = folder / Path(command[command.index("--o") + 1])
    output.parent.mkdir()
    log = output.parent / "log.txt"
    # Files and the process must be timed by the same clock.
    began, started = time.time(), time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(60 * limit_minutes)
        except subprocess.TimeoutExpired:
            code = None
            # MPI's workers are children of their own, in the same session.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    wall_seconds = time.perf_counter() - started
    if code:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"exit status {code} of {' '.join(command)}\n{tail}")
    snapshots = []
    for path in sorted(output.parent.glob("run_it*_data.star")):
        try:
            snapshots.append(relion_snapshot(path, path.stat().st_mtime - began))
        except InputError:
            # The last file of a run that was stopped may be cut off.
            if code is not None:
                raise
    return Ran(wall_seconds, code is not None, [s for s in snapshots if len(s.rows)])


def relion_snapshot(path: Path, seconds: float) -> Snapshot:
    """Read the poses of one ``_data.star``, of the particles that have been seen."""
    block = read_star(path).get("particles")
    if block is None:
        raise InputError(f"{path} has no particles")
    label = "rlnNrOfSignificantSamples"
    # Before the first iteration there is no such column: nothing has been seen.
    seen = block.integers(label) > 0 if label in block else np.zeros(len(block), bool)
    names = block.columns["rlnImageName"]
    rows = np.array([int(str(name).split("@")[0]) - 1 for name in names])
    pose = Particles.load(path, datadir=path.parents[1]).pose
    if pose is None or not seen.any():
        nowhere = Pose(torch.empty(0, 3, 3), torch.empty(0, 2))
        return Snapshot(seconds, rows[:0], nowhere)
    return Snapshot(seconds, rows[seen], pose[torch.from_numpy(seen)])


def last_map(folder: Path) -> Path:
    """Return the initial model of the last iteration written, relative to its job."""
    maps = sorted((folder / "initial").glob("run_it*_class001.mrc"))
    return maps[-1].relative_to(folder)
