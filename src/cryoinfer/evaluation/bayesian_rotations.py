"""Rotations between two maps by Bayesian optimisation.

A Gaussian process on the rotations learns how unlike the maps are; where it expects
the largest improvement, the maps are compared next: after Singer and Yang (2024,
Biological Imaging 4). Whole maps are compared by wavelets, which stand for
transport; of maps that lack a part the centre is unknown, and the best correlation
over all shifts is taken.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import (
    COARSE_BOX,
    MapPair,
    distinct,
    fine_map,
    resampled,
    score_rotations,
    turned_maps,
)
from cryoinfer.evaluation.transport import point_cloud, wavelet_coefficients
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.geometry.hand import mirror_density
from cryoinfer.geometry.so3_grid import rotation_grid

_LEVELS = 3
_POINTS = 60
_ROUNDS, _AT_ONCE = 48, 8
"""In which the process chooses rotations, beside the 72 that it begins with; those of
a round are compared at once, which takes hardly longer than one of them."""

_LENGTH = 0.7
"""Of the kernel, in units of the chord |R - R'|, which is 2.8 for a half turn."""

_VARIANCE_OF_NOISE = 1e-3
"""Of the losses' own: what a grid of voxels adds to them."""

_KEPT = 12

Loss = Callable[[Tensor], Tensor]


def bayesian_rotations(pair: MapPair, mirrored: bool, partial: bool) -> Tensor:
    """Return the minima of how unlike two maps are, of 456 rotations tried.

    Parameters
    ----------
    pair : MapPair
    mirrored : bool
        Whether the mirror image of the moving map is meant.
    partial : bool
        Whether one map may lack a part of the other.

    Returns
    -------
    Tensor of float64, shape (k, 3, 3)
        At most 12, the best first, 20 degrees or more apart:
        G of :class:`cryoinfer.evaluation.pose_error.GlobalAlignment`.
    """
    loss = None if partial else _wavelet_loss(pair, mirrored)
    tried, value = minimise(loss or _correlation_loss(pair, mirrored), _ROUNDS)
    return tried[distinct(tried, -value, _KEPT)]


def minimise(loss: Loss, rounds: int) -> tuple[Tensor, Tensor]:
    """Return rotations that were tried, and their losses, by expected improvement.

    Parameters
    ----------
    loss : callable
        From rotations, shape (k, 3, 3), to losses, shape (k,).
    rounds : int
        In each of which the process chooses 8, out of a grid of 15 degrees, after the
        72 of another of 60 degrees.

    Returns
    -------
    rotation : Tensor of float64, shape (72 + 8 * rounds, 3, 3)
    value : Tensor of float64, shape (72 + 8 * rounds,)
    """
    tried, grid = rotation_grid(0), rotation_grid(2)
    value = loss(tried).double()
    process = GaussianProcess(grid)
    process.add(tried)
    for _ in range(rounds):
        expected, sd = process.posterior(value)
        gain = expected_improvement(expected, sd, float(value.min()))
        rotation = grid[distinct(grid, gain, _AT_ONCE)]
        process.add(rotation)
        tried = torch.cat([tried, rotation])
        value = torch.cat([value, loss(rotation).double()])
    return tried, value


def expected_improvement(expected: Tensor, sd: Tensor, least: float) -> Tensor:
    """Return by how much a Gaussian is below the least so far, on average.

    Parameters
    ----------
    expected, sd : Tensor, shape (k,)
    least : float
    """
    sd = sd.clamp(min=1e-12)
    z = (least - expected) / sd
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return (least - expected) * torch.special.ndtr(z) + sd * density


class GaussianProcess:
    """A Gaussian process on the rotations, whose factors grow by a few rows at a time.

    Parameters
    ----------
    grid : Tensor of float64, shape (g, 3, 3)
        Where it is asked.
    """

    def __init__(self, grid: Tensor) -> None:
        self._grid = grid
        self._added = grid[:0]
        self._factor = grid.new_zeros(0, 0)  # L, of K = L L'
        self._solved = grid.new_zeros(0, len(grid))  # L^-1 K(added, grid)
        self._explained = grid.new_zeros(len(grid))  # its squares, summed

    def add(self, rotation: Tensor) -> None:
        """Take in rotations, shape (k, 3, 3), at which the loss is known."""
        count, k = len(self._added), len(rotation)
        inner = torch.linalg.solve_triangular(
            self._factor, matern(self._added, rotation), upper=False
        )
        noise = _VARIANCE_OF_NOISE * torch.eye(k).to(inner)
        rest = matern(rotation, rotation) + noise - inner.mT @ inner
        corner = torch.linalg.cholesky(rest)
        factor = self._grid.new_zeros(count + k, count + k)
        factor[:count, :count] = self._factor
        factor[count:, :count] = inner.mT
        factor[count:, count:] = corner
        seen = matern(rotation, self._grid) - inner.mT @ self._solved
        solved = torch.linalg.solve_triangular(corner, seen, upper=False)
        self._factor = factor
        self._solved = torch.cat([self._solved, solved])
        self._explained += solved.square().sum(0)
        self._added = torch.cat([self._added, rotation])

    def posterior(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and sd on the grid, given the losses, shape (added,)."""
        mean, sd = value.mean(), value.std().clamp(min=1e-12)
        weight = torch.linalg.solve_triangular(
            self._factor, ((value - mean) / sd)[:, None], upper=False
        )[:, 0]
        left = (1 - self._explained).clamp(min=0.0).sqrt()
        return mean + sd * (weight @ self._solved), sd * left


def matern(first: Tensor, second: Tensor) -> Tensor:
    """Return the Matern kernel of order 5/2 in the chord between rotations.

    The chord is a distance between matrices: what is positive definite in space is so
    for rotations.

    Parameters
    ----------
    first, second : Tensor, shape (n, 3, 3) and (m, 3, 3)

    Returns
    -------
    Tensor, shape (n, m)
    """
    trace = first.flatten(1) @ second.flatten(1).T
    scaled = (30 - 10 * trace).clamp(min=0.0).sqrt() / _LENGTH
    return (1 + scaled + scaled.square() / 3) * torch.exp(-scaled)


def _correlation_loss(pair: MapPair, mirrored: bool) -> Loss:
    """Return the best correlation over all shifts, negative."""

    def loss(rotation: Tensor) -> Tensor:
        return -score_rotations(pair, rotation, mirrored, COARSE_BOX)[0]

    return loss


def _wavelet_loss(pair: MapPair, mirrored: bool) -> Loss | None:
    """Return the distance of whole maps about their centres; None of empty ones."""
    voxel = pair.length_angstrom / pair.fixed.shape[-1]
    moving = mirror_density(pair.moving) if mirrored else pair.moving
    centred = []
    for density in (pair.fixed, moving):
        cloud = point_cloud(density, voxel, _POINTS)
        if not len(cloud.mass):
            return None
        frame = GlobalAlignment(torch.eye(3).double(), False, cloud.centre())
        centred.append(transform_map(density, frame, voxel))
    fixed = wavelet_coefficients(
        _of_mass_one(resampled(centred[0], COARSE_BOX)[None].float()), _LEVELS
    )
    fine = fine_map(centred[1], False, COARSE_BOX)
    fine = fine + resampled(centred[1], COARSE_BOX).mean().float()

    def loss(rotation: Tensor) -> Tensor:
        turned = _of_mass_one(turned_maps(fine, rotation, COARSE_BOX))
        return (wavelet_coefficients(turned, _LEVELS) - fixed).abs().sum(1)

    return loss


def _of_mass_one(density: Tensor) -> Tensor:
    """Return the positive part of maps, shape (k, n, n, n), over its sum."""
    positive = density.clamp(min=0.0)
    return positive / positive.sum((1, 2, 3), keepdim=True).clamp(min=1e-30)
