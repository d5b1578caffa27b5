"""How heavy the molecule of a map is, whatever the map's resolution and units."""

import numpy as np
from scipy import ndimage
from torch import Tensor

DALTON_PER_ANGSTROM3 = 0.81
"""Of protein: 1.35 g/cm3."""

_BLUR_ANGSTROM = 3.0
"""Of the map, as a standard deviation: density is then even within a molecule, so that
its surface has a level of its own. Above any level of a finer map there are atoms."""

_SURFACE = 0.6
"""Of the mean of the density over itself, where the surface lies: the volume within is
right to 12 % for six proteins of 8 to 150 kDa with noise and without, to B-factors of
800 A2 (7 A), to 16 % for apoferritin, and up to a quarter too large at 2,000 A2."""

_COARSEST_ANGSTROM = 5.0
"""Pixel, above which a map says nothing of its surface: Nyquist is 10 angstrom."""

_DUST = 0.1  # of the largest piece, below which a piece is noise
_ROUNDS = 30


def mass_kilodalton(density: Tensor, pixel_size_angstrom: float) -> float | None:
    """Return the mass of a protein that fills a map as this molecule does.

    None where pixels are too coarse, or nothing is brighter than the map's corners.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
        The molecule bright.
    pixel_size_angstrom : float
    """
    if pixel_size_angstrom > _COARSEST_ANGSTROM:
        return None
    values = density.double().numpy()
    even = ndimage.gaussian_filter(values, _BLUR_ANGSTROM / pixel_size_angstrom)
    even = even - even[_corners(len(even))].mean()
    level = 0.3 * float(even.max())
    for _ in range(_ROUNDS):
        above = even[even > level]
        if not len(above):
            return None
        level = _SURFACE * float(np.square(above).sum() / above.sum())
    label, _ = ndimage.label(even > level)
    voxels = np.bincount(label.ravel())[1:]
    if not len(voxels):
        return None
    volume = voxels[voxels > _DUST * voxels.max()].sum() * pixel_size_angstrom**3
    return float(volume) * DALTON_PER_ANGSTROM3 / 1000


def _corners(n: int) -> np.ndarray:
    """Return which voxels are outside the ball in a box, shape (n, n, n)."""
    axis = np.square(np.arange(n) - n // 2)
    return axis[:, None, None] + axis[None, :, None] + axis > (n / 2) ** 2
