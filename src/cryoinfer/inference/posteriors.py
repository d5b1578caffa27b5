"""The posterior of search and encoder alike: a mixture of Gaussians about modes."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import (
    random_rotations,
    rotate_in_image_frame,
    rotation_vector,
)
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.records import Latents, Pose

LOG_VOLUME_OF_ROTATIONS = math.log(8 * math.pi**2)
"""Of all rotations, in cubic radians about any one of them."""


def log_exponential_volume(angle: Tensor) -> Tensor:
    """Return the log of how the exponential map scales volumes at an angle.

    ``2 (1 - cos angle) / angle^2``, 1 at zero and 4 / pi^2 at half a turn: a density of
    rotation vectors divided by it is one of rotations (Chirikjian, Stochastic Models,
    Information Theory, and Lie Groups 2, 2012, section 10.3).

    Parameters
    ----------
    angle : Tensor
        Radians, 0 to pi.
    """
    return 2 * torch.sinc(angle / (2 * math.pi)).log()


@dataclass(frozen=True)
class PoseMixture:
    """Gaussians about several modes of n particles, over a background.

    A :class:`cryoinfer.interfaces.Posterior`. About each mode, (rotation vector in the
    image frame in radian, shift in angstrom, defocus in angstrom) is Gaussian; the
    background knows nothing of the rotation, and of the rest only the prior. The
    density is per volume of rotations (radian cubed, 8 pi^2 in all) times shift times
    defocus, over the unknowns that were inferred. It integrates to one but for the
    Gaussians' tails beyond half a turn: 5e-6 at a sd of 0.6 radian.

    Attributes
    ----------
    rotation : Tensor of float64, shape (n, m, 3, 3)
        Best mode first.
    shift_angstrom : Tensor of float64, shape (n, m, 2)
    defocus_offset_angstrom : Tensor of float64, shape (n, m)
    weight : Tensor of float64, shape (n, m)
    covariance : Tensor of float64, shape (n, m, 6, 6)
        Zero rows and columns for unknowns that were held.
    background : Tensor of float64, shape (n,)
        Weight of the background; 1 with those of the modes.
    prior_variance : Tensor of float64, shape (3,)
        Of shift x, shift y (angstrom squared) and defocus in the background.
    """

    rotation: Tensor
    shift_angstrom: Tensor
    defocus_offset_angstrom: Tensor
    weight: Tensor
    covariance: Tensor
    background: Tensor
    prior_variance: Tensor

    @classmethod
    def of_modes(
        cls,
        rotation: Tensor,
        shift_angstrom: Tensor,
        defocus_offset_angstrom: Tensor,
        weight: Tensor,
        covariance: Tensor,
    ) -> Self:
        """Return the mixture without a background."""
        return cls(
            rotation,
            shift_angstrom,
            defocus_offset_angstrom,
            weight,
            covariance,
            torch.zeros(len(weight), dtype=torch.float64),
            torch.ones(3, dtype=torch.float64),
        )

    def folded(self, symmetry: Tensor) -> Self:
        """Return every mode at its mate nearest to the first.

        Parameters
        ----------
        symmetry : Tensor, shape (m, 3, 3)
            Rotations that leave the map as it is, the identity among them.
        """
        first = self.rotation[:, :1].expand_as(self.rotation)
        return replace(self, rotation=nearest_mates(self.rotation, first, symmetry))

    def __len__(self) -> int:
        return self.weight.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Self:
        return type(self)(
            self.rotation[index],
            self.shift_angstrom[index],
            self.defocus_offset_angstrom[index],
            self.weight[index],
            self.covariance[index],
            self.background[index],
            self.prior_variance,
        )

    def mode(self) -> Latents:
        """Return the most probable mode of each particle, length n."""
        return Latents(
            Pose(self.rotation[:, 0], self.shift_angstrom[:, 0]),
            self.defocus_offset_angstrom[:, 0],
        )

    def sample(self, count: int, generator: torch.Generator) -> Latents:
        """Draw latents, leading dimensions (count, n)."""
        n, modes = self.weight.shape
        parts = torch.cat([self.weight, self.background[:, None]], 1)
        chosen = torch.multinomial(
            parts, count, replacement=True, generator=generator
        ).T
        astray = chosen == modes
        chosen = chosen.clamp(max=modes - 1)
        rows = torch.arange(n).expand(count, n)
        # The square root of a covariance may be singular where unknowns are held.
        values, vectors = torch.linalg.eigh(self.covariance)
        root = vectors * values.clamp(min=0).sqrt()[..., None, :]
        normal = torch.randn(count, n, 6, generator=generator, dtype=torch.float64)
        step = (root[rows, chosen] @ normal[..., None])[..., 0]
        rotation = rotate_in_image_frame(self.rotation[rows, chosen], step[..., :3])
        shift = self.shift_angstrom[rows, chosen] + step[..., 3:5]
        offset = self.defocus_offset_angstrom[rows, chosen] + step[..., 5]
        if bool(astray.any()):
            wide = (
                normal[..., 3:] * (self._free()[:, 0, 3:] * self.prior_variance).sqrt()
            )
            rotation[astray] = random_rotations(int(astray.sum()), generator)
            shift[astray] = wide[astray][:, :2]
            offset[astray] = wide[astray][:, 2]
        return Latents(Pose(rotation, shift), offset)

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
        gaussian = self.weight.log() - 0.5 * square - constant
        near = gaussian - log_exponential_volume(turn.norm(dim=-1))
        far = self.background.log() + self._log_background(latents)
        return torch.logsumexp(torch.cat([near, far[..., None]], -1), dim=-1)

    def _log_background(self, latents: Latents) -> Tensor:
        """Return the log density of the background, shape (..., n)."""
        offset = latents.defocus_offset_angstrom[..., None]
        step = torch.cat([latents.pose.shift_angstrom, offset], dim=-1)
        spread = 2 * math.pi * self.prior_variance
        terms = -0.5 * (step.square() / self.prior_variance + spread.log())
        return (terms * self._free()[:, 0, 3:]).sum(-1) - LOG_VOLUME_OF_ROTATIONS

    def credible_level(
        self, latents: Latents, count: int, generator: torch.Generator
    ) -> Tensor:
        """Return the mass of the smallest credible set that holds given latents.

        Estimated from ``count`` draws: the share of them that are likelier.

        Parameters
        ----------
        latents : Latents
            Of n particles.
        count : int
        generator : torch.Generator

        Returns
        -------
        Tensor of float64, shape (n,)
        """
        drawn = self.log_prob(self.sample(count, generator))
        return (drawn > self.log_prob(latents)).double().mean(0)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape (n,), of parts that do not overlap.

        Where they do, it is an upper bound; that turns fill less volume than their
        vectors is left out, 0.1 nat at a sd of 0.6 radian.
        """
        _, log_volume, free = self._precision()
        gaussian = 0.5 * (free.sum(-1) * math.log(2 * math.pi * math.e) + log_volume)
        discrete = -torch.xlogy(self.weight, self.weight)
        spread = (2 * math.pi * math.e * self.prior_variance).log()
        wide = 0.5 * (self._free()[:, 0, 3:] * spread).sum(-1) + LOG_VOLUME_OF_ROTATIONS
        apart = self.background * wide - torch.xlogy(self.background, self.background)
        return (self.weight * gaussian + discrete).sum(-1) + apart

    def _free(self) -> Tensor:
        """Tell which unknowns were inferred, shape (n, m, 6)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1) > 0

    def _precision(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return inverse covariances, their log determinants, and what is free."""
        free = self._free()
        filled = self.covariance + torch.diag_embed((~free).double())
        inverse = torch.linalg.inv(filled) * (free[..., None] & free[..., None, :])
        return inverse, torch.linalg.slogdet(filled).logabsdet, free
