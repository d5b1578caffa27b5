"""Compiled loops of the search: many poses of an image against a volume (CPU).

Images and CTFs come whitened: divided by the standard deviation of the noise in
their ring, so that the log-likelihood is minus the summed squared residual.
Volumes and rows are laid out as in :mod:`cryoinfer.fourier.kernels`.
"""

from typing import Any

import numba
import numpy as np

from cryoinfer.fourier.kernels import Array, no_cells, parallel, read_slice
from cryoinfer.inference.shift_kernel import shift_tables, unshifted

_TWO = np.float32(2.0)


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
