"""Compiled Levenberg-Marquardt on rotation, shift and defocus of every image (CPU).

Images, CTFs and volumes are those of :mod:`cryoinfer.inference.score_kernel`.
"""

import math
from typing import Any

import numba
import numpy as np

from cryoinfer.fourier.kernels import (
    AHEAD,
    PIECE,
    Array,
    Cells,
    compiled,
    compiled_in_order,
    no_cells,
    parallel,
    place,
    strides,
)
from cryoinfer.fourier.vector import fetch_cell, read_cell_and_slope
from cryoinfer.inference.refinement_steps import (
    add_vectors,
    copy_matrix,
    copy_vector,
    damped_step,
    prior_loss,
    scale_matrix,
    shorten,
    turned,
)
from cryoinfer.inference.shift_kernel import shift_tables, unshifted

# Entries of the packed normal equations.
PACKED = 28


@compiled
def slice_and_slopes(
    volume: Array,
    centre: float,
    r: Array,
    kx: Array,
    ky: Array,
    cells: Cells,
    out: Array,
) -> None:
    """Fill ``out`` (8, PIECE) with a slice and its slopes along the volume.

    Value, then derivatives along x, y and z, each with its real part first; of a piece
    at most.
    """
    row, plane = strides(volume)
    place(volume, centre, r, kx, ky, cells)
    corner, inside = cells.corner, cells.inside
    for q in range(kx.shape[0]):
        fetch_cell(volume, corner[q + AHEAD], row, plane)
        x, y, z, sign = inside[0, q], inside[1, q], inside[2, q], inside[3, q]
        sr, si, xr, xi, yr, yi, zr, zi = read_cell_and_slope(
            volume, corner[q], row, plane, x, y, z
        )
        # A mirrored point has the conjugate value, and derivatives along the mirrored
        # axes change sign once more.
        out[0, q], out[1, q] = sr, sign * si
        out[2, q], out[3, q] = sign * xr, xi
        out[4, q], out[5, q] = sign * yr, yi
        out[6, q], out[7, q] = sign * zr, zi


@compiled
def _add_normal_equations(
    slices: Array,
    r: Array,
    kx: Array,
    ky: Array,
    image: Array,
    ctf: Array,
    slope: Array,
    defocus: float,
    box: int,
    table: Array,
    first: int,
    last: int,
    out: Array,
) -> None:
    """Add the coefficients from ``first`` up to ``last`` to ``out`` (28)."""
    with_defocus = slope.shape[0] > 0
    per_pixel = np.float32(2.0 * math.pi / box)
    r00, r01, r02 = r[0, 0], r[0, 1], r[0, 2]
    r10, r11, r12 = r[1, 0], r[1, 1], r[1, 2]
    r20, r21, r22 = r[2, 0], r[2, 1], r[2, 2]
    # Local sums stay in registers; an array would go through memory.
    h_xx = h_xy = h_xz = h_xs = h_xt = np.float32(0.0)
    h_xd = h_yy = h_yz = h_ys = h_yt = np.float32(0.0)
    h_yd = h_zz = h_zs = h_zt = h_zd = np.float32(0.0)
    h_ss = h_st = h_ts = h_dd = h_gx = np.float32(0.0)
    h_gy = h_gz = h_gs = h_gt = h_gd = np.float32(0.0)
    h_rest = np.float32(0.0)
    for q in range(last - first):
        p = first + q
        u, v = kx[p], ky[p]
        sr, si, xr, xi = slices[0, q], slices[1, q], slices[2, q], slices[3, q]
        yr, yi, zr, zi = slices[4, q], slices[5, q], slices[6, q], slices[7, q]
        c = ctf[p]
        if with_defocus:
            c += slope[p] * defocus
        re, im = unshifted(table, u, v, box, image[p, 0], image[p, 1])
        # Derivatives along the image's axes; u is exp(w) R acting on (u, v, 0).
        gx_r, gx_i = r00 * xr + r01 * yr + r02 * zr, r00 * xi + r01 * yi + r02 * zi
        gy_r, gy_i = r10 * xr + r11 * yr + r12 * zr, r10 * xi + r11 * yi + r12 * zi
        # tilt: J_x = -v a, J_y = u a; turn: b; shift: (u, v) t; defocus: d
        a_r = c * (r20 * xr + r21 * yr + r22 * zr)
        a_i = c * (r20 * xi + r21 * yi + r22 * zi)
        b_r, b_i = c * (v * gx_r - u * gy_r), c * (v * gx_i - u * gy_i)
        t_r, t_i = per_pixel * c * si, -per_pixel * c * sr
        e_r, e_i = re - c * sr, im - c * si
        aa = a_r * a_r + a_i * a_i
        ab = a_r * b_r + a_i * b_i
        at = a_r * t_r + a_i * t_i
        bt = b_r * t_r + b_i * t_i
        tt = t_r * t_r + t_i * t_i
        ae = a_r * e_r + a_i * e_i
        te = t_r * e_r + t_i * e_i
        uu, uv, vv = u * u, u * v, v * v
        h_xx += vv * aa
        h_xy -= uv * aa
        h_xz -= v * ab
        h_xs -= uv * at
        h_xt -= vv * at
        h_yy += uu * aa
        h_yz += u * ab
        h_ys += uu * at
        h_yt += uv * at
        h_zz += b_r * b_r + b_i * b_i
        h_zs += u * bt
        h_zt += v * bt
        h_ss += uu * tt
        h_st += uv * tt
        h_ts += vv * tt
        h_gx -= v * ae
        h_gy += u * ae
        h_gz += b_r * e_r + b_i * e_i
        h_gs += u * te
        h_gt += v * te
        h_rest += e_r * e_r + e_i * e_i
        if with_defocus:
            d = slope[p]
            d_r, d_i = d * sr, d * si
            ad = a_r * d_r + a_i * d_i
            h_xd -= v * ad
            h_yd += u * ad
            h_zd += b_r * d_r + b_i * d_i
            h_dd += d_r * d_r + d_i * d_i
            h_gd += d_r * e_r + d_i * e_i
    out[0] += h_xx
    out[1] += h_xy
    out[2] += h_xz
    out[3] += h_xs
    out[4] += h_xt
    out[5] += h_xd
    out[6] += h_yy
    out[7] += h_yz
    out[8] += h_ys
    out[9] += h_yt
    out[10] += h_yd
    out[11] += h_zz
    out[12] += h_zs
    out[13] += h_zt
    out[14] += h_zd
    out[15] += h_ss
    out[16] += h_st
    out[18] += h_ts
    out[20] += h_dd
    out[21] += h_gx
    out[22] += h_gy
    out[23] += h_gz
    out[24] += h_gs
    out[25] += h_gt
    out[26] += h_gd
    out[27] += h_rest


@compiled
def _normal_equations(
    volume: Array,
    centre: float,
    r: Array,
    kx: Array,
    ky: Array,
    image: Array,
    ctf: Array,
    slope: Array,
    defocus: float,
    box: int,
    table: Array,
    cells: Cells,
    slices: Array,
    out: Array,
) -> None:
    """Fill ``out`` (28) with the normal equations of one image at one pose.

    ``r`` is the rotation times the padding factor, ``table`` that of the shift. The
    unknowns are the rotation vector in the image frame, the shift in pixels and the
    defocus, by which the CTF is ``ctf + slope * defocus``; a ``slope`` without
    entries leaves the defocus out. ``out`` packs the upper triangle of sum Re(J* J),
    row by row (21), sum Re(J* residual) (6) and the squared residual (1).

    Reading the volume and adding up take turns over pieces, for one of which ``cells``
    and ``slices`` (8, PIECE) have room: the one is vectorised within a coefficient, the
    other across them.
    """
    for a in range(PACKED):
        out[a] = 0.0
    for first in range(0, kx.shape[0], PIECE):
        last = min(first + PIECE, kx.shape[0])
        slice_and_slopes(
            volume, centre, r, kx[first:last], ky[first:last], cells, slices
        )
        _add_normal_equations(
            slices,
            r,
            kx,
            ky,
            image,
            ctf,
            slope,
            defocus,
            box,
            table,
            first,
            last,
            out,
        )


@compiled_in_order
def _unpack(packed: Array, matrix: Array, gradient: Array) -> None:
    """Fill a whole matrix (6, 6) and a gradient (6) from the packed sums."""
    entry = 0
    for a in range(6):
        for b in range(a, 6):
            matrix[a, b] = matrix[b, a] = packed[entry]
            entry += 1
        gradient[a] = packed[21 + a]


@parallel
def refine(
    volume: Array,
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

    ``factor`` is voxels per Fourier pixel of the image. ``rotation`` (n, 3, 3),
    ``moved`` (n, 6), whose entries 3 to 5 are shift (pixels) and defocus beyond
    ``start`` (n, 6), and ``damping`` (n) are changed in place. ``limits`` are the
    longest rotation and defocus of one step, and the promise that is taken without
    another look.
    ``out`` (n, 28) receives the normal equations at the end.
    """
    origin: Any = np.float32(centre)
    for i in numba.prange(rotation.shape[0]):
        table = np.empty((4, box), np.float32)
        cells = no_cells()
        slices = np.empty((8, PIECE), np.float32)
        scaled = np.empty((3, 3), np.float32)
        here, there = np.empty(PACKED), np.empty(PACKED)
        matrix, gradient = np.empty((6, 6)), np.empty(6)
        best, trial = np.empty((3, 3)), np.empty((3, 3))
        at, tried, step = np.empty(6), np.empty(6), np.zeros(6)
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
                    here[27] -= promised
                    break
            else:
                copy_matrix(best, trial)
            scale_matrix(trial, factor, scaled)
            add_vectors(at, step, tried)
            shifted: Any = np.float32(tried[5])
            shift_tables(start[i, 3] + tried[3], start[i, 4] + tried[4], box, table)
            _normal_equations(
                volume,
                origin,
                scaled,
                kx,
                ky,
                images[i],
                ctf[i],
                slope[i],
                shifted,
                box,
                table,
                cells,
                slices,
                there,
            )
            cost = there[27] + prior_loss(precision, start[i], tried)
            if attempt == 0 or cost < loss:
                loss = cost
                copy_matrix(trial, best)
                copy_vector(tried, at)
                copy_vector(there, here)
                damping[i] *= 0.1 ** min(attempt, 1)  # the first is no step
            else:
                damping[i] = min(damping[i] * 300.0, 1e4)
        copy_matrix(best, rotation[i])
        copy_vector(at, moved[i])
        copy_vector(here, out[i])
