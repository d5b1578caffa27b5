"""Posteriors of several origins in one: of two proposals, or of several structures."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Latents


def mixture_of(parts: Sequence[ParticlePosterior], share: Tensor) -> ParticlePosterior:
    """Return the modes of several posteriors of the same particles as those of one.

    Parameters
    ----------
    parts : sequence of ParticlePosterior
        k of n particles each; those that have a background are of one prior.
    share : Tensor of float64, shape (n, k)
        Of each; those of a particle add up to one.

    Returns
    -------
    ParticlePosterior
        The likeliest modes first; the likelihood is that of the part of the first.
    """
    weight = torch.cat(
        [one.weight * share[:, k, None] for k, one in enumerate(parts)], 1
    )
    background = torch.stack([one.background for one in parts], 1)
    # Where there is no background, its width means nothing.
    widest = parts[int(background.amax(0).argmax())]
    likelihood = torch.stack([one.log_likelihood for one in parts], 1)
    whole = ParticlePosterior(
        Latents.joined([one.modes.transposed() for one in parts]).transposed(),
        weight,
        torch.cat([one.covariances for one in parts], 1),
        likelihood[:, 0],
        (background * share).sum(1),
        widest.prior_variance,
    )
    order = weight.argsort(dim=1, descending=True, stable=True)
    of_part = torch.arange(len(parts)).repeat_interleave(
        torch.tensor([one.weight.shape[1] for one in parts])
    )
    ordered = whole.in_order(order)
    of_part = of_part.to(order.device)
    first = likelihood.gather(1, of_part[order[:, :1]])[:, 0]
    return ParticlePosterior(
        ordered.modes,
        ordered.weight,
        ordered.covariance,
        first,
        ordered.background,
        ordered.prior_variance,
    )


def log_evidence(posterior: ParticlePosterior, prior: PosePrior) -> Tensor:
    """Return how likely a structure makes the images of n particles, (n,).

    Laplace's approximation, summed over the modes, up to a constant of the image and
    the unknowns that were inferred.

    Parameters
    ----------
    posterior : ParticlePosterior
        By Laplace's approximation, from a search or a refinement with the structure.
    prior : PosePrior
    """
    covariance = posterior.covariance[:, 0]
    held = covariance.diagonal(dim1=1, dim2=2) <= 0
    filled = covariance + torch.diag_embed(held.double())
    log_volume = 0.5 * torch.linalg.slogdet(filled).logabsdet
    density = prior.log_density(posterior.mode())
    best = posterior.log_likelihood + density + log_volume
    return best - posterior.weight[:, 0].log()
