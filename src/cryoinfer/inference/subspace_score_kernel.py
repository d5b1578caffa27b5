"""Compiled loops of a search in a linear subspace of maps (CPU).

Images, CTFs and volumes are those of :mod:`cryoinfer.inference.score_kernel`.
"""

from typing import Any

import numba
import numpy as np

from cryoinfer.fourier.kernels import Array, compiled, no_cells, parallel, read_slice
from cryoinfer.inference.shift_kernel import undo_shifts

_BLOCK = 128
"""Poses that are marginalised together: vector instructions take them side by side."""


@parallel
def products(
    volumes: Array,
    centre: float,
    rows: Array,
    shifts: Array,
    kx: Array,
    ky: Array,
    images: Array,
    ctf: Array,
    box: int,
    seen: Array,
    shown: Array,
) -> None:
    """Fill ``seen`` (s, n, 1 + q, m) and ``shown`` (n, pairs, m).

    ``volumes`` (1 + q, z, y, x, 2) are mean and components, ``rows`` (n, m, 2, 3),
    ``shifts`` (n, s, 2) in pixels, ``images`` (n, p, 2) and ``ctf`` (n, p). What is
    filled in are products of slices through the CTF with images, and with each other.
    The sums are written out: in a function of their own they were not vectorised, and
    took five times as long.
    """
    origin: Any = np.float32(centre)
    maps, count, moves = volumes.shape[0], rows.shape[1], shifts.shape[1]
    size = kx.shape[0]
    for i in numba.prange(rows.shape[0]):
        moved = np.empty((moves, size, 2), np.float32)
        undo_shifts(shifts[i], kx, ky, images[i], box, moved)
        cells = no_cells()
        slices = np.empty((maps, size, 2), np.float32)
        for j in range(count):
            for k in range(maps):
                read_slice(volumes[k], origin, rows[i, j], kx, ky, cells, slices[k])
                for p in range(size):
                    c = ctf[i, p]
                    slices[k, p, 0] *= c
                    slices[k, p, 1] *= c
            pair = 0
            for k in range(maps):
                one = slices[k]
                for s in range(moves):
                    product = np.float32(0.0)
                    image = moved[s]
                    for p in range(size):
                        product += one[p, 0] * image[p, 0] + one[p, 1] * image[p, 1]
                    seen[s, i, k, j] = product
                for other in range(k + 1):
                    product = np.float32(0.0)
                    two = slices[other]
                    for p in range(size):
                        product += one[p, 0] * two[p, 0] + one[p, 1] * two[p, 1]
                    shown[i, pair, j] = product
                    pair += 1


@parallel
def marginal_scores(
    seen: Array, shown: Array, precision: Array, best: Array, where: Array
) -> None:
    """Fill ``best`` (n, m) with log evidence at the best shift, ``where`` with that.

    ``seen`` and ``shown`` are those of :func:`products`; ``precision`` (q) is of the
    components' prior.
    """
    moves, n, _, m = seen.shape
    q = precision.shape[0]
    for i in numba.prange(n):
        root = np.empty((q, q, _BLOCK), np.float32)
        white = np.empty((q, _BLOCK), np.float32)
        volume = np.empty(_BLOCK, np.float32)
        value = np.empty(_BLOCK, np.float32)
        for first in range(0, m, _BLOCK):
            last = min(first + _BLOCK, m)
            power = shown[i, :, first:last]
            _factorise(power, precision, last - first, root, volume)
            for s in range(moves):
                ahead = seen[s, i, :, first:last]
                _evidence(ahead, power, root, volume, last - first, white, value)
                for g in range(last - first):
                    if s == 0 or value[g] > best[i, first + g]:
                        best[i, first + g] = value[g]
                        where[i, first + g] = s


@compiled
def _factorise(
    power: Array, precision: Array, size: int, root: Array, volume: Array
) -> None:
    """Fill ``root`` with Cholesky factors of the information of z, ``size`` of them.

    Their diagonals are inverted. ``volume`` is the logarithm of the factor's
    determinant over that of the prior.
    """
    volume[:size] = 0.0
    for k in range(precision.shape[0]):
        for other in range(k + 1):
            pair = (k + 1) * (k + 2) // 2 + other + 1
            for g in range(size):
                root[k, other, g] = 2 * power[pair, g]
            for earlier in range(other):
                for g in range(size):
                    root[k, other, g] -= root[k, earlier, g] * root[other, earlier, g]
            if other < k:
                for g in range(size):
                    root[k, other, g] *= root[other, other, g]
        for g in range(size):
            square = root[k, k, g] + precision[k]
            volume[g] += np.float32(0.5) * np.log(square / precision[k])
            root[k, k, g] = np.float32(1.0) / np.sqrt(square)


@compiled
def _evidence(
    ahead: Array,
    power: Array,
    root: Array,
    volume: Array,
    size: int,
    white: Array,
    value: Array,
) -> None:
    """Fill ``value`` with the log evidence of ``size`` poses at one shift."""
    for g in range(size):
        value[g] = 2 * ahead[0, g] - power[0, g] - volume[g]
    for k in range(white.shape[0]):
        row = (k + 1) * (k + 2) // 2  # of the pair (component, mean)
        for g in range(size):
            white[k, g] = 2 * (ahead[k + 1, g] - power[row, g])
        for earlier in range(k):
            for g in range(size):
                white[k, g] -= root[k, earlier, g] * white[earlier, g]
        for g in range(size):
            white[k, g] *= root[k, k, g]
            value[g] += np.float32(0.5) * white[k, g] * white[k, g]
