"""Hermite polynomials of a conformation z: the coordinates of a curved field of maps.

Products over the dimensions of z of the probabilists' polynomials
``He_k(z) / sqrt(k!)``, up to a total degree. Over a normal z they are orthonormal, and
among them are 1 and z itself (Abramowitz and Stegun, Handbook of Mathematical
Functions, 22.2.15 and 22.7.14).
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


def normal_nodes(dims: int, count: int) -> tuple[Tensor, Tensor]:
    """Return points and weights of a Gauss-Hermite sum over a normal z.

    Exact for polynomials of a degree below twice the count in each dimension.

    Parameters
    ----------
    dims : int
    count : int
        Of points along each dimension.

    Returns
    -------
    points : Tensor of float64, shape (count ** dims, dims)
    weights : Tensor of float64, shape (count ** dims,)
        They sum to one.
    """
    place, weight = np.polynomial.hermite_e.hermegauss(count)
    axis, share = torch.from_numpy(place), torch.from_numpy(weight / weight.sum())
    points = torch.cartesian_prod(*(axis,) * dims).reshape(-1, dims)
    weights = torch.cartesian_prod(*(share,) * dims).reshape(-1, dims).prod(1)
    return points, weights


@dataclass(frozen=True)
class HermiteFeatures:
    """The polynomials of z from degree 0 on; the first is 1, and the next are z.

    Attributes
    ----------
    dims : int
        Of z.
    degree : int
        Largest total degree, at least 1.
    """

    dims: int
    degree: int

    @cached_property
    def powers(self) -> Tensor:
        """Degree along each dimension, int64, shape (f, dims), lowest totals first."""
        each = itertools.product(range(self.degree + 1), repeat=self.dims)
        kept = [one for one in each if sum(one) <= self.degree]
        ordered = sorted(kept, key=lambda one: (sum(one), [-k for k in one]))
        return torch.tensor(ordered)

    def __len__(self) -> int:
        return math.comb(self.dims + self.degree, self.dims)

    def values(self, z: Tensor) -> Tensor:
        """Return the polynomials at z of shape (..., dims): (..., f)."""
        return self._chosen(self._single(z)).prod(-1)

    def slopes(self, z: Tensor) -> Tensor:
        """Return their derivatives by z, shape (..., f, dims)."""
        single = self._single(z)
        order = torch.arange(1, self.degree + 1, dtype=z.dtype)
        steeper = single[..., :-1] * order.sqrt()
        first = torch.zeros_like(single[..., :1])
        slope = self._chosen(torch.cat([first, steeper], -1))
        value = self._chosen(single)
        along = []
        for axis in range(self.dims):
            factors = value.clone()
            factors[..., axis] = slope[..., axis]
            along.append(factors.prod(-1))
        return torch.stack(along, -1)

    def _single(self, z: Tensor) -> Tensor:
        """Return those of one dimension, (..., dims, degree + 1)."""
        found = [torch.ones_like(z), z]
        for k in range(1, self.degree):
            one = (z * found[k] - math.sqrt(k) * found[k - 1]) / math.sqrt(k + 1)
            found.append(one)
        return torch.stack(found, -1)

    def _chosen(self, single: Tensor) -> Tensor:
        """Return the factors of each product, (..., f, dims)."""
        axes = torch.arange(self.dims)
        return single[..., axes, self.powers]

    def moments(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return first and second moments over normal z, exactly.

        Parameters
        ----------
        mean : Tensor of float64, shape (n, dims)
        covariance : Tensor of float64, shape (n, dims, dims)

        Returns
        -------
        first : Tensor of float64, shape (n, f)
        second : Tensor of float64, shape (n, f, f)
        """
        points, weights = normal_nodes(self.dims, self.degree + 1)
        root = torch.linalg.cholesky(covariance)
        values = self.values(mean[:, None] + points @ root.mT)
        weighted = weights[:, None] * values
        return weighted.sum(1), weighted.mT @ values

    def moved(self, mean: Tensor, root: Tensor) -> Tensor:
        """Return what the polynomials at ``mean + root z`` are in those at z.

        Parameters
        ----------
        mean : Tensor of float64, shape (dims,)
        root : Tensor of float64, shape (dims, dims)

        Returns
        -------
        Tensor of float64, shape (f, f)
            ``values(mean + root @ z) == moved(mean, root) @ values(z)``.
        """
        points, weights = normal_nodes(self.dims, self.degree + 1)
        there = self.values(mean + points @ root.mT)
        return there.mT @ (weights[:, None] * self.values(points))
