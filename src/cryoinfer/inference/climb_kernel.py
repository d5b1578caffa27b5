"""Compiled Levenberg-Marquardt on rotation, shift and defocus of every image (CPU).

Images, CTFs and volumes are those of :mod:`cryoinfer.inference.score_kernel`.
"""

import math
from typing import Any

import numba
import numpy as np

from cryoinfer.fourier.kernels import Array, compiled, parallel
from cryoinfer.inference.score_kernel import shift_tables, unshifted

_ONE = np.float32(1.0)

# Entries of the packed normal equations.
PACKED = 28


@compiled
def _value_and_gradient(
    volume: Array, centre: float, x: float, y: float, z: float
) -> Any:
    """Return the trilinear value and its three derivatives, real and imaginary."""
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
    jx = ix + 1
    # Along x first: the four edges' values (v) and slopes (g).
    ar, ai = ex * a[ix, 0] + dx * a[jx, 0], ex * a[ix, 1] + dx * a[jx, 1]
    br, bi = ex * b[ix, 0] + dx * b[jx, 0], ex * b[ix, 1] + dx * b[jx, 1]
    cr, ci = ex * c[ix, 0] + dx * c[jx, 0], ex * c[ix, 1] + dx * c[jx, 1]
    dr, di = ex * d[ix, 0] + dx * d[jx, 0], ex * d[ix, 1] + dx * d[jx, 1]
    wa, wb, wc, wd = ez * ey, ez * dy, dz * ey, dz * dy
    sr, si = (
        wa * ar + wb * br + wc * cr + wd * dr,
        wa * ai + wb * bi + wc * ci + wd * di,
    )
    xr = (
        wa * (a[jx, 0] - a[ix, 0])
        + wb * (b[jx, 0] - b[ix, 0])
        + wc * (c[jx, 0] - c[ix, 0])
        + wd * (d[jx, 0] - d[ix, 0])
    )
    xi = (
        wa * (a[jx, 1] - a[ix, 1])
        + wb * (b[jx, 1] - b[ix, 1])
        + wc * (c[jx, 1] - c[ix, 1])
        + wd * (d[jx, 1] - d[ix, 1])
    )
    yr, yi = ez * (br - ar) + dz * (dr - cr), ez * (bi - ai) + dz * (di - ci)
    zr, zi = ey * (cr - ar) + dy * (dr - br), ey * (ci - ai) + dy * (di - bi)
    # F(-k) = conj F(k): a mirrored point has the conjugate value, and derivatives
    # along the mirrored axes change sign once more.
    return sr, sign * si, sign * xr, xi, sign * yr, yi, sign * zr, zi


@numba.njit(fastmath=True, error_model="numpy", cache=True)
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
    out: Array,
) -> None:
    """Fill ``out`` (28) with the normal equations of one image at one pose.

    ``r`` is the rotation times the padding factor, ``table`` that of the shift. The
    unknowns are the rotation vector in the image frame, the shift in pixels and the
    defocus, by which the CTF is ``ctf + slope * defocus``; a ``slope`` without
    entries leaves the defocus out. ``out`` packs the upper triangle of sum Re(J* J),
    row by row (21), sum Re(J* residual) (6) and the squared residual (1).
    """
    with_defocus = slope.shape[0] > 0
    per_pixel = np.float32(2.0 * math.pi / box)
    # Local sums stay in registers; an array would go through memory.
    h_xx = h_xy = h_xz = h_xs = h_xt = np.float32(0.0)
    h_xd = h_yy = h_yz = h_ys = h_yt = np.float32(0.0)
    h_yd = h_zz = h_zs = h_zt = h_zd = np.float32(0.0)
    h_ss = h_st = h_ts = h_dd = h_gx = np.float32(0.0)
    h_gy = h_gz = h_gs = h_gt = h_gd = np.float32(0.0)
    h_rest = np.float32(0.0)
    for p in range(kx.shape[0]):
        u, v = kx[p], ky[p]
        sr, si, xr, xi, yr, yi, zr, zi = _value_and_gradient(
            volume,
            centre,
            u * r[0, 0] + v * r[1, 0],
            u * r[0, 1] + v * r[1, 1],
            u * r[0, 2] + v * r[1, 2],
        )
        c = ctf[p]
        if with_defocus:
            c += slope[p] * defocus
        re, im = unshifted(table, u, v, box, image[p, 0], image[p, 1])
        # Derivatives along the image's axes; u is exp(w) R acting on (u, v, 0).
        gx_r = r[0, 0] * xr + r[0, 1] * yr + r[0, 2] * zr
        gx_i = r[0, 0] * xi + r[0, 1] * yi + r[0, 2] * zi
        gy_r = r[1, 0] * xr + r[1, 1] * yr + r[1, 2] * zr
        gy_i = r[1, 0] * xi + r[1, 1] * yi + r[1, 2] * zi
        # tilt: J_x = -v a, J_y = u a; turn: b; shift: (u, v) t; defocus: d
        a_r = c * (r[2, 0] * xr + r[2, 1] * yr + r[2, 2] * zr)
        a_i = c * (r[2, 0] * xi + r[2, 1] * yi + r[2, 2] * zi)
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
    out[0] = h_xx
    out[1] = h_xy
    out[2] = h_xz
    out[3] = h_xs
    out[4] = h_xt
    out[5] = h_xd
    out[6] = h_yy
    out[7] = h_yz
    out[8] = h_ys
    out[9] = h_yt
    out[10] = h_yd
    out[11] = h_zz
    out[12] = h_zs
    out[13] = h_zt
    out[14] = h_zd
    out[15] = h_ss
    out[16] = h_st
    out[18] = h_ts
    out[20] = h_dd
    out[21] = h_gx
    out[22] = h_gy
    out[23] = h_gz
    out[24] = h_gs
    out[25] = h_gt
    out[26] = h_gd
    out[27] = h_rest
    out[17] = out[19] = 0.0


@numba.njit(error_model="numpy", cache=True)
def _solve(matrix: Array, right: Array, out: Array) -> None:
    """Solve six equations by Cholesky's decomposition, which overwrites ``matrix``."""
    for a in range(6):
        for b in range(a + 1):
            total = matrix[a, b]
            for c in range(b):
                total -= matrix[a, c] * matrix[b, c]
            if a == b:
                matrix[a, a] = math.sqrt(max(total, 1e-30))
            else:
                matrix[a, b] = total / matrix[b, b]
    for a in range(6):
        total = right[a]
        for c in range(a):
            total -= matrix[a, c] * out[c]
        out[a] = total / matrix[a, a]
    for a in range(5, -1, -1):
        total = out[a]
        for c in range(a + 1, 6):
            total -= matrix[c, a] * out[c]
        out[a] = total / matrix[a, a]


@numba.njit(error_model="numpy", cache=True)
def _step(
    h: Array, precision: Array, start: Array, moved: Array, damping: float, step: Array
) -> float:
    """Solve the damped equations of a posterior for ``step`` (6).

    ``precision`` is half the inverse variance of the prior, ``start + moved`` the
    departure from its centre. Returns the decrease of the loss that the step
    promises. An unknown that nothing depends on stays where it is.
    """
    matrix, gradient = np.empty((6, 6)), np.empty(6)
    entry = 0
    for a in range(6):
        for b in range(a, 6):
            matrix[a, b] = matrix[b, a] = h[entry]
            entry += 1
    for a in range(6):
        gradient[a] = h[21 + a] - precision[a] * (start[a] + moved[a])
        matrix[a, a] += precision[a]
        if matrix[a, a] <= 0.0 or precision[a] < 0.0:
            # Held: a negative precision says so.
            matrix[a, :] = 0.0
            matrix[:, a] = 0.0
            matrix[a, a] = 1.0
            gradient[a] = 0.0
        matrix[a, a] *= 1.0 + damping
    _solve(matrix, gradient, step)
    promised = 0.0
    for a in range(6):
        promised += gradient[a] * step[a]
    return promised


@numba.njit(error_model="numpy", cache=True)
def _turned(rotation: Array, w: Array, out: Array) -> None:
    """Fill ``out`` with exp(w) times the rotation (Rodrigues' formula)."""
    angle = math.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    sine = 1.0 - angle * angle / 6.0
    versine = 0.5 - angle * angle / 24.0
    if angle > 1e-4:
        sine = math.sin(angle) / angle
        versine = (1.0 - math.cos(angle)) / (angle * angle)
    for b in range(3):
        x, y, z = rotation[0, b], rotation[1, b], rotation[2, b]
        px, py, pz = w[1] * z - w[2] * y, w[2] * x - w[0] * z, w[0] * y - w[1] * x
        qx, qy, qz = w[1] * pz - w[2] * py, w[2] * px - w[0] * pz, w[0] * py - w[1] * px
        out[0, b] = x + sine * px + versine * qx
        out[1, b] = y + sine * py + versine * qy
        out[2, b] = z + sine * pz + versine * qz


@parallel
def climb(
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
    rotation: Array,
    moved: Array,
    out: Array,
) -> None:
    """Take Levenberg-Marquardt steps on the posterior of every image.

    ``factor`` is voxels per Fourier pixel of the image. ``rotation`` (n, 3, 3) and
    ``moved`` (n, 6), whose entries 3 to 5 are shift (pixels) and defocus beyond
    ``start`` (n, 6), are changed in place. ``limits`` are the longest rotation and
    defocus of one step, and the promise that is taken without another look.
    ``out`` (n, 28) receives the normal equations at the end.
    """
    origin: Any = np.float32(centre)
    for i in numba.prange(rotation.shape[0]):
        table = np.empty((2, box, 2), np.float32)
        scaled = np.empty((3, 3), np.float32)
        here, there = np.empty(PACKED), np.empty(PACKED)
        best, trial = rotation[i].copy(), np.empty((3, 3))
        at, step = moved[i].copy(), np.zeros(6)
        damping, loss, promised = 1e-3, 0.0, 0.0
        for attempt in range(steps + 1):
            if attempt > 0:
                promised = _step(here, precision, start[i], at, damping, step)
                turn = math.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
                cut = min(1.0, limits[0] / max(turn, 1e-12))
                cut = min(cut, limits[1] / max(abs(step[5]), 1e-12))
                for a in range(6):
                    step[a] *= cut
                _turned(best, step, trial)
                if cut == 1.0 and promised < limits[2]:
                    # Too little for the rounding of two losses to judge.
                    best[:] = trial
                    at += step
                    here[27] -= promised
                    break
            else:
                trial[:] = best
            for a in range(3):
                for b in range(3):
                    scaled[a, b] = trial[a, b] * factor
            tried = at + step
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
                there,
            )
            cost = there[27]
            for a in range(3, 6):
                cost += max(precision[a], 0.0) * (start[i, a] + tried[a]) ** 2
            if attempt == 0 or cost < loss:
                loss = cost
                best[:] = trial
                at[:] = tried
                here[:] = there
                damping *= 0.1
            else:
                damping = min(damping * 300.0, 1e4)
        rotation[i] = best
        moved[i] = at
        out[i] = here
