"""Symmetry of the map, imposed on the sums before they are divided.

A particle of point group G seen from R is seen from R g as well. Instead of
inserting every image once for each g, the sums are turned by all g and added: one
pass over the volume instead of |G| passes over the images.
"""

from dataclasses import replace

import numba
import numpy as np
import torch
from torch import Tensor

from cryoinfer.fourier.kernels import Array, parallel
from cryoinfer.fourier.slices import SliceAccumulator

_ONE = np.float32(1.0)


def symmetrise(accumulator: SliceAccumulator, rotations: Tensor) -> SliceAccumulator:
    """Return the sums of all images at all symmetry mates.

    Parameters
    ----------
    accumulator : SliceAccumulator
        With the Friedel mates in the plane x = 0 still apart.
    rotations : Tensor, shape (m, 3, 3)
        The whole group, the identity first.

    Returns
    -------
    SliceAccumulator
        Its plane x = 0 holds the Friedel mates with half their weight, so that
        ``hermitian()`` completes it.
    """
    if len(rotations) == 1:
        return accumulator
    value, weight = accumulator.hermitian()
    scalars = torch.stack([weight, accumulator.own_weight()], -1)
    joined = torch.cat([torch.view_as_real(value), scalars], -1).contiguous()
    turned = joined.clone()
    mates = rotations[1:].float().contiguous()
    _add_turned(
        joined.numpy(),
        accumulator.centre,
        accumulator.radius * accumulator.padding + 1.0,
        mates.numpy(),
        turned.numpy(),
    )
    turned[:, :, 0] *= 0.5
    return replace(accumulator, sums=turned)


@parallel
def _add_turned(
    sums: Array, centre: int, reach: float, mates: Array, out: Array
) -> None:
    """Add ``sums`` (z, y, x, 4) at the turned points to ``out``."""
    size, width = sums.shape[0], sums.shape[2] - 1
    offset = np.float32(centre)
    limit = np.float32(reach * reach)
    for iz in numba.prange(1, size - 1):
        kz = np.float32(iz - centre)
        for iy in range(1, size - 1):
            ky = np.float32(iy - centre)
            for ix in range(width):
                kx = np.float32(ix)
                if kx * kx + ky * ky + kz * kz > limit:
                    continue
                for m in range(mates.shape[0]):
                    g = mates[m]
                    x = g[0, 0] * kx + g[0, 1] * ky + g[0, 2] * kz
                    y = g[1, 0] * kx + g[1, 1] * ky + g[1, 2] * kz
                    z = g[2, 0] * kx + g[2, 1] * ky + g[2, 2] * kz
                    sign = _ONE
                    if x < 0:
                        x, y, z, sign = -x, -y, -z, -_ONE
                    y += offset
                    z += offset
                    jx, jy, jz = np.int32(x), np.int32(y), np.int32(z)
                    dx, dy, dz = x - jx, y - jy, z - jz
                    for step in range(8):
                        a, b, c = step & 1, (step >> 1) & 1, step >> 2
                        w = dx if a == 1 else _ONE - dx
                        w *= dy if b == 1 else _ONE - dy
                        w *= dz if c == 1 else _ONE - dz
                        corner = sums[jz + c, jy + b, jx + a]
                        out[iz, iy, ix, 0] += w * corner[0]
                        out[iz, iy, ix, 1] += w * sign * corner[1]
                        out[iz, iy, ix, 2] += w * corner[2]
                        out[iz, iy, ix, 3] += w * corner[3]
