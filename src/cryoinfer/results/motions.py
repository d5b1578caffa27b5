"""What is known of the motion of every particle."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.inference.amplitudes import amplitude_moments, amplitude_quantile
from cryoinfer.inference.particle_posterior import ParticlePosterior

_TAIL = 0.05  # on either side of an interval


@dataclass(frozen=True)
class Motions:
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
    def blank(cls, n: int, modes: int) -> "Motions":
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

    def put(
        self, index: Tensor, posterior: ParticlePosterior, log_likelihood: Tensor
    ) -> None:
        """Enter the posteriors of some particles."""
        mode = posterior.mode()
        self.rotation[index] = mode.pose.rotation
        self.shift_angstrom[index] = mode.pose.shift_angstrom
        self.defocus_offset_angstrom[index] = mode.defocus_offset_angstrom
        self.conformation[index] = mode.conformation
        self.mean[index], self.sd[index] = amplitude_moments(posterior)
        self.low[index] = amplitude_quantile(posterior, _TAIL)
        self.high[index] = amplitude_quantile(posterior, 1 - _TAIL)
        self.covariance[index] = posterior.covariance[:, 0]
        self.weight[index] = posterior.weight[:, 0]
        self.log_likelihood[index] = log_likelihood
        self.entropy_nats[index] = posterior.entropy()

    def among(self, used: Tensor) -> "Motions":
        """Return these beside blank rows of particles that were left out.

        Parameters
        ----------
        used : Tensor of bool, shape (n,)
            Whose they are, in order.
        """
        whole = Motions.blank(len(used), self.mean.shape[1])
        for name, values in vars(self).items():
            getattr(whole, name)[used] = values
        return whole

    @property
    def known(self) -> Tensor:
        """Which particles were inferred, shape (n,)."""
        return ~self.weight.isnan()
