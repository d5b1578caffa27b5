"""Compiled loops of the search: many poses of an image against a volume (CPU).

Images and CTFs come whitened: divided by the standard deviation of the noise in
their ring, so that the log-likelihood is minus the summed squared residual.
Volumes and rows are laid out as in :mod:`cryoinfer.fourier.kernels`.
"""

import math
from typing import Any

import numba
import numpy as np

from cryoinfer.fourier.kernels import Array, compiled, no_cells, parallel, read_slice

_ONE = np.float32(1.0)
_TWO = np.float32(2.0)


@compiled
def shift_tables(shift_x: float, shift_y: float, box: int, table: Array) -> None:
    """Fill ``table`` (4, box) with cos and sin of 2 pi k shift / box.

    Rows 0 and 1 are for kx = 0.., rows 2 and 3 for ky + box // 2 = 0.. .
    """
    for k in range(box):
        angle = 2.0 * math.pi * k * shift_x / box
        table[0, k] = math.cos(angle)
        table[1, k] = math.sin(angle)
        angle = 2.0 * math.pi * (k - box // 2) * shift_y / box
        table[2, k] = math.cos(angle)
        table[3, k] = math.sin(angle)


@compiled
def unshifted(
    table: Array, kx: float, ky: float, box: int, re: float, im: float
) -> Any:
    """Return the coefficient of the image moved back by the shift."""
    # Unsigned: a signed index is tested for being negative, and nothing vectorised.
    jx, jy = np.uint64(np.int32(kx)), np.uint64(np.int32(ky) + np.int32(box // 2))
    cos_x, sin_x, cos_y, sin_y = table[0, jx], table[1, jx], table[2, jy], table[3, jy]
    cos = cos_x * cos_y - sin_x * sin_y
    sin = cos_x * sin_y + sin_x * cos_y
    return re * cos - im * sin, re * sin + im * cos


@parallel
def score(
    volume: Array,
    centre: float,
    rows: Array,
    shifts: Array,
    kx: Array,
    ky: Array,
    images: Array,
    ctf: Array,
    box: int,
    out: Array,
) -> None:
    """Fill ``out`` (n, m, s) with the log-likelihood of m rotations by s shifts.

    ``rows`` is (n, m, 2, 3), ``shifts`` (n, s, 2) in pixels, ``images`` (n, p, 2)
    and ``ctf`` (n, p). The constant of the image itself is left out.
    """
    origin: Any = np.float32(centre)
    count, moves = rows.shape[1], shifts.shape[1]
    size = kx.shape[0]
    for i in numba.prange(rows.shape[0]):
        table = np.empty((4, box), np.float32)
        moved = np.empty((moves, size, 2), np.float32)
        for s in range(moves):
            shift_tables(shifts[i, s, 0], shifts[i, s, 1], box, table)
            for p in range(size):
                c = _TWO * ctf[i, p]
                re, im = unshifted(
                    table, kx[p], ky[p], box, images[i, p, 0], images[i, p, 1]
                )
                moved[s, p, 0] = c * re
                moved[s, p, 1] = c * im
        cells = no_cells()
        shown = np.empty((size, 2), np.float32)
        for j in range(count):
            read_slice(volume, origin, rows[i, j], kx, ky, cells, shown)
            power = np.float32(0.0)
            for p in range(size):
                c = ctf[i, p]
                power += c * c * (shown[p, 0] ** 2 + shown[p, 1] ** 2)
            for s in range(moves):
                product = np.float32(0.0)
                one = moved[s]
                for p in range(size):
                    product += one[p, 0] * shown[p, 0] + one[p, 1] * shown[p, 1]
                out[i, j, s] = product - power
