"""Lattices in the whitened coordinates of modes, which sums of a density are over.

Sums converge faster than any power of the step where the integrand is smooth and falls
off: for a Gaussian and a step of one standard deviation the error is
``2 exp(-2 pi^2) = 5e-9`` a dimension, at two deviations still 1.4 % (Trefethen and
Weideman, SIAM Review 56, 385-458, 2014). So an ellipsoid need only be roughly right;
it is fitted to the moments of the density itself.

Where lattices overlap, a point counts for each mode by a smooth share; the shares sum
to one, so that nothing counts twice and the integrands stay smooth.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import rotate_in_image_frame, rotation_vector
from cryoinfer.records import Latents, Pose

LEAST_SHARE = 1e-6
"""Of the mass, of a mode that stays after a fit."""

REACH = 5.0
"""Steps from the centre to the edge: 1e-4 to 3e-4 of a Gaussian of 5 or 6 dimensions
lie beyond it."""

FITTED_REACH = 3.5
"""The same of the lattices that ellipsoids are fitted on."""

_MOST_CHANGE = 2.0  # of a standard deviation from one fit to the next
_SETTLED_SHIFT = 0.3
_SETTLED_VARIANCE = 1.3


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

    def fitted(self, mean: Tensor, values: Tensor, vectors: Tensor) -> "Ellipsoid":
        """Return the ellipsoid of a mean and covariance that its points have.

        Parameters
        ----------
        mean : Tensor, shape (d,)
        values, vectors : Tensor, shapes (d,) and (d, d)
            Of the covariance.
        """
        limits = _MOST_CHANGE**-2, _MOST_CHANGE**2
        shape = self.root @ vectors * values.clamp(*limits).sqrt()
        root = torch.linalg.cholesky(shape @ shape.T)
        return Ellipsoid(moved(self.centre, self.step(mean)), root, self.dims)

    def scaled(self, factor: float) -> "Ellipsoid":
        """Return the ellipsoid of as many times the standard deviations."""
        return Ellipsoid(self.centre, self.root * factor, self.dims)


@dataclass(frozen=True)
class GridPatch:
    """A density, not normalised, on m points of the lattice about one mode.

    Attributes
    ----------
    points : Tensor of float64, shape (m, d)
        In steps of the lattice.
    latents : Latents
        Of length m.
    log_mass : Tensor of float64, shape (m,)
        Density times the volume of the cell times the mode's share in the point.
    log_density : Tensor of float64, shape (m,)
    """

    points: Tensor
    latents: Latents
    log_mass: Tensor
    log_density: Tensor

    def edge_log_mass(self) -> Tensor:
        """Return the log mass within a step of the edge of a lattice in full."""
        edge = self.points.square().sum(-1) > (REACH - 1) ** 2
        return torch.logsumexp(self.log_mass[edge], 0)


def joined(sheets: list[GridPatch]) -> GridPatch:
    """Return the points of several sheets in one."""
    return GridPatch(
        torch.cat([sheet.points for sheet in sheets]),
        Latents.joined([sheet.latents for sheet in sheets]),
        torch.cat([sheet.log_mass for sheet in sheets]),
        torch.cat([sheet.log_density for sheet in sheets]),
    )


def refitted(
    modes: list[Ellipsoid], sheets: list[GridPatch]
) -> tuple[list[Ellipsoid], bool]:
    """Fit ellipsoids to the density's own moments.

    Parameters
    ----------
    modes : list of Ellipsoid
    sheets : list of GridPatch
        Of these modes, of the reach ``FITTED_REACH``.

    Returns
    -------
    modes : list of Ellipsoid
        Those that hold any mass.
    settled : bool
        Whether they were nearly these before.
    """
    total = torch.logsumexp(joined(sheets).log_mass, 0)
    fitted, settled = [], True
    for mode, sheet in zip(modes, sheets, strict=True):
        log_mass = torch.logsumexp(sheet.log_mass, 0)
        if float((log_mass - total).exp()) < LEAST_SHARE:
            continue
        mass = (sheet.log_mass - log_mass).exp()
        mean = mass @ sheet.points
        apart = sheet.points - mean
        spread = (mass[:, None] * apart).T @ apart
        values, vectors = torch.linalg.eigh(spread / _kept_variance(len(mode.dims)))
        low, high = 1 / _SETTLED_VARIANCE, _SETTLED_VARIANCE
        near = float(mean.norm()) < _SETTLED_SHIFT
        alike = low < float(values[0]) and float(values[-1]) < high
        settled = settled and near and alike
        fitted.append(mode.fitted(mean, values, vectors))
    return fitted, settled


def _kept_variance(dimensions: int) -> float:
    """Return the variance that a unit Gaussian has inside the ball of a fit."""
    half, argument = dimensions / 2, torch.tensor(FITTED_REACH**2 / 2)
    above = torch.special.gammainc(torch.tensor(half + 1), argument)
    return float(above / torch.special.gammainc(torch.tensor(half), argument))


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
