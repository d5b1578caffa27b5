"""Lattices in the whitened coordinates of modes, which sums of a density are over.

Sums converge faster than any power of the step where the integrand is smooth and falls
off: for a Gaussian and a step of one standard deviation the error is
``2 exp(-2 pi^2) = 5e-9`` a dimension, at two deviations still 1.4 % (Trefethen and
Weideman, SIAM Review 56, 385-458, 2014). So an ellipsoid need only be roughly right.

Where lattices overlap, a point counts for each mode by a smooth share; the shares sum
to one, so that nothing counts twice and the integrands stay smooth.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import rotate_in_image_frame, rotation_vector
from cryoinfer.records import Latents, Pose


def departure(latents: Latents, centre: Latents) -> Tensor:
    """Return rotation vector, shift, defocus, conformation from centres, (..., 6 + c).

    In radian and angstrom.
    """
    turn = rotation_vector(latents.pose.rotation @ centre.pose.rotation.mT)
    shift = latents.pose.shift_angstrom - centre.pose.shift_angstrom
    defocus = latents.defocus_offset_angstrom - centre.defocus_offset_angstrom
    moved = latents.conformation - centre.conformation
    return torch.cat([turn, shift, defocus[..., None], moved], dim=-1)


def moved(centre: Latents, step: Tensor) -> Latents:
    """Invert :func:`departure`."""
    return Latents(
        Pose(
            rotate_in_image_frame(centre.pose.rotation, step[..., :3]),
            centre.pose.shift_angstrom + step[..., 3:5],
        ),
        centre.defocus_offset_angstrom + step[..., 5],
        centre.conformation + step[..., 6:],
    )


@dataclass(frozen=True)
class Ellipsoid:
    """Where a lattice lies, and the shape of its cells.

    Attributes
    ----------
    centre : Latents
        One, without leading dimensions.
    root : Tensor of float64, shape (d, d)
        Lower triangle; a step of the lattice is a column. Times its transpose it is
        a covariance.
    dims : list of int, length d
        Which of rotation vector (0 to 2), shift (3, 4), defocus (5) and conformation
        (6 on) the rows of ``root`` are; the others are held.
    """

    centre: Latents
    root: Tensor
    dims: list[int]

    def step(self, points: Tensor) -> Tensor:
        """Return the departures, (..., 6 + c), of points (..., d) of the lattice."""
        unknowns = 6 + len(self.centre.conformation)
        step = torch.zeros(*points.shape[:-1], unknowns, dtype=torch.float64)
        step[..., self.dims] = points @ self.root.T
        return step

    def squared_distance(self, latents: Latents) -> Tensor:
        """Return the squared Mahalanobis distance of latents, shape (...)."""
        step = departure(latents, self.centre)[..., self.dims]
        return (step @ torch.linalg.inv(self.root).T).square().sum(-1)


def log_share(modes: list[Ellipsoid], own: int, latents: Latents) -> Tensor:
    """Return the log of a mode's share in points; shares of all modes sum to one."""
    if len(modes) == 1:
        return torch.zeros(len(latents), dtype=torch.float64)
    squared = torch.stack([mode.squared_distance(latents) for mode in modes])
    return torch.log_softmax(-0.5 * squared, 0)[own]


def ball(dimensions: int, radius: float) -> Tensor:
    """Return the integer points within a radius, float64, the first index slowest."""
    points = torch.zeros(1, 0, dtype=torch.float64)
    axis = torch.arange(-math.floor(radius), math.floor(radius) + 1).double()
    for _ in range(dimensions):
        longer = points.repeat_interleave(len(axis), 0)
        points = torch.cat([longer, axis.repeat(len(points))[:, None]], 1)
        points = points[points.square().sum(1) <= radius**2]
    return points
