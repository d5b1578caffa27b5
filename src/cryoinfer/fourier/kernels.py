"""Compiled loops over the coefficients of central slices (CPU).

A volume is a float32 array (z, y, x, 2) of real and imaginary parts with x >= 0;
``centre`` is the index of frequency zero along z and y. ``rows`` are the first two
rows of a rotation matrix times the padding factor, so that the coefficient
(kx, ky) of the image lies at ``kx * rows[0] + ky * rows[1]`` in voxels.
The order of the sums never depends on the number of threads.
"""

from collections.abc import Callable
from typing import Any, cast

import numba
import numpy as np
from numpy.typing import NDArray

from cryoinfer.fourier.vector import read_cell, write_edge

Array = NDArray[Any]

_ONE = np.float32(1.0)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that the kernels inline, keeping its types visible."""
    return cast(
        Callable[..., Any], numba.njit(inline="always", fastmath=True)(function)
    )


def parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel whose outermost loop runs on every thread."""
    return cast(
        Callable[..., Any],
        numba.njit(parallel=True, fastmath=True, error_model="numpy", cache=True)(
            function
        ),
    )


@compiled
def locate(volume: Array, centre: float, x: float, y: float, z: float) -> Any:
    """Find the cell of a point in voxels.

    Returns the sign of the imaginary part there (F(-k) = conj F(k) folds the point
    to x >= 0), the cell's lowest corner in floats, and the place in the cell.
    """
    sign = _ONE
    if x < 0:
        x, y, z, sign = -x, -y, -z, -_ONE
    y += centre
    z += centre
    ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
    row, plane = strides(volume)
    # Unsigned: a signed index is tested for being negative at every use.
    corner = np.uint64(iz) * plane + np.uint64(iy) * row
    corner += np.uint64(ix) * np.uint64(volume.shape[3])
    return sign, corner, x - ix, y - iy, z - iz


@compiled
def strides(volume: Array) -> Any:
    """Return how many floats lie between two rows and between two planes."""
    row = np.uint64(volume.shape[2] * volume.shape[3])
    return row, np.uint64(volume.shape[1]) * row


@compiled
def interpolate(volume: Array, centre: float, x: float, y: float, z: float) -> Any:
    """Return the trilinear value (real, imaginary) at a point in voxels."""
    row, plane = strides(volume)
    sign, corner, dx, dy, dz = locate(volume, centre, x, y, z)
    real, imag = read_cell(volume, corner, row, plane, dx, dy, dz)
    return real, sign * imag


@parallel
def extract(
    volume: Array, centre: float, rows: Array, kx: Array, ky: Array, out: Array
) -> None:
    """Fill ``out`` (n, p, 2) with the slices of ``rows`` (n, 2, 3)."""
    origin = np.float32(centre)
    for i in numba.prange(rows.shape[0]):
        r = rows[i]
        for p in range(kx.shape[0]):
            u, v = kx[p], ky[p]
            real, imag = interpolate(
                volume,
                origin,
                u * r[0, 0] + v * r[1, 0],
                u * r[0, 1] + v * r[1, 1],
                u * r[0, 2] + v * r[1, 2],
            )
            out[i, p, 0] = real
            out[i, p, 1] = imag


@parallel
def insert(
    accumulator: Array,
    centre: float,
    rows: Array,
    kx: Array,
    ky: Array,
    values: Array,
    weights: Array,
    bands: Array,
    threads: int,
) -> None:
    """Add slices to ``accumulator`` (z, y, x, 4): the adjoint of :func:`extract`.

    ``values`` is (n, p, 2) and adds to the first two channels, ``weights`` (n, p)
    to the third; the fourth is the sum of weights times the share squared.

    ``bands`` (m + 1) divides the coefficients, which lie in the order of their
    distance from the origin. A band of all images falls on one thin shell of the
    volume, which stays in the cache; bands of one parity fall on shells that do not
    touch, so that threads share the volume without waiting for each other. All
    images of a band are added in their order: no sum depends on the threads.
    """
    origin: Any = np.float32(centre)
    count = bands.shape[0] - 1
    for parity in range(2):
        for thread in numba.prange(threads):
            # Dealt in turn: outer bands are longer.
            for band in range(2 * thread + parity, count, 2 * threads):
                _insert_band(
                    accumulator,
                    origin,
                    rows,
                    kx,
                    ky,
                    values,
                    weights,
                    bands[band],
                    bands[band + 1],
                )


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _insert_band(
    accumulator: Array,
    origin: float,
    rows: Array,
    kx: Array,
    ky: Array,
    values: Array,
    weights: Array,
    first: int,
    last: int,
) -> None:
    """Add the coefficients from ``first`` up to ``last`` of all images."""
    row, plane = strides(accumulator)
    for i in range(rows.shape[0]):
        r = rows[i]
        for p in range(first, last):
            u, v = kx[p], ky[p]
            sign, corner, dx, dy, dz = locate(
                accumulator,
                origin,
                u * r[0, 0] + v * r[1, 0],
                u * r[0, 1] + v * r[1, 1],
                u * r[0, 2] + v * r[1, 2],
            )
            real, imag = values[i, p, 0], sign * values[i, p, 1]
            weight = weights[i, p]
            ex, ey, ez = _ONE - dx, _ONE - dy, _ONE - dz
            for edge in range(4):
                share = (dy if edge & 1 else ey) * (dz if edge & 2 else ez)
                place = corner
                if edge & 1:
                    place += row
                if edge & 2:
                    place += plane
                write_edge(
                    accumulator,
                    place,
                    ex * share,
                    dx * share,
                    real,
                    imag,
                    weight,
                )
