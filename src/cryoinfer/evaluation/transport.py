"""Distances that measure how far mass is moved, of point clouds and of maps.

Clouds are compared by entropic optimal transport (Cuturi 2013, Advances in Neural
Information Processing Systems 26), where mass may be left behind by an unbalanced one
(Chizat et al. 2018, Mathematics of Computation 87, 2563-2609). Maps are compared by a
sum of wavelet coefficients that is, within constants, the earth mover's distance
(Shirdhonkar and Jacobs 2008, IEEE Conference on Computer Vision and Pattern
Recognition).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import nearest_rotation

_SCALING = torch.tensor([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / 32**0.5
"""Daubechies' filter of four taps."""

_LEAST = 1e-300


@dataclass(frozen=True)
class Cloud:
    """Points that carry mass.

    Attributes
    ----------
    point : Tensor of float64, shape (n, 3)
        x, y, z from the centre of the box, in angstrom.
    mass : Tensor of float64, shape (n,)
    """

    point: Tensor
    mass: Tensor

    def centre(self) -> Tensor:
        """Return the centre of mass, shape (3,)."""
        return self.mass @ self.point / self.mass.sum()

    def radius(self) -> float:
        """Return the radius of gyration, in angstrom."""
        squared = (self.point - self.centre()).square().sum(1)
        return math.sqrt(float(self.mass @ squared / self.mass.sum()))


def point_cloud(
    density: Tensor, voxel_angstrom: float, count: int, threshold: float = 0.25
) -> Cloud:
    """Return points that stand for the density around them (weighted k-means).

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
    voxel_angstrom : float
    count : int
        Of points; fewer where fewer voxels are above the threshold.
    threshold : float
        Of the map's 99.9th percentile; what lies below is left out.

    Returns
    -------
    Cloud
        Of mass 1 a voxel at the 99.9th percentile. Empty where nothing is above zero.
    """
    density = density.double()
    high = float(
        density.flatten().kthvalue(max(1, int(0.999 * density.numel()))).values
    )
    weight = (density / max(high, 1e-30) - threshold).clamp(min=0.0) * (high > 0)
    index = torch.nonzero(weight)
    mass = weight[tuple(index.T)]
    point = (index.flip(1) - len(density) // 2).double() * voxel_angstrom
    if len(point) <= count:
        return Cloud(point, mass)
    generator = torch.Generator().manual_seed(0)
    centre = point[torch.multinomial(mass, count, generator=generator)]
    for _ in range(8):
        nearest = torch.cdist(point, centre).argmin(1)
        total = mass.new_zeros(count).index_add_(0, nearest, mass)
        summed = point.new_zeros(count, 3).index_add_(0, nearest, mass[:, None] * point)
        centre = torch.where(
            (total > 0)[:, None], summed / total.clamp(min=_LEAST)[:, None], centre
        )
    return Cloud(centre[total > 0], total[total > 0])


def sinkhorn_plan(
    cost: Tensor,
    first: Tensor,
    second: Tensor,
    blur: float,
    reach: float | None,
    rounds: int,
) -> Tensor:
    """Return a plan of entropic transport.

    It minimises ``<plan, cost> + blur KL(plan | first second)``; balanced, its sums
    are the masses. With a reach it pays ``reach KL(sums | masses)`` instead.

    Parameters
    ----------
    cost : Tensor of float64, shape (..., n, m)
    first, second : Tensor, shape (n,) and (m,)
        Masses.
    blur : float
        In units of the cost; above a seven-hundredth of the largest, which
        the exponential of float64 still holds.
    reach : float or None
        In units of the cost; None for balanced transport.
    rounds : int
        Scalings of both sides.

    Returns
    -------
    Tensor, shape (..., n, m)
    """
    power = 1.0 if reach is None else reach / (reach + blur)
    kernel = torch.exp(-cost / blur)
    right = torch.ones_like(cost[..., 0, :])
    left = torch.ones_like(cost[..., :, 0])
    for _ in range(rounds):
        seen = (kernel @ (second * right)[..., None])[..., 0]
        left = seen.clamp(min=_LEAST) ** -power
        seen = ((first * left)[..., None, :] @ kernel)[..., 0, :]
        right = seen.clamp(min=_LEAST) ** -power
    return (first * left)[..., None] * kernel * (second * right)[..., None, :]


def rigid_motion(plan: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotation and shift that bring the first points nearest to the second.

    ``sum plan |second - (R first + d)|^2`` is least (Kabsch 1976, Acta
    Crystallographica A 32, 922-923).

    Parameters
    ----------
    plan : Tensor, shape (..., n, m)
    first, second : Tensor, shape (n, 3) and (m, 3)

    Returns
    -------
    rotation : Tensor, shape (..., 3, 3)
    shift : Tensor, shape (..., 3)
    """
    total = plan.sum((-2, -1)).clamp(min=_LEAST)[..., None]
    start = plan.sum(-1) @ first / total
    end = plan.sum(-2) @ second / total
    moment = torch.einsum("...ij,jk,il->...kl", plan, second, first)
    moment = moment / total[..., None] - end[..., :, None] * start[..., None, :]
    rotation = nearest_rotation(moment)
    return rotation, end - (rotation @ start[..., None])[..., 0]


def wavelet_coefficients(density: Tensor, levels: int) -> Tensor:
    """Return wavelet coefficients whose L1 distance approximates that of transport.

    Daubechies' wavelets of four taps, periodic; those of scale j weigh
    ``2^(-j (1 + 3 / 2))``.

    Parameters
    ----------
    density : Tensor, shape (..., n, n, n)
        Of equal sums, n divisible by ``2**levels``.
    levels : int

    Returns
    -------
    Tensor, shape (..., n**3)
    """
    parts = []
    rest = density
    for _ in range(levels):
        box = rest.shape[-1]
        matrix = _wavelet_step(box).to(rest)
        rest = torch.einsum("...zyx,cz,by,ax->...cba", rest, matrix, matrix, matrix)
        half = box // 2
        weight = 2.0 ** (-2.5 * math.log2(half))
        detail = rest.clone()
        detail[..., :half, :half, :half] = 0
        parts.append(weight * detail.flatten(-3))
        rest = rest[..., :half, :half, :half]
    parts.append(2.0 ** (-2.5 * math.log2(rest.shape[-1])) * rest.flatten(-3))
    return torch.cat(parts, -1)


def _wavelet_step(box: int) -> Tensor:
    """Return the orthogonal matrix of one level: averages above, details below."""
    matrix = torch.zeros(box, box)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
    for row in range(box // 2):
        column = (2 * row + torch.arange(4)) % box
        matrix[row].index_add_(0, column, _SCALING)
        matrix[box // 2 + row].index_add_(0, column, signs * _SCALING.flip(0))
    return matrix
