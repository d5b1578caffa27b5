"""What posteriors say of each amplitude of a motion, whatever the pose."""

import torch
from torch import Tensor

from cryoinfer.inference.particle_posterior import ParticlePosterior

_FARTHEST_SD, _HALVINGS = 9.0, 30  # of quantiles: beyond 1e-18
_LEAST_SD = 1e-12  # of an amplitude that was held


def amplitude_moments(posterior: ParticlePosterior) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each amplitude, (n, c) both."""
    weight, place, sd = _amplitudes(posterior)
    mean = (weight * place).sum(1)
    square = (weight * (sd.square() + (place - mean[:, None]).square())).sum(1)
    return mean, square.sqrt()


def amplitude_quantile(posterior: ParticlePosterior, level: float) -> Tensor:
    """Return what each amplitude is below with a probability, shape (n, c).

    By halving an interval that holds it, to 1e-9 of its width.

    Parameters
    ----------
    posterior : ParticlePosterior
    level : float
        Between 0 and 1, ends excluded.
    """
    weight, place, sd = _amplitudes(posterior)
    low = (place - _FARTHEST_SD * sd).amin(1)
    high = (place + _FARTHEST_SD * sd).amax(1)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        away = (middle[:, None] - place) / sd
        below = (weight * torch.special.ndtr(away)).sum(1) < level
        low = torch.where(below, middle, low)
        high = torch.where(below, high, middle)
    return (low + high) / 2


def _amplitudes(posterior: ParticlePosterior) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight (n, p, 1), place and sd (n, p, c) of parts, background last."""
    variance = posterior.covariances.diagonal(dim1=-2, dim2=-1)[..., 6:]
    n, _, c = variance.shape
    wide = posterior.prior_variance[3:].expand(n, 1, c)
    weight = torch.cat([posterior.weight, posterior.background[:, None]], 1)
    place = torch.cat([posterior.modes.conformation, torch.zeros_like(wide)], 1)
    # The background of a mixture without one has no weight and any width.
    sd = torch.cat([variance, wide], 1).sqrt()
    return weight[..., None], place, sd.clamp(min=_LEAST_SD)
