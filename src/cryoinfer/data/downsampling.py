"""Stacks of fewer, larger pixels over the same area, cropped in Fourier space."""

from pathlib import Path

from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.resampling import cropped_images
from cryoinfer.data.shard_plan import (
    USUAL_MEMORY_BYTES,
    Crop,
    PlannedShard,
    kinds_of,
)
from cryoinfer.data.shard_writing import blocks, resampled_particles, stored_images
from cryoinfer.errors import InputError
from cryoinfer.interfaces import Monitor
from cryoinfer.io.mrc import StackWriter
from cryoinfer.io.replacing import replace_file
from cryoinfer.physics.premultiplied import multiplied_by_ctf

SMALLEST_BOX = 8


def plan_downsampling(
    particles: Particles, box: int | None, pixel_size_angstrom: float | None, stem: str
) -> tuple[PlannedShard, ...]:
    """Return which images go into which stack: those of a box and pixel size together.

    Parameters
    ----------
    particles : Particles
    box : int or None
        Of the new images.
    pixel_size_angstrom : float or None
        In place of a box: the even box is taken whose pixels come nearest to it.
    stem : str
        Of the names of the stacks.

    Raises
    ------
    InputError
        If the images are no larger than is asked for, or the box is odd.
    """
    planned: list[PlannedShard] = []
    for old_box, old_size, rows in kinds_of(particles):
        side, new = old_box * old_size, box
        if new is None:
            assert pixel_size_angstrom is not None
            new = 2 * round(side / pixel_size_angstrom / 2)
        if new % 2 or not SMALLEST_BOX <= new <= old_box:
            asked = f"{new} pixels"
            if pixel_size_angstrom is not None:
                asked += f", for pixels of {pixel_size_angstrom:g} A"
            raise InputError(
                f"expected an even box of {SMALLEST_BOX} to {old_box} pixels for "
                f"images of {old_box} pixels of {old_size:.4g} A, which are cropped "
                f"and never padded, found {asked}"
            )
        number = len(planned) + 1
        name = f"{stem}.mrcs" if number == 1 else f"{stem}_{number}.mrcs"
        planned.append(PlannedShard(name, Crop(old_box, new, old_size, side), rows))
    return tuple(planned)


def write_downsampled(
    particles: Particles,
    planned: tuple[PlannedShard, ...],
    folder: Path,
    monitor: Monitor,
) -> Particles:
    """Write stacks of float32, and return the particles that name them.

    Images are repaired as for inference: a hot pixel that was cropped is none any more
    and cannot be told. Each metadatum is what the new images have: pixel sizes, boxes,
    and shifts where they are counted in pixels.

    Parameters
    ----------
    particles : Particles
    planned : tuple of PlannedShard
        Of :func:`plan_downsampling`.
    folder : Path
    monitor : Monitor

    Raises
    ------
    OutputError
    """
    monitor.stage("images downsampled", len(particles))
    for one in planned:
        replace_file(folder / one.name, _Stack(particles, one, monitor).write)
    return resampled_particles(particles, planned, folder)


class _Stack:
    """One stack to be written."""

    def __init__(
        self, particles: Particles, planned: PlannedShard, monitor: Monitor
    ) -> None:
        self._particles, self._planned, self._monitor = particles, planned, monitor

    def write(self, path: Path) -> None:
        crop, rows = self._planned.crop, self._planned.rows
        size = crop.pixel_size_angstrom
        with StackWriter(path, len(rows), crop.box, size) as writer:
            for own, images in blocks(
                self._particles, self._planned, _cropped, USUAL_MEMORY_BYTES
            ):
                writer.write(images)
                self._monitor.advance(len(own))


def _cropped(particles: Particles, crop: Crop, rows: Tensor) -> Tensor:
    # Images that were multiplied by their CTF are read divided by it.
    cropped = cropped_images(stored_images(particles, rows), crop.box)
    optics = particles.optics[rows].with_pixel_size(crop.pixel_size_angstrom)
    return multiplied_by_ctf(cropped, optics)
