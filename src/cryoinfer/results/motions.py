"""What is known of the motion of every particle."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryoinfer.inference.amplitudes import amplitude_moments, amplitude_quantile
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.records import Indexable, Latents, Pose

_TAIL = 0.05  # on either side of an interval


@dataclass(frozen=True)
class Motions(Indexable):
    """What was found about n particles; rows of those not inferred are NaN.

    Attributes
    ----------
    rotation : Tensor of float64, shape (n, 3, 3)
    shift_angstrom : Tensor of float64, shape (n, 2)
    defocus_offset_angstrom : Tensor of float64, shape (n,)
        Of the most probable mode.
    conformation : Tensor of float64, shape (n, c)
        Of the most probable mode, in angstrom.
    mean, sd, low, high : Tensor of float64, shape (n, c)
        Of the amplitudes' posterior: mean, spread, and the ends of its middle 90 %.
    covariance : Tensor of float64, shape (n, 6 + c, 6 + c)
        Of the most probable mode.
    weight : Tensor of float64, shape (n,)
        Of that mode.
    log_likelihood, entropy_nats : Tensor of float64, shape (n,)
    """

    rotation: Tensor
    shift_angstrom: Tensor
    defocus_offset_angstrom: Tensor
    conformation: Tensor
    mean: Tensor
    sd: Tensor
    low: Tensor
    high: Tensor
    covariance: Tensor
    weight: Tensor
    log_likelihood: Tensor
    entropy_nats: Tensor

    @classmethod
    def blank(cls, n: int, modes: int) -> Self:
        """Return those of particles of which nothing is known."""

        def nothing(*shape: int) -> Tensor:
            return torch.full((n, *shape), torch.nan, dtype=torch.float64)

        c, d = modes, 6 + modes
        return cls(
            nothing(3, 3),
            nothing(2),
            nothing(),
            nothing(c),
            nothing(c),
            nothing(c),
            nothing(c),
            nothing(c),
            nothing(d, d),
            nothing(),
            nothing(),
            nothing(),
        )

    @classmethod
    def of(cls, posterior: ParticlePosterior, log_likelihood: Tensor) -> Self:
        """Return what is kept of posteriors."""
        mode = posterior.mode()
        mean, sd = amplitude_moments(posterior)
        return cls(
            mode.pose.rotation,
            mode.pose.shift_angstrom,
            mode.defocus_offset_angstrom,
            mode.conformation,
            mean,
            sd,
            amplitude_quantile(posterior, _TAIL),
            amplitude_quantile(posterior, 1 - _TAIL),
            posterior.covariance[:, 0],
            posterior.weight[:, 0],
            log_likelihood,
            posterior.entropy(),
        )

    def among(self, used: Tensor) -> Self:
        """Return these beside blank rows of particles that were rejected.

        Parameters
        ----------
        used : Tensor of bool, shape (n,)
            Whose they are, in order.
        """
        whole = self.blank(len(used), self.mean.shape[1])
        return whole.with_rows(torch.nonzero(used).squeeze(1), self)

    @property
    def latents(self) -> Latents:
        """The most probable modes."""
        pose = Pose(self.rotation, self.shift_angstrom)
        return Latents(pose, self.defocus_offset_angstrom, self.conformation)

    @property
    def known(self) -> Tensor:
        """Which particles were inferred, shape (n,)."""
        return ~self.weight.isnan()
