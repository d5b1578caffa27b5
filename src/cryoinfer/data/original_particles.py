"""What was found of prepared particles, put onto those that they were made from."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.shards import ShardIndex, is_prepared
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.files import content_sha256

_SAME_DEFOCUS_ANGSTROM = 0.01
"""More than files round by: single precision, or six decimals."""


@dataclass(frozen=True)
class Origin:
    """Where prepared particles come from.

    Attributes
    ----------
    index : ShardIndex
        Of their folder.
    rows : Tensor of int64, shape (n,)
        Which row of the original particles each of them is.
    """

    index: ShardIndex
    rows: Tensor

    @classmethod
    def of(cls, particles: Particles) -> Self:
        """Find it out by the images.

        The particles may have been selected, sorted and joined since, by any program.

        Raises
        ------
        InputError
            If they are not of one folder of prepared particles, or its file of
            particles is not as it was written.
        """
        used = np.unique(particles.table.images.path_index).tolist()
        paths = [particles.stacks[i].path for i in used]
        folders = {os.path.realpath(path.parent) for path in paths}
        folder = Path(min(folders))
        index = ShardIndex.read(folder) if is_prepared(folder) else None
        own = [] if index is None else [shard.name for shard in index.shards]
        other = next((path for path in paths if path.name not in own), None)
        if len(folders) > 1 or index is None or other is not None:
            raise InputError(
                "--on goes with particles of one folder that `cryoinfer prepare` has "
                f"written, and {other or paths[0]} is no image of it. Leave it out."
            )
        if content_sha256(folder / index.particles) != index.particles_sha256:
            raise InputError(
                f"{folder / index.particles} has changed since it was prepared, by "
                "which images are known to be those of the original. Restore it, or "
                "prepare the particles again."
            )
        # Rows of the folder's file are those of the original.
        whole = Particles.load(folder)
        row = torch.empty(len(whole), dtype=torch.int64)
        row[_places(whole, index)] = torch.arange(len(whole))
        return cls(index, row[_places(particles, index)])


def with_results_of(original: Particles, found: Particles) -> Particles:
    """Return particles with what was found of the same ones, in the same order.

    Poses, half-sets, classes, results, and the defocus where it was changed.
    """
    own = found.optics.defocus_u_angstrom
    offset = own - original.optics.defocus_u_angstrom
    moved = original.has_ctf and bool((offset.abs() > _SAME_DEFOCUS_ANGSTROM).any())
    columns = dict(found.table.results)
    number = found.table.class_number
    if number is not None and isinstance(original.source, RelionParticles):
        columns["rlnClassNumber"] = number.numpy()
    return original.with_results(
        pose=found.pose,
        defocus_offset_angstrom=offset if moved else None,
        random_subset=found.random_subset,
        columns=columns,
    )


def _places(particles: Particles, index: ShardIndex) -> Tensor:
    """Return a number for each image, shape (n,): those of the shards in turn."""
    images, begin, first = particles.table.images, 0, {}
    for shard in index.shards:
        first[shard.name], begin = begin, begin + shard.images
    of_stack = np.array([first.get(s.path.name, -1) for s in particles.stacks])
    return torch.from_numpy(of_stack[images.path_index] + images.row)
