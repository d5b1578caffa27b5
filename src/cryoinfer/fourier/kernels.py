"""Compiled loops over the coefficients of central slices (CPU).

A volume is a float32 array (z, y, x, 2) of real and imaginary parts with x >= 0;
``centre`` is the index of frequency zero along z and y. ``rows`` are the first two
rows of a rotation matrix times the padding factor, so that the coefficient
(kx, ky) of the image lies at ``kx * rows[0] + ky * rows[1]`` in voxels.
The order of the sums never depends on the number of threads.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numba
import numpy as np
from numpy.typing import NDArray

from cryoinfer.fourier.vector import add_to_cell, fetch_cell, read_cell

Array = NDArray[Any]

PIECE = 512
"""Coefficients whose places are found before the first is read: vector instructions
find them, and they stay in the innermost cache."""

AHEAD = 16
"""Cells that are asked for before they are read. A slice touches voxels that no cache
holds; waiting for one after the other took most of the time of reading."""

_ONE = np.float32(1.0)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that becomes part of every kernel that calls it.

    Never called: a kernel that calls another runs the copy that the process has
    compiled itself or, once kernels are loaded from the cache, its own; their last
    bits differ, so that a first run was not bitwise the second one.
    """
    return cast(
        Callable[..., Any],
        numba.njit(forceinline=True, fastmath=True, error_model="numpy")(function),
    )


def compiled_in_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as :func:`compiled` does, with the operations in the order written."""
    return cast(
        Callable[..., Any], numba.njit(forceinline=True, error_model="numpy")(function)
    )


def parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel whose outermost loop runs on every thread."""
    return cast(
        Callable[..., Any],
        numba.njit(parallel=True, fastmath=True, error_model="numpy", cache=True)(
            function
        ),
    )


class Cells(NamedTuple):
    """Where the coefficients of a piece lie in a volume.

    Attributes
    ----------
    corner : array of uint64, shape (PIECE + AHEAD,)
        Lowest corner of the cell, in floats. The last is repeated, so that every loop
        can ask for the cell that is ``AHEAD`` of the one it needs.
    inside : array of float32, shape (4, PIECE)
        Place in the cell along x, y and z, and the sign of the imaginary part there:
        F(-k) = conj F(k) folds a point to x >= 0.
    """

    corner: Array
    inside: Array


@compiled
def no_cells() -> Cells:
    """Return room for the cells of a piece."""
    return Cells(np.empty(PIECE + AHEAD, np.uint64), np.empty((4, PIECE), np.float32))


@compiled
def strides(volume: Array) -> Any:
    """Return how many floats lie between two rows and between two planes."""
    row = np.uint64(volume.shape[2] * volume.shape[3])
    return row, np.uint64(volume.shape[1]) * row


@compiled
def place(
    volume: Array, centre: float, r: Array, kx: Array, ky: Array, cells: Cells
) -> None:
    """Find the cells of some coefficients of the slice of ``r``, a piece at most.

    The first of them are asked for.
    """
    row, plane = strides(volume)
    step = np.uint64(volume.shape[3])
    corner, inside = cells.corner, cells.inside
    count = kx.shape[0]
    for p in range(count):
        u, v = kx[p], ky[p]
        x = u * r[0, 0] + v * r[1, 0]
        y = u * r[0, 1] + v * r[1, 1]
        z = u * r[0, 2] + v * r[1, 2]
        sign = _ONE if x >= 0 else -_ONE
        x, y, z = sign * x, sign * y + centre, sign * z + centre
        ix, iy, iz = np.int32(x), np.int32(y), np.int32(z)
        # Unsigned: a signed index is tested for being negative at every use.
        corner[p] = np.uint64(iz) * plane + np.uint64(iy) * row + np.uint64(ix) * step
        inside[0, p], inside[1, p], inside[2, p] = x - ix, y - iy, z - iz
        inside[3, p] = sign
    corner[count : count + AHEAD] = corner[count - 1]
    for p in range(AHEAD):
        fetch_cell(volume, corner[p], row, plane)


@compiled
def read_slice(
    volume: Array,
    centre: float,
    r: Array,
    kx: Array,
    ky: Array,
    cells: Cells,
    out: Array,
) -> None:
    """Fill ``out`` (p, 2) with the slice of ``r`` (2, 3)."""
    row, plane = strides(volume)
    corner, inside = cells.corner, cells.inside
    for first in range(0, kx.shape[0], PIECE):
        last = min(first + PIECE, kx.shape[0])
        place(volume, centre, r, kx[first:last], ky[first:last], cells)
        for q in range(last - first):
            fetch_cell(volume, corner[q + AHEAD], row, plane)
            x, y, z, sign = inside[0, q], inside[1, q], inside[2, q], inside[3, q]
            real, imag = read_cell(volume, corner[q], row, plane, x, y, z)
            out[first + q, 0] = real
            out[first + q, 1] = sign * imag


@parallel
def extract(
    volume: Array, centre: float, rows: Array, kx: Array, ky: Array, out: Array
) -> None:
    """Fill ``out`` (n, p, 2) with the slices of ``rows`` (n, 2, 3)."""
    origin: Any = np.float32(centre)
    for i in numba.prange(rows.shape[0]):
        read_slice(volume, origin, rows[i], kx, ky, no_cells(), out[i])


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


@compiled
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
    cells = no_cells()
    corner, inside = cells.corner, cells.inside
    for i in range(rows.shape[0]):
        for start in range(first, last, PIECE):
            end = min(start + PIECE, last)
            place(accumulator, origin, rows[i], kx[start:end], ky[start:end], cells)
            for q in range(end - start):
                fetch_cell(accumulator, corner[q + AHEAD], row, plane)
                x, y, z = inside[0, q], inside[1, q], inside[2, q]
                real, imag = values[i, start + q, 0], values[i, start + q, 1]
                imag *= inside[3, q]
                weight = weights[i, start + q]
                add_to_cell(
                    accumulator, corner[q], row, plane, x, y, z, real, imag, weight
                )
