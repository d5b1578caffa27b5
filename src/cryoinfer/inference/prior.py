"""What is believed about a particle before its image is seen."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.geometry.rotation_volume import ALL_TURNS
from cryoinfer.records import Latents


@dataclass(frozen=True)
class PosePrior:
    """Gaussian beliefs about a particle before its image is seen.

    Attributes
    ----------
    shift_sd_angstrom : float
        About the origin; 0 holds the shifts at their start.
    defocus_sd_angstrom : float
        About the given defocus; 0 holds it.
    conformation_sd_angstrom : tuple of float
        Of each amplitude, about the structure at rest.
    rotation_unknowns : int
        How many directions of rotation are unknown: 3 for all, 1 where the view is
        known but for the angle in its plane, 0 where the rotation is.
    """

    shift_sd_angstrom: float
    defocus_sd_angstrom: float
    conformation_sd_angstrom: tuple[float, ...] = ()
    rotation_unknowns: int = ALL_TURNS

    @property
    def rigid(self) -> "PosePrior":
        """The same beliefs about a structure that has no conformations."""
        return replace(self, conformation_sd_angstrom=())

    @property
    def unknowns_sd_angstrom(self) -> Tensor:
        """Of shift x, shift y, defocus and each amplitude, float64, shape (3 + c,)."""
        shift, defocus = self.shift_sd_angstrom, self.defocus_sd_angstrom
        values = [shift, shift, defocus, *self.conformation_sd_angstrom]
        return torch.tensor(values, dtype=torch.float64)

    @property
    def precision(self) -> Tensor:
        """Half the inverse variances of rotation and the rest, shape (6 + c,).

        Those of an unknown that is held are -1, those of a free rotation 0.
        """
        turn = torch.full((3,), -1.0, dtype=torch.float64)
        turn[3 - self.rotation_unknowns :] = 0.0
        sd = self.unknowns_sd_angstrom
        others = torch.where(sd > 0, 0.5 / sd.clamp(min=1e-300) ** 2, -1.0)
        return torch.cat([turn, others])

    @property
    def information(self) -> Tensor:
        """Inverse covariance of the unknowns, shape (6 + c, 6 + c).

        Zero for a free rotation, and where an unknown is held.
        """
        return torch.diag(2 * self.precision.clamp(min=0.0))

    def log_density(self, latents: Latents) -> Tensor:
        """Return the log density of latents, without its constant, (n,)."""
        apart = departure_from_prior(latents)
        return -(apart**2 * self.precision.to(apart).clamp(min=0)).sum(1)

    def gradient(self, latents: Latents) -> Tensor:
        """Return the slope of the log density by the unknowns, (n, 6 + c)."""
        apart = departure_from_prior(latents)
        return -2 * self.precision.to(apart).clamp(min=0) * apart


def departure_from_prior(latents: Latents) -> Tensor:
    """Return how far unknowns are from the prior's centre, float64, (n, 6 + c).

    In angstrom, zero for the rotation.
    """
    others = latents.offsets_angstrom.double()
    return torch.cat([others.new_zeros(len(latents), 3), others], dim=1)
