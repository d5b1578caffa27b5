"""Gaussian posteriors by stochastic variational inference, for any log joint density.

A Gaussian of full covariance, the guide q, is fitted to p(unknowns | image) from a
differentiable ``log p(image, unknowns)`` alone: gradient ascent on a lower bound of the
log evidence, with samples that are functions of the guide (Kingma and Welling,
arXiv:1312.6114, 2013). Many are fitted side by side. A guide has one mode: start it in
the one that is wanted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LogJoint = Callable[[Tensor], Tensor]
"""From unknowns (k, n, d) to ``log p(image, unknowns)``, shape (k, n), in nats.

Likelihoods are summed over an image's pixels here, once, and prior densities added.
"""


@dataclass(frozen=True)
class VariationalConfig:
    """How guides are fitted.

    Attributes
    ----------
    steps : int
    samples : int
        Of every guide in each step.
    learning_rate : float
        The first, in standard deviations of a guide's start; it falls to zero as a
        cosine.
    importance : bool
        Whether the importance-weighted bound is raised, see :func:`bound`. It hardly
        minds a guide that is too wide, and takes many more steps to make it narrower.
    """

    steps: int = 40
    samples: int = 4
    learning_rate: float = 0.1
    importance: bool = False


@dataclass(frozen=True)
class GaussianGuide:
    """Gaussian approximations of n posteriors of d unknowns each.

    Attributes
    ----------
    mean : Tensor, shape (n, d)
        In the units of the unknowns.
    factor : Tensor, shape (n, d, d)
        Lower triangle L of the covariance L L^T, with a positive diagonal.
    """

    mean: Tensor
    factor: Tensor

    @property
    def standard_deviation(self) -> Tensor:
        """Of each unknown by itself, shape (n, d)."""
        return self.factor.norm(dim=-1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw unknowns, shape (count, n, d), differentiable in mean and factor.

        At the same standard deviations of all n, so that none depends on the others.
        """
        normal = self.mean.new_empty(count, 1, self.mean.shape[-1])
        normal.normal_(generator=generator)
        return self.mean + (self.factor @ normal[..., None])[..., 0]

    def log_prob(self, unknowns: Tensor) -> Tensor:
        """Return the log density of unknowns (k, n, d), shape (k, n), in nats."""
        away = (unknowns - self.mean)[..., None]
        white = torch.linalg.solve_triangular(self.factor, away, upper=False)[..., 0]
        log_volume = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * self.mean.shape[-1] * math.log(2 * math.pi)
        return -0.5 * white.square().sum(-1) - log_volume - constant


def bound(
    log_joint: LogJoint,
    guide: GaussianGuide,
    count: int,
    generator: torch.Generator,
    importance: bool,
) -> Tensor:
    """Estimate a lower bound of the log evidence of every image, (n,), in nats.

    With the weights ``w_i = p(image, x_i) / q(x_i)`` of samples x_i of the guide, it is
    the mean of ``log w_i``, or, with ``importance``, the log of the mean of ``w_i``
    (Burda et al., arXiv:1509.00519, 2015, equation 8). The expectation of the former
    falls short of the evidence by the divergence KL(q || posterior); that of the
    latter rises with ``count`` from there to the evidence.

    Parameters
    ----------
    log_joint : LogJoint
    guide : GaussianGuide
        Of n posteriors; the bound is differentiable in it.
    count : int
        Samples of each guide. Both bounds are the same if it is 1.
    generator : torch.Generator
    importance : bool
        Whether to return the importance-weighted bound.

    Raises
    ------
    ValueError
        If ``log_joint`` does not return (count, n) numbers.
    """
    unknowns = guide.sample(count, generator)
    return _combined(_log_weight(log_joint, guide, unknowns), importance)


def fit_guides(
    log_joint: LogJoint,
    start: GaussianGuide,
    config: VariationalConfig,
    generator: torch.Generator,
) -> GaussianGuide:
    """Fit a guide to each of n posteriors, independently.

    Parameters
    ----------
    log_joint : LogJoint
        Differentiable wherever samples may fall.
    start : GaussianGuide
        Its widths are best within a factor of a few of those of the posteriors.
    config : VariationalConfig
    generator : torch.Generator

    Raises
    ------
    ValueError
        If a bound is not finite, or ``log_joint`` returns the wrong shape.
    """
    mean, factor = start.mean.detach(), start.factor.detach()
    step, free = (torch.zeros_like(x, requires_grad=True) for x in (mean, factor))

    def guide() -> GaussianGuide:
        # Relative to the start, so that one rate suits unknowns of all units.
        scale = free.tril(-1) + torch.diag_embed(free.diagonal(dim1=-2, dim2=-1).exp())
        return GaussianGuide(mean + (factor @ step[..., None])[..., 0], factor @ scale)

    adam = torch.optim.Adam([step, free], lr=config.learning_rate)
    # A falling rate averages the noise of the last gradients out of the answer.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, config.steps)
    for number in range(config.steps):
        adam.zero_grad()
        values = _steady_bound(log_joint, guide(), config, generator)
        if not bool(values.isfinite().all()):
            found = f"bound not finite at step {number}"
            raise ValueError(f"{found}: start elsewhere, or lower the rate")
        values.sum().neg().backward()
        adam.step()
        schedule.step()
    with torch.no_grad():
        return guide()


def _log_weight(log_joint: LogJoint, guide: GaussianGuide, unknowns: Tensor) -> Tensor:
    """Return ``log p(image, unknowns) / q(unknowns)``, shape (k, n)."""
    joint = log_joint(unknowns)
    # Numbers of another shape would broadcast, and count some pixels several times.
    if joint.shape != unknowns.shape[:2]:
        raise ValueError(
            f"expected log_joint to return {tuple(unknowns.shape[:2])} numbers, got "
            f"{tuple(joint.shape)}: sum over the pixels of an image, and no more"
        )
    return joint - guide.log_prob(unknowns)


def _combined(log_weight: Tensor, importance: bool) -> Tensor:
    """Return the bound of weights (k, n), shape (n,)."""
    if importance:
        return torch.logsumexp(log_weight, 0) - math.log(len(log_weight))
    return log_weight.mean(0)


def _steady_bound(
    log_joint: LogJoint,
    guide: GaussianGuide,
    config: VariationalConfig,
    generator: torch.Generator,
) -> Tensor:
    """Return the value of :func:`bound`, with a gradient of less noise.

    It has the same expectation, but goes through the samples alone: none is left where
    the guide is the posterior (Roeder et al., arXiv:1703.09194, 2017). With importance,
    samples then count by their normalised weights squared (Tucker et al.,
    arXiv:1810.04152, 2018); the plain gradient drowns in noise where they are many.
    """
    unknowns = guide.sample(config.samples, generator)
    fixed = GaussianGuide(guide.mean.detach(), guide.factor.detach())
    log_weight = _log_weight(log_joint, fixed, unknowns)
    if config.importance:
        share = log_weight.detach().softmax(0)[..., None]
        unknowns.register_hook(lambda gradient: share * gradient)
    return _combined(log_weight, config.importance)
