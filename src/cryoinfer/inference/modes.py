"""Modes of posteriors, as a local refinement finds them."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Indexable, Latents, Pose


@dataclass(frozen=True)
class PosteriorModes(Indexable):
    """One mode of the posterior of each of n particles, and how sharp it is.

    Attributes
    ----------
    latents : Latents
        In float64.
    information : Tensor of float64, shape (n, 6 + c, 6 + c)
        Inverse covariance of (rotation vector in the image frame in radian, shift,
        defocus and conformation in angstrom); zero where an unknown is held.
    log_likelihood : Tensor of float64, shape (n,)
        Minus the squared residual of the whitened image.
    """

    latents: Latents
    information: Tensor
    log_likelihood: Tensor

    @classmethod
    def unknown(cls, latents: Latents) -> Self:
        """Return latents at which no image has been seen yet."""
        latents = latents.double()
        rotation = latents.pose.rotation
        n, d = len(latents), 3 + latents.offsets_angstrom.shape[-1]
        nothing = rotation.new_full((n,), -torch.inf)
        return cls(latents, rotation.new_zeros(n, d, d), nothing)

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def pose(self) -> Pose:
        """Rotations and shifts."""
        return self.latents.pose

    def covariance(self) -> Tensor:
        """Return the inverse of the information, zero where an unknown is held."""
        return covariance_of(self.information)

    def log_evidence(self, prior: PosePrior) -> Tensor:
        """Return the log integral of each mode's Gaussian, up to one constant, (n,).

        Laplace's approximation.
        """
        held = self.information.diagonal(dim1=1, dim2=2) <= 0
        filled = self.information + torch.diag_embed(held.double())
        log_volume = -0.5 * torch.linalg.slogdet(filled).logabsdet
        return self.log_likelihood + prior.log_density(self.latents) + log_volume


def covariance_of(information: Tensor) -> Tensor:
    """Invert information matrices, shape (..., d, d), whose held unknowns are zero."""
    held = information.diagonal(dim1=-2, dim2=-1) == 0
    inverse = torch.linalg.inv(information + torch.diag_embed(held.double()))
    return inverse * (~held[..., None] & ~held[..., None, :])
