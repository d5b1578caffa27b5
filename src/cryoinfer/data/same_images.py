"""Which particles are one image: by the file that a name leads to, and its row."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryoinfer.io.conventions.table import ImageReferences
from cryoinfer.io.mrc import StackFile


@functools.cache
def real_path(path: Path) -> str:
    """Return the path of a file without links."""
    # Thousands of stacks share a few folders, and a watch asks for all of them with
    # every file that arrives.
    own = os.path.join(_real_folder(path.parent), path.name)
    return os.path.realpath(own) if os.path.islink(own) else own


@functools.cache
def _real_folder(path: Path) -> str:
    return os.path.realpath(path)


def repeated_images(
    images: ImageReferences, stacks: Sequence[StackFile | None]
) -> tuple[str, ...]:
    """Return what to tell where particles are images that others are as well.

    Parameters
    ----------
    images : ImageReferences
    stacks : sequence of StackFile or None
        In the order of its paths; None is a file of its own.
    """
    numbers: dict[str, int] = {}
    names = [
        f"missing {i}" if stack is None else real_path(stack.path)
        for i, stack in enumerate(stacks)
    ]
    files = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    rows, row = np.unique(images.row, return_inverse=True)
    places = files[images.path_index] * len(rows) + row.reshape(-1)
    repeated = len(places) - len(np.unique(places))
    if not repeated:
        return ()
    return (
        f"{repeated} rows repeat an image that another row has. Repeated images make "
        "the two halves of the data dependent; remove them.",
    )
