"""Exhaustive low-resolution posterior: every rotation of a grid, every shift.

At a radius of K Fourier pixels an image is about 1.6 K^2 complex numbers. All
likelihoods of b images over g rotations and t shifts are then one product of a
(b t, p) by a (p, g) matrix, and the expectation of the slices is another.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import (
    FourierVolume,
    SliceAccumulator,
    extract_slices,
    insert_slices,
)
from cryoinfer.inference.whitening import WhitenedImages

GRID_ORDER = 2
"""Of an exhaustive grid of rotations: 4,608, 15 degrees apart."""

_NEGLIGIBLE_NATS = 60.0
"""Below the best pose: e^-60 times a coefficient is still a normal float32."""


@dataclass(frozen=True)
class PoseGrid:
    """Every rotation with every shift.

    Attributes
    ----------
    rotation : Tensor of float64, shape (g, 3, 3)
    shift_angstrom : Tensor of float32, shape (t, 2)
    """

    rotation: Tensor
    shift_angstrom: Tensor

    def to(self, device: torch.device) -> "PoseGrid":
        """Return the grid on a device."""
        return PoseGrid(self.rotation.to(device), self.shift_angstrom.to(device))


def shift_grid(max_shift_angstrom: float, step_angstrom: float) -> Tensor:
    """Return a hexagonal grid of shifts in a disc, the origin first.

    Parameters
    ----------
    max_shift_angstrom : float
        Radius of the disc; 0 gives the origin alone.
    step_angstrom : float
        Distance of neighbours.

    Returns
    -------
    Tensor of float32, shape (t, 2)
    """
    reach = (
        math.ceil(2 * max_shift_angstrom / step_angstrom)
        if max_shift_angstrom > 0
        else 0
    )
    index = torch.arange(-reach, reach + 1).float()
    a, b = torch.meshgrid(index, index, indexing="ij")
    points = (
        torch.stack([a + b / 2, b * math.sqrt(3) / 2], -1).reshape(-1, 2)
        * step_angstrom
    )
    distance = points.norm(dim=1)
    inside = distance <= max_shift_angstrom + 1e-6
    return points[inside][torch.argsort(distance[inside], stable=True)]


def normalised_weights(log_weight: Tensor) -> Tensor:
    """Return the softmax of each row, without subnormal numbers.

    An Intel processor multiplies a subnormal number (below 1e-38) some hundred
    times slower than another one: with a tenth of them among the weights, their
    product with the images took twenty times as long.

    Parameters
    ----------
    log_weight : Tensor of float32, shape (b, n)

    Returns
    -------
    Tensor of float32, shape (b, n)
        Rows add up to 1. What lies more than 60 nats below the best of its row
        counts as 60 nats below: at most n 1e-26 of the whole.
    """
    lowest = log_weight.amax(1, keepdim=True) - _NEGLIGIBLE_NATS
    return torch.softmax(torch.maximum(log_weight, lowest), 1)


@dataclass(frozen=True)
class GridSlices:
    """The slices of a volume at every rotation of a grid, ready for products.

    Attributes
    ----------
    grid : PoseGrid
    values : Tensor of float32, shape (g, 2 p)
        Real and imaginary parts interleaved.
    power : Tensor of float32, shape (g, p)
    """

    grid: PoseGrid
    values: Tensor
    power: Tensor

    @classmethod
    def of(
        cls, volume: FourierVolume, grid: PoseGrid, disc: FourierDisc, scale: float
    ) -> "GridSlices":
        """Slice the volume at the whole grid."""
        slices = extract_slices(volume, grid.rotation, disc, scale)
        values = torch.view_as_real(slices).flatten(1)
        return cls(grid, values, slices.abs() ** 2)

    def log_likelihood(self, images: WhitenedImages) -> Tensor:
        """Return the log-likelihood of every pose, shape (t, b, g).

        The constant of each image is left out.
        """
        product = (self._matched(images) * 2) @ self.values.T
        norm = (images.ctf**2) @ self.power.T
        return product.unflatten(0, (-1, len(images))).sub_(norm)

    def _matched(self, images: WhitenedImages) -> Tensor:
        """Return CTF times image at every shift, shape (t b, 2 p)."""
        moved = images.moved_back(self.grid.shift_angstrom[:, None])
        return torch.view_as_real(moved * images.ctf).flatten(-2).flatten(0, 1)

    def insert_expectation(
        self, accumulator: SliceAccumulator, images: WhitenedImages, weight: Tensor
    ) -> None:
        """Add the images at all poses, each with its probability (t, b, g)."""
        seen = weight.sum(0)
        values = weight.flatten(0, 1).T @ self._matched(images)
        weights = seen.T @ images.ctf**2
        used = seen.sum(0) > 1e-4
        insert_slices(
            accumulator,
            self.grid.rotation[used],
            images.disc,
            torch.view_as_complex(values[used].unflatten(1, (-1, 2))),
            weights[used],
            images.scale,
        )
