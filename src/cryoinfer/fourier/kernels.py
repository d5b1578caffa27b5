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
def interpolate(volume: Array, centre: float, x: float, y: float, z: float) -> Any:
    """Return the trilinear value (real, imaginary) at a point in voxels."""
    sign = _ONE
    if x < 0:
        x, y, z, sign = -x, -y, -z, -_ONE
    y += centre
    z += centre
    ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
    dx, dy, dz = x - ix, y - iy, z - iz
    ex, ey, ez = _ONE - dx, _ONE - dy, _ONE - dz
    a, b = volume[iz, iy], volume[iz, iy + 1]
    c, d = volume[iz + 1, iy], volume[iz + 1, iy + 1]
    wa, wb, wc, wd = ez * ey, ez * dy, dz * ey, dz * dy
    jx = ix + 1
    low = wa * a[ix, 0] + wb * b[ix, 0] + wc * c[ix, 0] + wd * d[ix, 0]
    high = wa * a[jx, 0] + wb * b[jx, 0] + wc * c[jx, 0] + wd * d[jx, 0]
    low_i = wa * a[ix, 1] + wb * b[ix, 1] + wc * c[ix, 1] + wd * d[ix, 1]
    high_i = wa * a[jx, 1] + wb * b[jx, 1] + wc * c[jx, 1] + wd * d[jx, 1]
    return ex * low + dx * high, sign * (ex * low_i + dx * high_i)


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
    threads: int,
) -> None:
    """Add slices to ``accumulator`` (z, y, x, 3): the adjoint of :func:`extract`.

    ``values`` is (n, p, 2) and adds to the first two channels, ``weights`` (n, p)
    to the third. Thread t writes the planes z = t modulo ``threads`` alone, so
    that no copies of the volume are needed and the order of every sum is that of
    the images.
    """
    origin = np.float32(centre)
    for thread in numba.prange(threads):
        for i in range(rows.shape[0]):
            r = rows[i]
            for p in range(kx.shape[0]):
                u, v = kx[p], ky[p]
                x = u * r[0, 0] + v * r[1, 0]
                y = u * r[0, 1] + v * r[1, 1]
                z = u * r[0, 2] + v * r[1, 2]
                sign = _ONE
                if x < 0:
                    x, y, z, sign = -x, -y, -z, -_ONE
                y += origin
                z += origin
                iz = np.int32(z)
                here, above = iz % threads == thread, (iz + 1) % threads == thread
                if not (here or above):
                    continue
                real, imag = values[i, p, 0], sign * values[i, p, 1]
                weight = weights[i, p]
                ix, iy = np.int32(x), np.int32(y)
                dx, dy, dz = x - ix, y - iy, z - iz
                if here:
                    _deposit(
                        accumulator[iz], ix, iy, dx, dy, _ONE - dz, real, imag, weight
                    )
                if above:
                    _deposit(
                        accumulator[iz + 1], ix, iy, dx, dy, dz, real, imag, weight
                    )


@compiled
def _deposit(
    plane: Array,
    ix: int,
    iy: int,
    dx: float,
    dy: float,
    share: float,
    real: float,
    imag: float,
    weight: float,
) -> None:
    for step_y in range(2):
        along_y = share * (dy if step_y == 1 else _ONE - dy)
        row = plane[iy + step_y]
        for step_x in range(2):
            w = along_y * (dx if step_x == 1 else _ONE - dx)
            row[ix + step_x, 0] += w * real
            row[ix + step_x, 1] += w * imag
            row[ix + step_x, 2] += w * weight
