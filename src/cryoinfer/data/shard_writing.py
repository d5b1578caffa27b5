"""Particles prepared: cropped in Fourier space, normalised, written as shards.

Images are read and written in the order of the particles' file, block by block, so
that memory does not grow with their number. How many blocks are under way at a time,
one a thread, is what a budget of memory decides; a block has a fixed size and a fixed
place in its shard, so that no budget changes a bit of the result.
"""

import hashlib
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryoinfer.data import shards
from cryoinfer.data.normalising import Background, Normalised, normalised
from cryoinfer.data.particles import Particles
from cryoinfer.data.resampling import band_limited_matrix
from cryoinfer.data.shards import Shard, ShardIndex
from cryoinfer.errors import InputError
from cryoinfer.interfaces import Monitor
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.conventions.resampled import (
    ORIGINAL,
    ResampledImages,
    relion_names,
    resampled_in_cryosparc,
    resampled_in_relion,
)
from cryoinfer.io.conventions.table import ImageReferences
from cryoinfer.io.files import content_sha256
from cryoinfer.io.mrc import StackFile, StackWriter
from cryoinfer.io.mrc_header import HEADER_BYTES
from cryoinfer.io.replacing import replace_file

USUAL_MEMORY_BYTES = 250_000_000

_SHARD_BYTES = 2_000_000_000
"""At most, but for its header: a few files to copy, none too long to do again."""

_BLOCK = 32
"""Images that are read and computed together."""

_COPIES = 3
"""Of an image as it came, that are in memory at a time."""

_CIRCLE = 0.75
"""Diameter of the particle over the box, as everywhere where none is given."""


@dataclass(frozen=True)
class PreparationConfig:
    """What particles are to be prepared for.

    Attributes
    ----------
    box : int or None
        To crop to; None keeps that of the images.
    resolution_angstrom : float or None
        That is to be kept, in place of a box.
    particle_diameter_angstrom : float or None
        The noise is measured around it; None for three quarters of the box.
    memory_bytes : int
        For images. Changes nothing but the speed.
    """

    box: int | None = None
    resolution_angstrom: float | None = None
    particle_diameter_angstrom: float | None = None
    memory_bytes: int = USUAL_MEMORY_BYTES

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, in values that JSON knows."""
        return {
            "box": self.box,
            "resolution_angstrom": self.resolution_angstrom,
            "particle_diameter_angstrom": self.particle_diameter_angstrom,
            "shard_bytes": _SHARD_BYTES,
        }


@dataclass(frozen=True)
class Crop:
    """From images of one box and pixel size to smaller ones of the same area.

    Attributes
    ----------
    old_box, box : int
    old_pixel_size_angstrom : float
    diameter_angstrom : float
        Of the particle.
    """

    old_box: int
    box: int
    old_pixel_size_angstrom: float
    diameter_angstrom: float

    @property
    def pixel_size_angstrom(self) -> float:
        """Of the cropped images."""
        return self.old_pixel_size_angstrom * self.old_box / self.box

    def images(self, raw: Tensor) -> Normalised:
        """Crop and normalise images, float32, shape (b, old_box, old_box).

        Fourier coefficients from Nyquist's frequency of the new box on are left out.
        """
        made = raw
        if self.box != self.old_box:
            made = self._matrix @ raw @ self._matrix.mT
        return normalised(made, raw, self._background, self._old_background)

    @cached_property
    def _matrix(self) -> Tensor:
        matrix = band_limited_matrix(self.old_box, self.box, float(self.old_box))
        return matrix.float()

    @cached_property
    def _background(self) -> Background:
        radius = self.diameter_angstrom / 2 / self.pixel_size_angstrom
        return Background.of(self.box, radius)

    @cached_property
    def _old_background(self) -> Background:
        radius = self.diameter_angstrom / 2 / self.old_pixel_size_angstrom
        return Background.of(self.old_box, radius)


@dataclass(frozen=True)
class PlannedShard:
    """Images that go into one file.

    Attributes
    ----------
    name : str
    crop : Crop
    rows : Tensor of int64
        Of the particles' file, ascending.
    """

    name: str
    crop: Crop
    rows: Tensor

    @property
    def bytes(self) -> int:
        """Of the file."""
        return HEADER_BYTES + len(self.rows) * self.crop.box**2 * 2


def plan_shards(
    particles: Particles, config: PreparationConfig
) -> tuple[PlannedShard, ...]:
    """Return which images go where: those of a box and pixel size together.

    Raises
    ------
    InputError
        If the images cannot be cropped as is asked.
    """
    kinds = torch.stack(
        [particles.boxes.double(), particles.optics.pixel_size_angstrom], 1
    )
    distinct, kind = kinds.unique(dim=0, return_inverse=True)
    planned: list[PlannedShard] = []
    for number, (box, pixel_size) in enumerate(distinct.tolist()):
        crop = _crop(int(box), pixel_size, config)
        rows = torch.nonzero(kind == number).squeeze(1)
        for part in rows.split(max(1, _SHARD_BYTES // (2 * crop.box**2))):
            name = shards.SHARD.format(len(planned) + 1)
            planned.append(PlannedShard(name, crop, part))
    return tuple(planned)


def _crop(box: int, pixel_size: float, config: PreparationConfig) -> Crop:
    """Return what is done to images of a kind.

    Raises
    ------
    InputError
    """
    side, new = box * pixel_size, config.box or box - box % 2
    if config.resolution_angstrom is not None:
        if not 2 * pixel_size <= config.resolution_angstrom <= side:
            raise InputError(
                f"--resolution must lie between {2 * pixel_size:.4g} and {side:.4g} A "
                f"for images of {box} pixels of {pixel_size:.4g} A, found "
                f"{config.resolution_angstrom:g}."
            )
        new = min(new, _box_that_holds(side / config.resolution_angstrom))
    if new > box or new % 2:
        raise InputError(
            f"--box must be an even number up to the {box} pixels of the images, which "
            f"are cropped and never padded, found {new}."
        )
    diameter = config.particle_diameter_angstrom or _CIRCLE * side
    least = 2 * side / new
    if not least <= diameter <= side:
        raise InputError(
            f"--particle-diameter must lie between {least:.4g} and {side:.4g} A for "
            f"images of {new} pixels of {side / new:.4g} A, found {diameter:g}."
        )
    return Crop(box, new, pixel_size, diameter)


def _box_that_holds(radius_px: float) -> int:
    """Return the even box with fast transforms whose last full ring is at a radius."""
    box = 2 * (math.ceil(radius_px - 1e-6) + 1)
    while _without(box, 2, 3, 5) > 1:
        box += 2
    return box


def _without(number: int, *factors: int) -> int:
    for factor in factors:
        while number % factor == 0:
            number //= factor
    return number


def write_shards(
    particles: Particles,
    planned: tuple[PlannedShard, ...],
    folder: Path,
    index: ShardIndex,
    memory_bytes: int,
    monitor: Monitor,
) -> ShardIndex:
    """Write the shards that an index lacks, then the particles, then that it is whole.

    The index is written after every shard, so that an interrupted preparation can go on
    from there.

    Parameters
    ----------
    particles : Particles
        As they came.
    planned : tuple of PlannedShard
        Of :func:`plan_shards`, for the same particles.
    folder : Path
        That holds the index.
    index : ShardIndex
        The first of the planned shards, or none of them.
    memory_bytes : int
    monitor : Monitor

    Raises
    ------
    InputError
        If not a single image has noise that it could be normalised by.
    OutputError
    """
    todo = planned[len(index.shards) :]
    monitor.stage("images prepared", sum(len(one.rows) for one in todo))
    for one in todo:
        label = index.label(one.name)
        shard = _write_shard(particles, one, folder, label, memory_bytes, monitor)
        index = replace(index, shards=(*index.shards, shard))
        index.write(folder)
    spoiled = sum(len(one.unreadable) + len(one.flat) for one in index.shards)
    if spoiled == index.count:
        for name in (shards.INDEX, *(one.name for one in index.shards)):
            (folder / name).unlink()
        raise InputError(
            "Not one image has noise around the particle that it could be normalised "
            "by. Are they simulated without noise, or masked? Use them as they are."
        )
    write_particles(particles, planned, folder)
    digest = content_sha256(folder / index.particles)
    index = replace(index, finished=True, particles_sha256=digest)
    index.write(folder)
    return index


def _write_shard(
    particles: Particles,
    planned: PlannedShard,
    folder: Path,
    label: str,
    memory_bytes: int,
    monitor: Monitor,
) -> Shard:
    path, crop = folder / planned.name, planned.crop
    digest = hashlib.sha256()
    found: dict[str, list[int]] = {"unreadable": [], "flat": [], "clipped": []}

    def write(partial: Path) -> None:
        with StackWriter(
            partial,
            len(planned.rows),
            crop.box,
            crop.pixel_size_angstrom,
            dtype=torch.float16,
            label=label,
        ) as writer:
            for rows, made in _blocks(particles, planned, memory_bytes):
                for name, bad in found.items():
                    bad += rows[getattr(made, name)].tolist()
                digest.update(made.images.numpy().data)
                writer.write(made.images)
                monitor.advance(len(rows))

    replace_file(path, write)
    return Shard(
        name=planned.name,
        images=len(planned.rows),
        box=crop.box,
        bytes=planned.bytes,
        sha256=digest.hexdigest(),
        **{name: tuple(rows) for name, rows in found.items()},
    )


def _blocks(
    particles: Particles, planned: PlannedShard, memory_bytes: int
) -> Iterator[tuple[Tensor, Normalised]]:
    """Yield rows and prepared images of a shard, block by block in their order.

    Threads have a block each: those of PyTorch would wait for each other after every
    step of a block.
    """
    crop, before = planned.crop, torch.get_num_threads()
    fitting = memory_bytes // (_BLOCK * _COPIES * 4 * crop.old_box**2)
    threads = max(1, min(before, fitting))
    # One more than there are threads: none waits for what is being written.
    ahead = threads if threads > 1 else 0
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(
            threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            under_way: deque[tuple[Tensor, Future[Normalised]]] = deque()
            for own in planned.rows.split(_BLOCK):
                task = pool.submit(_prepared, particles, crop, own)
                under_way.append((own, task))
                if len(under_way) > ahead:
                    first, done = under_way.popleft()
                    yield first, done.result()
            for own, task in under_way:
                yield own, task.result()
    finally:
        torch.set_num_threads(before)


def _prepared(particles: Particles, crop: Crop, rows: Tensor) -> Normalised:
    return crop.images(stored_images(particles, rows))


def stored_images(particles: Particles, rows: Tensor) -> Tensor:
    """Read images of one box as they are stored, whichever sign they have."""
    images, sign = particles.images(rows), particles.table.sign[rows]
    return images * sign[:, None, None] if bool((sign < 0).any()) else images


def write_particles(
    particles: Particles, planned: tuple[PlannedShard, ...], folder: Path
) -> None:
    """Write the metadata of prepared particles, in the order and format they had.

    Of cryoSPARC's there is a STAR file as well.
    """
    n = len(particles)
    path_index, row, box = (np.zeros(n, dtype=np.int64) for _ in range(3))
    pixel_size = np.zeros(n)
    for number, one in enumerate(planned):
        own = one.rows.numpy()
        path_index[own], row[own] = number, np.arange(len(own))
        box[own], pixel_size[own] = one.crop.box, one.crop.pixel_size_angstrom
    names = tuple(one.name for one in planned)
    old = particles.optics.pixel_size_angstrom.numpy()
    images = ImageReferences(names, path_index, row)
    new = ResampledImages(images, box, pixel_size, old)
    source = particles.source
    made = Particles(
        source=(
            resampled_in_relion(source, new)
            if isinstance(source, RelionParticles)
            else resampled_in_cryosparc(source, new)
        ),
        table=replace(
            particles.table,
            images=images,
            box=torch.from_numpy(box),
            optics=replace(
                particles.optics, pixel_size_angstrom=torch.from_numpy(pixel_size)
            ),
        ),
        stacks=tuple(StackFile.of(folder / name) for name in names),
    )
    if not isinstance(source, RelionParticles):
        replace_file(folder / shards.CRYOSPARC_PARTICLES, made.save)
        originals = relion_names(particles.table.images)
        made = made.with_results(columns={ORIGINAL: originals})
    replace_file(folder / shards.PARTICLES, made.save)
