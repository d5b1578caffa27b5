"""What was found of discrete classes: maps, and the class of every particle."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.records import Latents
from cryoinfer.results.run_result import Reconstruction


@dataclass(frozen=True)
class ClassGain:
    """How much likelier images are in more classes of the half that they are not in.

    Attributes
    ----------
    classes : tuple of int
        Numbers of classes that were tried, falling, each one less.
    step_nats : tuple of float
        A particle: of each number over one class less.
    step_se_nats : tuple of float
        Standard errors.
    """

    classes: tuple[int, ...]
    step_nats: tuple[float, ...]
    step_se_nats: tuple[float, ...]

    SIGNIFICANT_SE = 3.0
    """Standard errors of a mean gain that count as a gain."""

    @property
    def significant(self) -> int:
        """The largest number of classes that gains over one class less, at least 1."""
        steps = zip(self.classes, self.step_nats, self.step_se_nats, strict=True)
        for classes, step, error in steps:
            if step > self.SIGNIFICANT_SE * error:  # NaN is no gain
                return classes
        return 1


@dataclass(frozen=True)
class Population:
    """Shares of the classes.

    Attributes
    ----------
    share : Tensor of float64, shape (K,)
        They add up to one.
    se : Tensor of float64, shape (K,)
        Standard errors, for the maps as they are.
    """

    share: Tensor
    se: Tensor


@dataclass(frozen=True)
class Classes:
    """K classes, the largest first, and the posterior of every particle over them.

    Attributes
    ----------
    posterior : ParticlePosterior
        Of n particles, the best mode of every class; the conformation is its number,
        from 0.
    probability : Tensor of float64, shape (n, K)
        That a particle is of a class.
    population : Population
    reconstructions : tuple of Reconstruction
        Of each class, from particles weighed by their probability.
    random_subset : Tensor of int64, shape (n,)
        Half-set, 1 or 2.
    gain : ClassGain
    """

    posterior: ParticlePosterior
    probability: Tensor
    population: Population
    reconstructions: tuple[Reconstruction, ...]
    random_subset: Tensor
    gain: ClassGain

    @property
    def count(self) -> int:
        """Number of classes, at least 1."""
        return len(self.reconstructions)

    @property
    def class_number(self) -> Tensor:
        """The likeliest class of every particle, from 1, int64, shape (n,)."""
        return self.probability.argmax(1) + 1

    def poses(self) -> Latents:
        """Return the best mode of every particle, length n."""
        return self.posterior.mode()


def maximum_populations(log_evidence: Tensor) -> Population:
    """Return the shares of classes that make particles likeliest.

    The likelihood is concave in the shares: expectation maximisation climbs to its one
    top. Errors are those of the observed information about the shares (Louis, J. R.
    Stat. Soc. B 44, 226, 1982), that a particle's class is not known for sure included.

    Parameters
    ----------
    log_evidence : Tensor of float64, shape (n, K)
        Of every particle in every class, up to a constant of the particle.
    """
    n, classes = log_evidence.shape
    share = log_evidence.new_full((classes,), 1 / classes)
    for _ in range(_MOST_STEPS):
        after = responsibilities(log_evidence, share).mean(0).clamp(min=_LEAST_SHARE)
        after = after / after.sum()
        moved = float((after - share).abs().max())
        share = after
        if moved < _SETTLED / n:
            break
    return Population(share, _share_errors(log_evidence, share))


_MOST_STEPS = 500
_SETTLED = 1e-3
"""Of a particle, that a share moves by when it is at the top."""

_LEAST_SHARE = 1e-9


def _share_errors(log_evidence: Tensor, share: Tensor) -> Tensor:
    """Return standard errors of shares at the top of the likelihood, (K,)."""
    classes = len(share)
    if classes == 1:
        return torch.zeros_like(share)
    slope = responsibilities(log_evidence, share) / share
    # Shares add up to one: all but the last are free.
    free = torch.eye(classes, dtype=slope.dtype)[:, :-1]
    free = free - torch.eye(classes, dtype=slope.dtype)[:, -1:]
    along = slope @ free
    information = along.mT @ along
    covariance = free @ torch.linalg.pinv(information, hermitian=True) @ free.mT
    return covariance.diagonal().clamp(min=0).sqrt()


def responsibilities(log_evidence: Tensor, share: Tensor) -> Tensor:
    """Return the probability of every class of every particle, (n, K).

    Parameters
    ----------
    log_evidence : Tensor of float64, shape (n, K)
    share : Tensor of float64, shape (K,)
    """
    return (log_evidence + share.log()).softmax(1)
