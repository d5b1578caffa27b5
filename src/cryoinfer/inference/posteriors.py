"""The posterior that a search returns: a mixture of Gaussians about its modes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import rotate_in_image_frame, rotation_vector
from cryoinfer.records import Latents, Pose


@dataclass(frozen=True)
class LaplaceMixture:
    """Gaussians in the tangent spaces of several modes of n particles.

    A :class:`cryoinfer.interfaces.Posterior`. The density is that of (rotation
    vector in the image frame in radian, shift in angstrom, defocus in angstrom)
    about each mode, over the unknowns that were inferred. It is a density on the
    group to first order in the posterior's width, where the exponential map keeps
    volumes.

    Attributes
    ----------
    rotation : Tensor of float64, shape (n, m, 3, 3)
        Best mode first.
    shift_angstrom : Tensor of float64, shape (n, m, 2)
    defocus_offset_angstrom : Tensor of float64, shape (n, m)
    weight : Tensor of float64, shape (n, m)
        Sums to 1 over the modes.
    covariance : Tensor of float64, shape (n, m, 6, 6)
        Zero rows and columns for unknowns that were held.
    """

    rotation: Tensor
    shift_angstrom: Tensor
    defocus_offset_angstrom: Tensor
    weight: Tensor
    covariance: Tensor

    def __len__(self) -> int:
        return self.weight.shape[0]

    def mode(self) -> Latents:
        """Return the most probable mode of each particle, length n."""
        return Latents(
            Pose(self.rotation[:, 0], self.shift_angstrom[:, 0]),
            self.defocus_offset_angstrom[:, 0],
        )

    def sample(self, count: int, generator: torch.Generator) -> Latents:
        """Draw latents, leading dimensions (count, n)."""
        n = len(self)
        chosen = torch.multinomial(
            self.weight, count, replacement=True, generator=generator
        ).T
        rows = torch.arange(n).expand(count, n)
        # The square root of a covariance may be singular where unknowns are held.
        values, vectors = torch.linalg.eigh(self.covariance[rows, chosen])
        normal = torch.randn(count, n, 6, generator=generator, dtype=torch.float64)
        scaled = normal * values.clamp(min=0).sqrt()
        step = (vectors @ scaled[..., None])[..., 0]
        pose = Pose(
            rotate_in_image_frame(self.rotation[rows, chosen], step[..., :3]),
            self.shift_angstrom[rows, chosen] + step[..., 3:5],
        )
        offset = self.defocus_offset_angstrom[rows, chosen] + step[..., 5]
        return Latents(pose, offset)

    def log_prob(self, latents: Latents) -> Tensor:
        """Return the log density, shape (..., n).

        Parameters
        ----------
        latents : Latents
            Leading dimensions (..., n). Unknowns that were held are not looked at.
        """
        rotation = latents.pose.rotation.unsqueeze(-3)
        turn = rotation_vector(rotation @ self.rotation.mT)
        shift = latents.pose.shift_angstrom.unsqueeze(-2) - self.shift_angstrom
        defocus = latents.defocus_offset_angstrom.unsqueeze(-1)
        defocus = defocus - self.defocus_offset_angstrom
        step = torch.cat([turn, shift, defocus[..., None]], dim=-1)
        precision, log_volume, free = self._precision()
        square = torch.einsum("...i,...ij,...j->...", step, precision, step)
        constant = 0.5 * (free.sum(-1) * math.log(2 * math.pi) + log_volume)
        return torch.logsumexp(self.weight.log() - 0.5 * square - constant, dim=-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape (n,), of modes that do not overlap."""
        _, log_volume, free = self._precision()
        gaussian = 0.5 * (free.sum(-1) * math.log(2 * math.pi * math.e) + log_volume)
        discrete = -torch.xlogy(self.weight, self.weight)
        return (self.weight * gaussian + discrete).sum(-1)

    def _precision(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return inverse covariances, their log determinants, and what is free."""
        free = self.covariance.diagonal(dim1=-2, dim2=-1) > 0
        filled = self.covariance + torch.diag_embed((~free).double())
        inverse = torch.linalg.inv(filled) * (free[..., None] & free[..., None, :])
        return inverse, torch.linalg.slogdet(filled).logabsdet, free
