"""The M-step of a curved field of maps: one volume for each polynomial of z."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.inference.field_projector import FieldProjector
from cryoinfer.inference.hermite import HermiteFeatures
from cryoinfer.reconstruction.coupled import CoupledSums
from cryoinfer.results.field import Field
from cryoinfer.workflows.particle_pass import InferredBatch
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.structure_update import padding_at
from cryoinfer.workflows.subspace_update import insert_shares, solve_masked


@dataclass(frozen=True)
class FieldSums:
    """Sums of both half-sets; an :class:`Accumulator`.

    Attributes
    ----------
    features : HermiteFeatures
    first, second : CoupledSums
        Of one map for each polynomial.
    moments : Tensor of float64, shape (1 + q, 1 + q)
        Sum over particles of the second moments of (1, z).
    """

    features: HermiteFeatures
    first: CoupledSums
    second: CoupledSums
    moments: Tensor

    @classmethod
    def empty(cls, features: HermiteFeatures, box: int, radius: int) -> Self:
        """Return the sums of no particle."""
        first, second = (
            CoupledSums.empty(len(features), box, radius, padding_at(radius))
            for _ in range(2)
        )
        size = 1 + features.dims
        moments = torch.zeros(size, size, dtype=torch.float64)
        return cls(features, first, second, moments)

    def add(self, one: InferredBatch[Any]) -> None:
        """Insert images at their best modes."""
        at, spread = one.placed.mode(), one.placed.covariances[:, 0, 6:, 6:]
        mean, second = self.features.moments(at.conformation, spread)
        sums = self.second if one.half else self.first
        insert_shares(sums, one.images, at, mean, second)
        z = torch.cat([mean.new_ones(len(mean), 1), at.conformation], 1)
        of_z = z[:, :, None] * z[:, None]
        of_z[:, 1:, 1:] += spread
        self.moments.add_(of_z.sum(0))

    @property
    def tensors(self) -> list[Tensor]:
        """The sums."""
        return [*self.first.tensors, *self.second.tensors, self.moments]


def field_projector(field: Field, radius: int) -> FieldProjector:
    """Return the forward model of a field, to a Fourier radius."""
    return FieldProjector.of_maps(
        list(field.maps), field.features, radius, padding_at(radius)
    )


def solve_field(problem: Problem, sums: FieldSums, mask: Tensor) -> Field:
    """Return the field of least squares with a Wiener filter, masked.

    Parameters
    ----------
    problem : Problem
    sums : FieldSums
    mask : Tensor, shape (m, m, m)
    """
    solved = solve_masked(problem, (sums.first, sums.second), mask, None)
    # z is made one of unit spread again, as in `solve_subspace`: the polynomials of
    # what it turned out to be are those of the new z, mixed.
    n = sums.moments[0, 0]
    mean = sums.moments[0, 1:] / n
    spread = sums.moments[1:, 1:] / n - mean[:, None] * mean
    field = Field(sums.features, solved.maps, solved.halves, solved.fsc)
    return field.moved(mean, torch.linalg.cholesky(spread))
