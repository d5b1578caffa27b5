"""A density on the points of lattices about modes, and lattices fitted to its moments.

The lattices are those of :mod:`cryoinfer.inference.quadrature_grid`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.inference.quadrature_grid import Ellipsoid, moved
from cryoinfer.records import Latents

_LEAST_SHARE = 1e-6
"""Of the mass, of a mode that stays after a fit."""

REACH = 5.0
"""Steps from the centre to the edge: 1e-4 to 3e-4 of a Gaussian of 5 or 6 dimensions
lie beyond it."""

FITTED_REACH = 3.5
"""The same of the lattices that ellipsoids are fitted on."""

_MOST_CHANGE = 2.0  # of a standard deviation from one fit to the next
_SETTLED_SHIFT = 0.3
_SETTLED_VARIANCE = 1.3


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
        if float((log_mass - total).exp()) < _LEAST_SHARE:
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
        fitted.append(_fitted(mode, mean, values, vectors))
    return fitted, settled


def _fitted(
    mode: Ellipsoid, mean: Tensor, values: Tensor, vectors: Tensor
) -> Ellipsoid:
    """Return the ellipsoid of a mean and a covariance, by its spectrum, in steps."""
    limits = _MOST_CHANGE**-2, _MOST_CHANGE**2
    shape = mode.root @ vectors * values.clamp(*limits).sqrt()
    root = torch.linalg.cholesky(shape @ shape.T)
    return Ellipsoid(moved(mode.centre, mode.step(mean)), root, mode.dims)


def _kept_variance(dimensions: int) -> float:
    """Return the variance that a unit Gaussian has inside the ball of a fit."""
    half, argument = dimensions / 2, torch.tensor(FITTED_REACH**2 / 2)
    above = torch.special.gammainc(torch.tensor(half + 1), argument)
    return float(above / torch.special.gammainc(torch.tensor(half), argument))
