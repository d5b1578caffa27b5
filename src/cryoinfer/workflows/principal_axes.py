"""Axes of a conformation z along which maps change independently, the most first."""

from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.inference.particle_posterior import ParticlePosterior


def principal_axes(components: Tensor, z: Tensor) -> Tensor:
    """Return the turn of z that makes components orthogonal, the largest first.

    Parameters
    ----------
    components : Tensor, shape (q, m, m, m)
    z : Tensor of float64, shape (n, q)

    Returns
    -------
    Tensor of float64, shape (q, q)
        z before is the turn times z after.
    """
    flat = components.double().flatten(1)
    axes = torch.linalg.eigh(flat @ flat.T).eigenvectors.flip(1)
    # A sign that does not depend on the machine: the longer tail is positive.
    skew = ((z @ axes) ** 3).mean(0)
    return axes * torch.where(skew < 0, -1.0, 1.0)


def turned_conformations(
    posterior: ParticlePosterior, axes: Tensor
) -> ParticlePosterior:
    """Return posteriors of z in other axes, those of :func:`principal_axes`."""
    whole = torch.eye(6 + len(axes), dtype=torch.float64)
    whole[6:, 6:] = axes
    modes = replace(posterior.modes, conformation=posterior.modes.conformation @ axes)
    covariance = whole.mT @ posterior.covariance @ whole
    return replace(posterior, modes=modes, covariance=covariance)
