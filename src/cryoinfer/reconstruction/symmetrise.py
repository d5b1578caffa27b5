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

from cryoinfer.fourier import trilinear
from cryoinfer.fourier.kernels import Array, parallel
from cryoinfer.fourier.slices import SliceAccumulator
from cryoinfer.operations import Operation

_ONE = np.float32(1.0)

_SAME = 1e-6
"""Entries of rotations that differ by less are the same but for rounding."""


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
    whole = replace(accumulator, sums=joined)
    for factor in _factors(rotations):
        whole = replace(whole, sums=_turn(whole, factor[1:].to(joined)))
    whole.sums[:, :, 0] *= 0.5
    return whole


def _factors(rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Return two sets of rotations whose products t h are the group, each once.

    The second are the group's own rotations h that take voxels to voxels: all of O,
    twelve of I, four of D2. The first, t, are one of each coset of theirs. Sums are
    interpolated at the first alone: 4 turns for the 59 of I, none for O.
    """
    rounded = rotations.round()
    exact = rounded[(rotations - rounded).abs().amax((1, 2)) < _SAME]
    left, chosen = rotations, []
    while len(left) > 0:
        chosen.append(left[0])
        coset = left[0] @ exact.to(left)
        apart = (left[:, None] - coset).abs().amax((2, 3)).amin(1)
        left = left[apart > _SAME]
    return torch.stack(chosen), exact


def _reach(accumulator: SliceAccumulator) -> float:
    """Return the largest distance from the origin that is turned, in voxels."""
    return accumulator.radius * accumulator.padding + 1.0


def _turn_plain(accumulator: SliceAccumulator, mates: Tensor) -> Tensor:
    """Return the sums and what they are at the turned points, all added up."""
    sums, centre = accumulator.sums, accumulator.centre
    across = torch.arange(-centre, centre + 1, device=sums.device)
    along = torch.arange(sums.shape[2], device=sums.device)
    z, y, x = torch.meshgrid(across, across, along, indexing="ij")
    point = torch.stack([x, y, z], -1).to(sums)
    # The outermost planes and the last column are a margin.
    inside = (z.abs() < centre) & (y.abs() < centre) & (x < sums.shape[2] - 1)
    inside &= point.square().sum(-1) <= _reach(accumulator) ** 2
    point, out = point[inside], sums.clone()
    for mate in mates:
        # No matrix product, which some devices round to fewer digits.
        x, y, z = (point[:, axis, None] * mate[:, axis] for axis in range(3))
        out[inside] += trilinear.read(sums, x + y + z)
    return out


def _turn_compiled(accumulator: SliceAccumulator, mates: Tensor) -> Tensor:
    turned = accumulator.sums.clone()
    _add_turned(
        accumulator.sums.numpy(),
        accumulator.centre,
        _reach(accumulator),
        mates.contiguous().numpy(),
        turned.numpy(),
    )
    return turned


_turn = Operation("symmetry of sums", _turn_plain, cpu=_turn_compiled)


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
                    if dx == 0 and dy == 0 and dz == 0:
                        corner = sums[jz, jy, jx]
                        out[iz, iy, ix, 0] += corner[0]
                        out[iz, iy, ix, 1] += sign * corner[1]
                        out[iz, iy, ix, 2] += corner[2]
                        out[iz, iy, ix, 3] += corner[3]
                        continue
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
