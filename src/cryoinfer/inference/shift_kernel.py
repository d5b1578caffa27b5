"""Compiled loops that move images back by a shift (CPU)."""

import math
from typing import Any

import numba
import numpy as np

from cryoinfer.fourier.kernels import Array, compiled, parallel


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


@compiled
def undo_shift(
    shift: Array, kx: Array, ky: Array, image: Array, table: Array, out: Array
) -> None:
    """Fill ``out`` (p, 2) with an image moved back, and ``table`` (4, box)."""
    box = table.shape[1]
    shift_tables(shift[0], shift[1], box, table)
    for p in range(kx.shape[0]):
        re, im = unshifted(table, kx[p], ky[p], box, image[p, 0], image[p, 1])
        out[p, 0], out[p, 1] = re, im


@compiled
def undo_shifts(
    shifts: Array, kx: Array, ky: Array, image: Array, box: int, moved: Array
) -> None:
    """Fill ``moved`` (s, p, 2) with an image whose shifts (s, 2) are undone."""
    table = np.empty((4, box), np.float32)
    for s in range(moved.shape[0]):
        undo_shift(shifts[s], kx, ky, image, table, moved[s])


@parallel
def move_back(
    shifts: Array, kx: Array, ky: Array, images: Array, box: int, out: Array
) -> None:
    """Fill ``out`` (t, n, p, 2) with the images moved back by t shifts each.

    ``shifts`` is (t, n, 2) in pixels, ``images`` (n, p, 2).
    """
    count = images.shape[0]
    for job in numba.prange(out.shape[0] * count):
        t, i = job // count, job % count
        table = np.empty((4, box), np.float32)
        undo_shift(shifts[t, i], kx, ky, images[i], table, out[t, i])
