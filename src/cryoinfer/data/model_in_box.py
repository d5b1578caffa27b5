"""The one frame of maps and models in files: positions from the first voxel of the box.

Maps are written with an origin of zero, which viewers take for the place of the first
voxel; the middle of the box, about which poses turn, is the voxel ``n // 2``.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryoinfer.io.atoms import AtomicModel


def middle_angstrom(box: int, pixel_size_angstrom: float) -> float:
    """Return where the middle of a box lies along each axis, from its first voxel."""
    return (box // 2) * pixel_size_angstrom


def in_box(
    model: AtomicModel,
    centred_angstrom: NDArray[np.float64],
    box: int,
    pixel_size_angstrom: float,
) -> AtomicModel:
    """Return a model where viewers show it inside a map of the box.

    Parameters
    ----------
    model : AtomicModel
    centred_angstrom : ndarray, shape (a, 3)
        Where its atoms are, from the middle of the box.
    box : int
    pixel_size_angstrom : float
    """
    moved = centred_angstrom + middle_angstrom(box, pixel_size_angstrom)
    return replace(model, coordinates_angstrom=moved)
