"""Compiled loops over the voxels of inserted sums (CPU).

Sums are laid out as in :class:`cryoinfer.fourier.slices.SliceAccumulator`. A
coefficient near the plane x = 0 belongs to it twice: itself and its conjugate from
the other side, which is not stored; both loops add the mates there.
"""

import math

import numba
import numpy as np

from cryoinfer.fourier.kernels import Array, compiled, parallel

_NONE = np.float32(0.0)


@parallel
def weigh(
    sums: Array, padding: float, weight: Array, voxels: Array, own: Array
) -> None:
    """Fill ``weight``, ``voxels`` and ``own`` (planes, shells) with sums over shells.

    Of weights, of ones, and of the fourth channel over the third: how much of all
    coefficients comes back from the voxels that they were put into.

    Each plane z has a row of its own, so that threads need not wait. Shells are
    distances from the origin in Fourier pixels, rounded; those beyond the last are
    left out.
    """
    last = 2 * (sums.shape[0] // 2)
    centre, shells = sums.shape[0] // 2, weight.shape[1]
    for iz in numba.prange(sums.shape[0]):
        weight[iz] = 0.0
        voxels[iz] = 0.0
        own[iz] = 0.0
        for iy in range(sums.shape[1]):
            across = (iz - centre) ** 2 + (iy - centre) ** 2
            for ix in range(sums.shape[2]):
                shell = int(np.rint(math.sqrt(across + ix * ix) / padding))
                if shell >= shells:
                    break
                value, returned = sums[iz, iy, ix, 2], sums[iz, iy, ix, 3]
                if ix == 0:
                    value += sums[last - iz, last - iy, 0, 2]
                    returned += sums[last - iz, last - iy, 0, 3]
                weight[iz, shell] += value
                voxels[iz, shell] += 1.0
                if value > 0.0:
                    own[iz, shell] += returned / value


@compiled
def _joined(
    sums: Array, iz: int, iy: int, ix: int, last: int
) -> tuple[float, float, float]:
    """Return the value and the weight of a voxel, in the plane x = 0 with its mate."""
    here = sums[iz, iy, ix]
    real, imag, weight = here[0], here[1], here[2]
    if ix == 0:
        mate = sums[last - iz, last - iy, 0]
        real, imag = real + mate[0], imag - mate[1]
        weight += mate[2]
    return real, imag, weight


@parallel
def divide(
    sums: Array,
    others: Array,
    padding: float,
    regulariser: Array,
    limit: float,
    out: Array,
) -> None:
    """Fill ``out`` (2r + 1, 2r + 1, r + 1, 2) with values over regularised weights.

    Of ``sums``, to which ``others`` are added unless they are empty. ``regulariser`` is
    added to the weight, linearly between shells: a step would ring in real space.
    Beyond ``limit`` Fourier pixels all is zero.
    """
    last = 2 * (sums.shape[0] // 2)
    margin = (sums.shape[0] - out.shape[0]) // 2
    centre = sums.shape[0] // 2
    for jz in numba.prange(out.shape[0]):
        iz = jz + margin
        for jy in range(out.shape[1]):
            iy = jy + margin
            across = (iz - centre) ** 2 + (iy - centre) ** 2
            for ix in range(out.shape[2]):
                radius = math.sqrt(across + ix * ix) / padding
                if radius > limit:
                    out[jz, jy, ix, 0] = _NONE
                    out[jz, jy, ix, 1] = _NONE
                    continue
                low = int(radius)
                part = radius - low
                added = regulariser[low] * (1.0 - part) + regulariser[low + 1] * part
                real, imag, weight = _joined(sums, iz, iy, ix, last)
                if len(others):
                    more = _joined(others, iz, iy, ix, last)
                    real, imag = real + more[0], imag + more[1]
                    weight += more[2]
                factor = 1.0 / (weight + added)
                out[jz, jy, ix, 0] = real * factor
                out[jz, jy, ix, 1] = imag * factor
