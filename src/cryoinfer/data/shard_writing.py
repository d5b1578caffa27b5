"""Particles prepared: cropped in Fourier space, normalised, written as shards.

Images are read and written in the order of the particles' file, block by block, so
that memory does not grow with their number. How many blocks are under way at a time,
one a thread, is what a budget of memory decides; a block has a fixed size and a fixed
place in its shard, so that no budget changes a bit of the result.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cryoinfer.data import shards
from cryoinfer.data.normalising import Normalised
from cryoinfer.data.particles import Particles
from cryoinfer.data.shard_plan import Crop, PlannedShard
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
from cryoinfer.io.replacing import replace_file

_BLOCK = 32
"""Images that are read and computed together."""

_COPIES = 3
"""Of an image as it came, that are in memory at a time."""

M = TypeVar("M")


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
            for rows, made in blocks(particles, planned, _prepared, memory_bytes):
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


def blocks(
    particles: Particles,
    planned: PlannedShard,
    made: Callable[[Particles, Crop, Tensor], M],
    memory_bytes: int,
) -> Iterator[tuple[Tensor, M]]:
    """Yield rows and what is made of the images of a shard, block by block in order.

    Threads have a block each: those of PyTorch would wait for each other after every
    step of a block.

    Parameters
    ----------
    particles : Particles
        As they came.
    planned : PlannedShard
    made : callable
        Makes something of some rows of the particles.
    memory_bytes : int
        For images.
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
            under_way: deque[tuple[Tensor, Future[M]]] = deque()
            for own in planned.rows.split(_BLOCK):
                task = pool.submit(made, particles, crop, own)
                under_way.append((own, task))
                if len(under_way) > ahead:
                    first, done = under_way.popleft()
                    yield first, done.result()
            for own, task in under_way:
                yield own, task.result()
    finally:
        torch.set_num_threads(before)


def _prepared(particles: Particles, crop: Crop, rows: Tensor) -> Normalised:
    return crop.images(stored_images(particles, rows), particles.optics[rows])


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
    made = resampled_particles(particles, planned, folder)
    if not isinstance(made.source, RelionParticles):
        replace_file(folder / shards.CRYOSPARC_PARTICLES, made.save)
        originals = relion_names(particles.table.images)
        made = made.with_results(columns={ORIGINAL: originals})
    replace_file(folder / shards.PARTICLES, made.save)


def resampled_particles(
    particles: Particles, planned: tuple[PlannedShard, ...], folder: Path
) -> Particles:
    """Return particles whose images are those of shards that were written.

    Parameters
    ----------
    particles : Particles
        As they came.
    planned : tuple of PlannedShard
        Of all of them.
    folder : Path
        Of the shards.
    """
    n = len(particles)
    path_index, row, box = (np.zeros(n, dtype=np.int64) for _ in range(3))
    pixel_size = np.zeros(n)
    for number, one in enumerate(planned):
        own = one.rows.numpy()
        path_index[own], row[own] = number, np.arange(len(own))
        box[own], pixel_size[own] = one.crop.box, one.crop.pixel_size_angstrom
    names = tuple(one.name for one in planned)
    old = particles.table.optics.pixel_size_angstrom.numpy()
    images = ImageReferences(names, path_index, row)
    new = ResampledImages(images, box, pixel_size, old)
    source = particles.source
    return Particles(
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
