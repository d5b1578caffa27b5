"""Compiled normal equations of pose and z in a linear subspace of maps (CPU).

Images, CTFs and volumes are those of :mod:`cryoinfer.inference.score_kernel`.
"""

import math
from typing import Any

import numba
import numpy as np

from cryoinfer.fourier.kernels import PIECE, Array, compiled, no_cells, parallel
from cryoinfer.inference.refinement_kernel import slice_and_slopes

_RIGID = 6
"""Columns of rotation, shift and defocus; one for each component follows, and one for
what is left of the image."""


@parallel
def add_slices_and_slopes(
    volume: Array,
    centre: float,
    rotation: Array,
    kx: Array,
    ky: Array,
    share: Array,
    total: Array,
    own: Array,
) -> None:
    """Read one volume of the subspace at n poses.

    ``rotation`` (n, 3, 3) is times the padding factor, ``total`` (n, 8, p) grows by
    ``share`` (n) times slice and slopes along the volume, and ``own`` (n, 2, p) is
    filled with the slice.
    """
    origin: Any = np.float32(centre)
    for i in numba.prange(rotation.shape[0]):
        cells = no_cells()
        piece = np.empty((8, PIECE), np.float32)
        for first in range(0, kx.shape[0], PIECE):
            last = min(first + PIECE, kx.shape[0])
            u, v = kx[first:last], ky[first:last]
            slice_and_slopes(volume, origin, rotation[i], u, v, cells, piece)
            for channel in range(8):
                for q in range(last - first):
                    total[i, channel, first + q] += share[i] * piece[channel, q]
            for channel in range(2):
                for q in range(last - first):
                    own[i, channel, first + q] = piece[channel, q]


@parallel
def add_up(
    total: Array,
    own: Array,
    rotation: Array,
    kx: Array,
    ky: Array,
    image: Array,
    ctf: Array,
    slope: Array,
    length: float,
    out: Array,
) -> None:
    """Fill ``out`` (n, d + 1, d + 1) with products of the derivatives, d = 6 + q.

    ``total`` and ``own`` (q, n, 2, p) are those of :func:`add_slices_and_slopes`,
    without the mean's; ``image`` (n, p, 2) has its shift undone; ``slope`` of the CTF
    by the defocus has no entries where that is held. The last row is of what the slice
    leaves of the image. Upper triangles are filled.
    """
    per_angstrom: Any = np.float32(2.0 * math.pi / length)
    count = _RIGID + own.shape[0] + 1
    for i in numba.prange(total.shape[0]):
        columns = np.empty((count, 2, PIECE), np.float32)
        out[i] = 0.0
        for first in range(0, kx.shape[0], PIECE):
            last = min(first + PIECE, kx.shape[0])
            _fill_columns(
                total[i],
                own[:, i],
                rotation[i],
                kx,
                ky,
                image[i],
                ctf[i],
                slope[i],
                per_angstrom,
                first,
                last,
                columns,
            )
            for a in range(count):
                for b in range(a, count):
                    product = np.float32(0.0)
                    for q in range(last - first):
                        product += columns[a, 0, q] * columns[b, 0, q]
                        product += columns[a, 1, q] * columns[b, 1, q]
                    out[i, a, b] += product


@compiled
def _fill_columns(
    total: Array,
    own: Array,
    r: Array,
    kx: Array,
    ky: Array,
    image: Array,
    ctf: Array,
    slope: Array,
    per_angstrom: float,
    first: int,
    last: int,
    columns: Array,
) -> None:
    """Fill ``columns`` (d + 1, 2, PIECE) with derivatives and the residual."""
    with_defocus = slope.shape[0] > 0
    components = own.shape[0]
    for q in range(last - first):
        p = first + q
        u, v, c = kx[p], ky[p], ctf[p]
        re, im = total[0, p], total[1, p]
        # The slope along the axes of the image; the volume turns by exp(w) R.
        for part in range(2):
            x, y, z = total[2 + part, p], total[4 + part, p], total[6 + part, p]
            along_x = c * (r[0, 0] * x + r[0, 1] * y + r[0, 2] * z)
            along_y = c * (r[1, 0] * x + r[1, 1] * y + r[1, 2] * z)
            along_z = c * (r[2, 0] * x + r[2, 1] * y + r[2, 2] * z)
            columns[0, part, q] = -v * along_z
            columns[1, part, q] = u * along_z
            columns[2, part, q] = v * along_x - u * along_y
            columns[_RIGID + components, part, q] = image[p, part]
            columns[5, part, q] = slope[p] * total[part, p] if with_defocus else 0.0
        moved_re, moved_im = per_angstrom * c * im, -per_angstrom * c * re
        columns[3, 0, q], columns[3, 1, q] = u * moved_re, u * moved_im
        columns[4, 0, q], columns[4, 1, q] = v * moved_re, v * moved_im
        columns[_RIGID + components, 0, q] -= c * re
        columns[_RIGID + components, 1, q] -= c * im
    for k in range(components):
        for part in range(2):
            for q in range(last - first):
                columns[_RIGID + k, part, q] = ctf[first + q] * own[k, part, first + q]
