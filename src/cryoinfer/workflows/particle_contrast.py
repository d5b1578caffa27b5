"""The contrast of particles, taken out of posteriors that hold it with z."""

from dataclasses import replace

import torch

from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.results.heterogeneity import Contrast

_LEAST_DIVISOR = 0.2
"""Contrast below which z is not divided by it: there is hardly a particle."""


def without_contrast(
    posterior: ParticlePosterior, spread: float
) -> tuple[ParticlePosterior, Contrast]:
    """Return posteriors of pose and z, and the contrast that they held.

    Parameters
    ----------
    posterior : ParticlePosterior
        Whose conformations are (b, z') with ``c = 1 + spread b`` and ``z' = c z``.
    spread : float

    Returns
    -------
    ParticlePosterior
        Of z, its covariance carried over to first order.
    Contrast
        At the first modes.
    """
    known = posterior.modes.conformation
    c = 1.0 + spread * known[..., 0]
    divisor = c.clamp(min=_LEAST_DIVISOR)[..., None]
    z = known[..., 1:] / divisor
    # d z = (d z' - z s d b) / c
    own = slice(0, posterior.covariance.shape[1])
    width = known.shape[-1]
    slope = known.new_zeros(*c[:, own].shape, 5 + width, 6 + width)
    slope[..., :6, :6] = torch.eye(6)
    slope[..., 6:, 7:] = torch.eye(width - 1) / divisor[:, own, None]
    slope[..., 6:, 6] = -(z * spread / divisor)[:, own]
    variance = posterior.prior_variance
    placed = replace(
        posterior,
        modes=replace(posterior.modes, conformation=z),
        covariance=slope @ posterior.covariance @ slope.mT,
        prior_variance=torch.cat([variance[:3], variance[4:]]),
    )
    sd = posterior.covariance[:, 0, 6, 6].clamp(min=0.0).sqrt() * spread
    return placed, Contrast(spread, c[:, 0], sd)
