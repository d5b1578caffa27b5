"""Trilinear reads and writes in PyTorch's own functions, on any device.

Arrays hold half of a Fourier transform: (z, y, x, channels) with x >= 0, frequency zero
at ``[c, c, 0]``. Channel 1 is an imaginary part, which changes its sign where a point
is mirrored, F(-k) = conj F(k); all other channels are the same there. Everything is
computed in the precision of the array. The compiled versions are in
:mod:`cryoinfer.fourier.kernels`.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 2**18
"""Points that are read or written at a time: a MB for every number of each."""


@dataclass(frozen=True)
class _Cells:
    """The cells of an array that points lie in.

    Attributes
    ----------
    corner : Tensor of int64, shape (m, 3)
        Lowest corner (x, y, z), as indices.
    part : Tensor, shape (m, 3)
        Place in the cell, from 0 to 1 along each axis.
    mirrored : Tensor of bool, shape (m,)
    """

    corner: Tensor
    part: Tensor
    mirrored: Tensor

    @classmethod
    def of(cls, array: Tensor, point: Tensor) -> "_Cells":
        """Find the cells of points (m, 3), x, y and z in voxels from the origin."""
        mirrored = point[:, 0] < 0
        point = torch.where(mirrored[:, None], -point, point)
        centre = (array.shape[0] - 1) // 2
        x, y, z = point.unbind(1)
        # The origin is added before rounding, as in the kernels.
        place = torch.stack([x, y + centre, z + centre], 1)
        low = place.detach().floor()
        return cls(low.long(), place - low, mirrored)

    def corners(self, array: Tensor) -> Iterator[Tensor]:
        """Yield the flat index (m,) of each corner; x runs fastest, then y."""
        _, rows, columns = array.shape[:3]
        x, y, z = self.corner.unbind(1)
        lowest = (z * rows + y) * columns + x
        for c, b, a in itertools.product((0, 1), repeat=3):
            yield lowest + ((c * rows + b) * columns + a)

    def read(self, array: Tensor) -> list[Tensor]:
        """Return what is in each corner, (m, channels)."""
        flat = array.flatten(0, 2)
        return [flat.index_select(0, index) for index in self.corners(array)]

    def weights(self) -> Iterator[Tensor]:
        """Yield the weight (m,) of each corner."""
        shares = [(1 - part, part) for part in self.part.unbind(1)]
        for z, y, x in itertools.product(*reversed(shares)):
            yield x * y * z

    def conjugated(self, found: Tensor) -> Tensor:
        """Change the sign of channel 1 of (m, ..., channels) where it is mirrored."""
        sign = torch.ones_like(found)
        mirrored = self.mirrored.view(-1, *[1] * (found.dim() - 2))
        sign[..., 1] = torch.where(mirrored, -1.0, 1.0).to(found)
        return found * sign


def read(array: Tensor, point: Tensor) -> Tensor:
    """Interpolate an array.

    Parameters
    ----------
    array : Tensor, shape (2c + 1, 2c + 1, width, channels)
    point : Tensor, shape (..., 3)
        x, y and z in voxels from the origin, in the precision of the array.

    Returns
    -------
    Tensor, shape (..., channels)
    """
    parts = []
    for few in point.reshape(-1, 3).split(AT_ONCE):
        cells = _Cells.of(array, few)
        values = cells.read(array)
        for part in cells.part.split(1, 1):
            values = _between(values, part)
        parts.append(cells.conjugated(values[0]))
    return torch.cat(parts).view(*point.shape[:-1], array.shape[3])


def _between(values: list[Tensor], part: Tensor) -> list[Tensor]:
    """Interpolate along one axis: every value with the next, half as many are left."""
    pairs = zip(values[::2], values[1::2], strict=True)
    return [low + part * (high - low) for low, high in pairs]


def read_with_slopes(array: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Interpolate a complex array, and differentiate by the point.

    Parameters
    ----------
    array : Tensor, shape (2c + 1, 2c + 1, width, 2)
    point : Tensor, shape (..., 3)
        As in :func:`read`.

    Returns
    -------
    value : Tensor, complex, shape (...)
    slopes : Tensor, complex, shape (..., 3)
        Derivatives along x, y and z, per voxel.
    """
    found, turned = [], []
    for few in point.reshape(-1, 3).split(AT_ONCE):
        cells = _Cells.of(array, few)
        values = cells.read(array)
        slopes: list[list[Tensor]] = []
        for part in cells.part.split(1, 1):
            slopes = [_between(one, part) for one in slopes]
            pairs = zip(values[::2], values[1::2], strict=True)
            slopes.append([high - low for low, high in pairs])
            values = _between(values, part)
        found.append(cells.conjugated(values[0]))
        # Derivatives along mirrored axes change their sign once more.
        sign = torch.where(cells.mirrored, -1.0, 1.0).to(array)[:, None, None]
        turned.append(sign * cells.conjugated(torch.stack([s for (s,) in slopes], 1)))
    shape = point.shape[:-1]
    value, slope = torch.cat(found), torch.cat(turned)
    return (
        torch.view_as_complex(value).view(shape),
        torch.view_as_complex(slope).view(*shape, 3),
    )


def add(sums: Tensor, point: Tensor, value: Tensor, weight: Tensor) -> None:
    """Add values and weights to sums: the adjoint of :func:`read`.

    Parameters
    ----------
    sums : Tensor, shape (2c + 1, 2c + 1, width, 4)
        Real part, imaginary part, weight, and weight times its share; changed in place.
    point : Tensor, shape (..., 3)
    value : Tensor, complex, shape (...)
    weight : Tensor, shape (...)
    """
    flat = sums.view(-1, 4)
    pairs = torch.view_as_real(value.resolve_conj()).reshape(-1, 2)
    pieces = zip(
        point.reshape(-1, 3).split(AT_ONCE),
        pairs.split(AT_ONCE),
        weight.reshape(-1).split(AT_ONCE),
        strict=True,
    )
    for few, entry, seen in pieces:
        cells = _Cells.of(sums, few)
        one = cells.conjugated(entry)
        for index, share in zip(cells.corners(sums), cells.weights(), strict=True):
            own = torch.stack([share * seen, share.square() * seen], 1)
            flat.index_add_(0, index, torch.cat([share[:, None] * one, own], 1))
