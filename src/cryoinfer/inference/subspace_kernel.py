"""Compiled Levenberg-Marquardt on pose, defocus and z in a linear subspace (CPU).

Images, CTFs and volumes are those of :mod:`cryoinfer.inference.score_kernel`, steps
those of :mod:`cryoinfer.inference.refinement_steps`.
"""

import math
from typing import Any

import numba
import numpy as np

from cryoinfer.fourier.kernels import (
    PIECE,
    Array,
    Cells,
    compiled,
    compiled_in_order,
    no_cells,
    parallel,
)
from cryoinfer.inference.refinement_kernel import slice_and_slopes
from cryoinfer.inference.refinement_steps import (
    add_vectors,
    copy_matrix,
    copy_vector,
    damped_step,
    fill_matrix,
    prior_loss,
    scale_matrix,
    shorten,
    turned,
)
from cryoinfer.inference.shift_kernel import shift_tables, unshifted

_RIGID = 6
"""Columns of rotation, shift and defocus; one for each component follows, and one for
what is left of the image."""


@compiled
def _read_maps(
    volumes: Array,
    centre: float,
    r: Array,
    kx: Array,
    ky: Array,
    share: Array,
    cells: Cells,
    piece: Array,
    total: Array,
    own: Array,
) -> None:
    """Read a piece of the slices of all maps at one pose.

    ``total`` (8, PIECE) is filled with slice and slopes of the particle's own map, the
    mean and ``share`` (q) of each component; ``own`` (q, 2, PIECE) with the slices of
    the components.
    """
    slice_and_slopes(volumes[0], centre, r, kx, ky, cells, total)
    for k in range(own.shape[0]):
        slice_and_slopes(volumes[k + 1], centre, r, kx, ky, cells, piece)
        part: Any = np.float32(share[k])
        for channel in range(8):
            for q in range(kx.shape[0]):
                total[channel, q] += part * piece[channel, q]
        for channel in range(2):
            for q in range(kx.shape[0]):
                own[k, channel, q] = piece[channel, q]


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
    defocus: float,
    box: int,
    table: Array,
    columns: Array,
) -> None:
    """Fill ``columns`` (d + 1, 2, PIECE) with derivatives and the residual."""
    per_pixel = np.float32(2.0 * math.pi / box)
    with_defocus = slope.shape[0] > 0
    last = _RIGID + own.shape[0]
    for q in range(kx.shape[0]):
        u, v, c = kx[q], ky[q], ctf[q]
        if with_defocus:
            c += slope[q] * defocus
        re, im = total[0, q], total[1, q]
        # The slope along the axes of the image; the volume turns by exp(w) R.
        for part in range(2):
            x, y, z = total[2 + part, q], total[4 + part, q], total[6 + part, q]
            along_x = c * (r[0, 0] * x + r[0, 1] * y + r[0, 2] * z)
            along_y = c * (r[1, 0] * x + r[1, 1] * y + r[1, 2] * z)
            along_z = c * (r[2, 0] * x + r[2, 1] * y + r[2, 2] * z)
            columns[0, part, q] = -v * along_z
            columns[1, part, q] = u * along_z
            columns[2, part, q] = v * along_x - u * along_y
            columns[5, part, q] = slope[q] * total[part, q] if with_defocus else 0.0
            for k in range(own.shape[0]):
                columns[_RIGID + k, part, q] = c * own[k, part, q]
        moved_re, moved_im = per_pixel * c * im, -per_pixel * c * re
        columns[3, 0, q], columns[3, 1, q] = u * moved_re, u * moved_im
        columns[4, 0, q], columns[4, 1, q] = v * moved_re, v * moved_im
        seen_re, seen_im = unshifted(table, u, v, box, image[q, 0], image[q, 1])
        columns[last, 0, q] = seen_re - c * re
        columns[last, 1, q] = seen_im - c * im


@compiled
def _add_products(columns: Array, size: int, out: Array) -> None:
    """Add the products of all columns to the upper triangle of ``out``."""
    for a in range(columns.shape[0]):
        for b in range(a, columns.shape[0]):
            product = np.float32(0.0)
            for q in range(size):
                product += columns[a, 0, q] * columns[b, 0, q]
                product += columns[a, 1, q] * columns[b, 1, q]
            out[a, b] += product


@compiled_in_order
def _unpack(products: Array, matrix: Array, gradient: Array) -> None:
    """Fill a whole matrix (d, d) and a gradient (d) from the upper triangle."""
    count = gradient.shape[0]
    for a in range(count):
        for b in range(a, count):
            matrix[a, b] = matrix[b, a] = products[a, b]
        gradient[a] = products[a, count]


@parallel
def refine(
    volumes: Array,
    centre: float,
    factor: float,
    kx: Array,
    ky: Array,
    images: Array,
    ctf: Array,
    slope: Array,
    box: int,
    precision: Array,
    start: Array,
    steps: int,
    limits: Array,
    damping: Array,
    rotation: Array,
    moved: Array,
    out: Array,
) -> None:
    """Take Levenberg-Marquardt steps on the posterior of every image.

    As :func:`cryoinfer.inference.refinement_kernel.refine`, with ``volumes``
    (1 + q, z, y, x, 2), mean and components, and d = 6 + q unknowns: ``precision`` (d),
    ``start`` and ``moved`` (n, d). The fourth of the ``limits`` is the longest step of
    z. ``out`` (n, d + 1, d + 1) receives the products of derivatives and residual at
    the end, the upper triangle.
    """
    origin: Any = np.float32(centre)
    d = precision.shape[0]
    for i in numba.prange(rotation.shape[0]):
        table = np.empty((4, box), np.float32)
        cells = no_cells()
        piece, total = (
            np.empty((8, PIECE), np.float32),
            np.empty((8, PIECE), np.float32),
        )
        own = np.empty((d - _RIGID, 2, PIECE), np.float32)
        columns = np.empty((d + 1, 2, PIECE), np.float32)
        scaled = np.empty((3, 3), np.float32)
        here, there = np.empty((d + 1, d + 1)), np.empty((d + 1, d + 1))
        matrix, gradient = np.empty((d, d)), np.empty(d)
        best, trial = np.empty((3, 3)), np.empty((3, 3))
        at, tried, step = np.empty(d), np.empty(d), np.zeros(d)
        share = np.empty(d - _RIGID)
        copy_matrix(rotation[i], best)
        copy_vector(moved[i], at)
        loss, promised = 0.0, 0.0
        for attempt in range(steps + 1):
            if attempt > 0:
                _unpack(here, matrix, gradient)
                promised = damped_step(
                    matrix, gradient, precision, start[i], at, damping[i], step
                )
                cut = shorten(step, limits)
                turned(best, step, trial)
                if cut == 1.0 and promised < limits[2]:
                    # Too little for the rounding of two losses to judge.
                    copy_matrix(trial, best)
                    add_vectors(at, step, at)
                    here[d, d] -= promised
                    break
            else:
                copy_matrix(best, trial)
            scale_matrix(trial, factor, scaled)
            add_vectors(at, step, tried)
            add_vectors(start[i, _RIGID:], tried[_RIGID:], share)
            shifted: Any = np.float32(tried[5])
            shift_tables(start[i, 3] + tried[3], start[i, 4] + tried[4], box, table)
            fill_matrix(there, 0.0)
            for first in range(0, kx.shape[0], PIECE):
                last = min(first + PIECE, kx.shape[0])
                u, v = kx[first:last], ky[first:last]
                _read_maps(
                    volumes, origin, scaled, u, v, share, cells, piece, total, own
                )
                _fill_columns(
                    total,
                    own,
                    scaled,
                    u,
                    v,
                    images[i, first:last],
                    ctf[i, first:last],
                    slope[i, first:last],
                    shifted,
                    box,
                    table,
                    columns,
                )
                _add_products(columns, last - first, there)
            cost = there[d, d] + prior_loss(precision, start[i], tried)
            if attempt == 0 or cost < loss:
                loss = cost
                copy_matrix(trial, best)
                copy_vector(tried, at)
                copy_matrix(there, here)
                damping[i] *= 0.1 ** min(attempt, 1)  # the first is no step
            else:
                damping[i] = min(damping[i] * 300.0, 1e4)
        copy_matrix(best, rotation[i])
        copy_vector(at, moved[i])
        copy_matrix(here, out[i])
