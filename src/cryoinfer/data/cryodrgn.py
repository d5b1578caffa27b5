"""Particles with the poses and CTFs that cryoDRGN has in files of their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoinfer.data.loading import require_plausible
from cryoinfer.data.optics_checks import require_usable
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.cryodrgn import pose_of, with_ctf
from cryoinfer.io.conventions.relion import table_to_relion
from cryoinfer.io.conventions.table import group_numbers
from cryoinfer.io.cryodrgn import read_poses


def with_cryodrgn_poses(particles: Particles, path: Path) -> Particles:
    """Return particles with the poses of ``poses.pkl``, in place of their own.

    Raises
    ------
    InputError
        If the file cannot be used, or is of another number of particles.
    """
    poses = read_poses(path)
    _require_rows(path, len(poses.rotation), len(particles))
    side = particles.boxes * particles.optics.pixel_size_angstrom
    return particles.with_results(pose=pose_of(poses, side.numpy()))


def with_cryodrgn_ctf(
    particles: Particles, path: Path, parameters: NDArray[np.float64]
) -> Particles:
    """Return the images of stacks with the CTFs and pixel sizes of ``ctf.pkl``.

    Parameters
    ----------
    particles : Particles
        Of stacks, without metadata.
    path : Path
        For messages.
    parameters : array, shape (n, 9)
        As :func:`cryoinfer.io.cryodrgn.read_ctf` returns them.

    Raises
    ------
    InputError
        If they are of another number of particles, or of no microscope.
    """
    _require_rows(path, len(parameters), len(particles))
    table = with_ctf(particles.table, parameters)
    optics, box = table.optics, table.box.numpy()
    for size in optics.pixel_size_angstrom.unique().tolist():
        require_plausible(size, path.name)
    columns = optics.pixel_size_angstrom, optics.voltage_kv, optics.cs_mm
    group = group_numbers(
        box, *(one.numpy() for one in (*columns, optics.amplitude_contrast))
    )
    table = replace(table, optics=replace(optics, group=group))
    require_usable(table)
    return replace(particles, source=table_to_relion(table), table=table)


def _require_rows(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise InputError(
            f"{path} is of {found:,} particles, and there are {expected:,}: expected "
            "one row for each image, in their order"
        )
