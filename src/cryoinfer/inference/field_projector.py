"""A curved field of maps as a forward model: maps that are polynomials of a latent z.

``V(z) = sum_r f_r(z) U_r`` with the Hermite polynomials f of z and one volume for each
(:mod:`cryoinfer.inference.hermite`). In the coordinates f it is a linear subspace, so
that slices, likelihood and derivatives are those of a subspace, followed by the chain
rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.fourier.slices import DEFAULT_PADDING
from cryoinfer.inference.hermite import HermiteFeatures
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents

_RIGID = 6
"""Unknowns before those of the conformation."""


@dataclass(frozen=True)
class FieldProjector:
    """Projections of ``sum_r f_r(z) U_r``.

    A :class:`cryoinfer.inference.projector.Projector`; z is the conformation of a
    particle.

    Attributes
    ----------
    subspace : SubspaceProjector
        Its mean is the volume of ``f_0 = 1``, its components those of the others.
    features : HermiteFeatures
    """

    subspace: SubspaceProjector
    features: HermiteFeatures

    @classmethod
    def of_maps(
        cls,
        maps: Sequence[Tensor],
        features: HermiteFeatures,
        radius: int,
        padding: float = DEFAULT_PADDING,
    ) -> Self:
        """Return the forward model of one map for each polynomial, to a radius."""
        return cls(SubspaceProjector.of_maps(maps, radius, padding), features)

    @property
    def radius(self) -> int:
        """Largest Fourier radius of the maps."""
        return self.subspace.radius

    @property
    def dims(self) -> int:
        """Number of dimensions of z."""
        return self.features.dims

    def at(self, conformation: Tensor) -> MapProjector:
        """Return the map of one conformation (q,) as a forward model."""
        return self.subspace.at(self.features.values(conformation.double())[1:])

    def lifted(self, latents: Latents) -> Latents:
        """Return the same latents with the coordinates f in the place of z."""
        shares = self.features.values(latents.conformation.double())
        return replace(latents, conformation=shares[..., 1:])

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return the slices of each particle's own map."""
        return self.subspace.coefficients(self.lifted(latents), images)

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Return minus the squared residual of each whitened image, float64, (n,)."""
        return self.subspace.log_likelihood(images, self.lifted(latents))

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> NormalEquations:
        """Return the likelihood and its derivatives at latents of n images."""
        free = (1.0,) * (len(self.features) - 1)
        held = replace(prior, conformation_sd_angstrom=free)
        found = self.subspace.normal_equations(images, self.lifted(latents), held)
        slopes = self.features.slopes(latents.conformation.double())[:, 1:]
        free_z = (prior.precision[_RIGID:] >= 0).to(slopes)
        n, q = len(slopes), self.dims
        chain = slopes.new_zeros(n, found.gradient.shape[1], _RIGID + q)
        chain[:, :_RIGID, :_RIGID] = torch.eye(_RIGID).to(slopes)
        chain[:, _RIGID:, _RIGID:] = slopes * free_z
        return NormalEquations(
            found.log_likelihood,
            (found.gradient[:, None] @ chain)[:, 0],
            chain.mT @ found.information @ chain,
        )
