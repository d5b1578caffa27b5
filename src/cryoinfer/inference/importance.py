"""Posteriors that are no Gaussians: importance sampling, adapted to every image.

Where an image says little, its posterior is skew, has tops beside tops, or reaches far
around a view: no Gaussian at a top is true, whatever its width. Here draws from a
mixture are weighed by the exact posterior, and a mixture is fitted to them by
expectation-maximisation, by which its divergence from the exact posterior falls: what
an encoder learns by, too. That is drawn from in turn, and more of its draws count
(Cappe et al., Statistics and Computing 18, 447, 2008). Draws of all rounds are used, as
draws from the mixture of what they were drawn from (Cornuet et al., Scandinavian
Journal of Statistics 39, 798, 2012).
"""

from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.posterior_mixture import mixture_of
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import ImageLikelihood, Projector
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents

_SETTLED = 0.8
"""Effective draws, of those of a round, above which a mixture is drawn from no more."""

_PRIOR_DRAWS = 30.0
"""Effective draws that the covariance before counts for: those of six unknowns have 21
numbers, and fitted to as few draws they come out too small."""

_LEAST_EFFECTIVE = 100.0
"""Draws that a fit is to. Where fewer count, mixtures go a part of the way: a posterior
that is reached by few draws is stated too wide rather than too narrow."""

_HALVINGS = 12  # of the power of weights: to 2e-4

_STEPS = 3  # of each fit

_LEAST_MASS = 1e-6  # of a component that is moved
_AT_ONCE = 2**14  # draws, of all images
_COEFFICIENTS = 2**24  # of them that are compared at once: 0.2 GB


_WIDER = 1.3
"""Standard deviations of what is first drawn from about a mode, over Laplace's: no
weight makes up for draws that a tail lacks."""

_PROPOSED_SHARE = 0.5  # of the first draws, about what is proposed

P = TypeVar("P", bound=Projector, contravariant=True)


@dataclass(frozen=True)
class ImportanceSampling:
    """Fits a mixture to each posterior as a whole.

    Attributes
    ----------
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the projector as it is, the identity among them.
    draws : int
        Of an image in a round.
    rounds : int
        At most.
    components : int
        Of the mixtures.
    seed : int
        Of the draws.
    """

    symmetry: Tensor
    draws: int = 512
    rounds: int = 6
    components: int = 8
    seed: int = 0

    def fit(
        self,
        images: WhitenedImages,
        likelihood: ImageLikelihood,
        prior: PosePrior,
        start: ParticlePosterior,
    ) -> ParticlePosterior:
        """Return mixtures that are nearer to the posteriors than a start.

        Parameters
        ----------
        images : WhitenedImages
            Of n images.
        likelihood : ImageLikelihood
            To the radius of the images.
        prior : PosePrior
        start : ParticlePosterior
            Of the same images. It has to reach wherever the posteriors do, and should
            be wider rather than narrower.

        Returns
        -------
        ParticlePosterior
            Of ``components``, or as many as the start has; the densest first.
        """
        generator = torch.Generator().manual_seed(self.seed)
        size = max(1, _AT_ONCE // self.draws)
        # About the same mates as the draws are.
        folded = start.folded(self.symmetry)
        done = [
            self._fitted(
                _Target(images.select(rows), likelihood, prior), folded[rows], generator
            )
            for rows in torch.arange(len(images)).split(size)
        ]
        return ParticlePosterior.joined(done).densest_first()

    def _fitted(
        self,
        target: "_Target",
        mixture: ParticlePosterior,
        generator: torch.Generator,
    ) -> ParticlePosterior:
        """Draw and fit until all of a few images have settled."""
        seen, left = _Seen.nothing(mixture), torch.arange(len(mixture))
        about = mixture.modes.pose.rotation[:, 0]
        finished: list[ParticlePosterior] = []
        order: list[Tensor] = []
        for number in range(1, self.rounds + 1):
            drawn = self._nearest(mixture.sample(self.draws, generator), about)
            score = target.log_posterior(drawn)
            seen = seen.grown(mixture, drawn, score, self.symmetry)
            weight = seen.weight()
            for _ in range(_STEPS):
                mixture = fitted(mixture, seen.drawn, weight)
            if number == 1:
                mixture = _heaviest(mixture, self.components)
            over = seen.effective_share(self.draws) > _SETTLED
            over |= number == self.rounds
            finished.append(mixture[over])
            order.append(left[over])
            stays = torch.nonzero(~over).squeeze(1)
            if not len(stays):
                break
            left, target = left[stays], target.select(stays)
            seen, mixture, about = seen.select(stays), mixture[stays], about[stays]
        return ParticlePosterior.joined(finished)[torch.cat(order).argsort()]

    def _nearest(self, drawn: Latents, about: Tensor) -> Latents:
        """Return draws (s, n) as the mates that are nearest to rotations (n, 3, 3)."""
        rotation = drawn.pose.rotation
        near = nearest_mates(rotation, about.expand_as(rotation), self.symmetry)
        return replace(drawn, pose=replace(drawn.pose, rotation=near))


@dataclass(frozen=True)
class _Target:
    """The exact posterior of some images."""

    images: WhitenedImages
    likelihood: ImageLikelihood
    prior: PosePrior

    def select(self, index: Tensor) -> Self:
        """Return the posterior of some of the images."""
        return replace(self, images=self.images.select(index))

    def log_posterior(self, drawn: Latents) -> Tensor:
        """Return it at draws (s, n), up to a constant of each image, (s, n)."""
        shape = drawn.defocus_offset_angstrom.shape
        draw, owner = torch.cartesian_prod(*map(torch.arange, shape)).unbind(1)
        flat = drawn[draw, owner]
        size = max(1, _COEFFICIENTS // len(self.images.disc))
        score = torch.cat(
            [
                self.likelihood.log_likelihood(
                    self.images.select(owner[rows]), flat[rows]
                )
                for rows in torch.arange(len(owner)).split(size)
            ]
        )
        return (score + self.prior.log_density(flat)).view(shape)


@dataclass(frozen=True)
class _Seen:
    """All draws so far of n images, s each, and what is known at them.

    Attributes
    ----------
    drawn : Latents
        Leading dimensions (s, n).
    score : Tensor, shape (s, n)
        Log posterior, up to a constant of each image.
    log_drawn : Tensor, shape (r, s, n)
        Log density of the mixture of every round.
    mixtures : tuple of ParticlePosterior
        Of every round.
    """

    drawn: Latents
    score: Tensor
    log_drawn: Tensor
    mixtures: tuple[ParticlePosterior, ...]

    @classmethod
    def nothing(cls, mixture: ParticlePosterior) -> Self:
        """Return what is known before the first round."""
        nothing = torch.zeros(0, 0, len(mixture), dtype=torch.float64)
        return cls(mixture.mode()[None][:0], nothing.view(0, len(mixture)), nothing, ())

    def grown(
        self,
        mixture: ParticlePosterior,
        drawn: Latents,
        score: Tensor,
        symmetry: Tensor,
    ) -> Self:
        """Return it with the draws of one more round, from a mixture."""
        mixtures = (*self.mixtures, mixture)
        before = mixture.log_prob_of_orbit(self.drawn, symmetry)
        before = torch.cat([self.log_drawn, before[None]])
        own = torch.stack([one.log_prob_of_orbit(drawn, symmetry) for one in mixtures])
        return type(self)(
            Latents.joined([self.drawn, drawn]),
            torch.cat([self.score, score]),
            torch.cat([before, own], 1),
            mixtures,
        )

    def select(self, index: Tensor) -> Self:
        """Return what is known of some of the images."""
        return type(self)(
            self.drawn[:, index],
            self.score[:, index],
            self.log_drawn[:, :, index],
            tuple(mixture[index] for mixture in self.mixtures),
        )

    def weight(self) -> Tensor:
        """Return what every draw counts for, shape (s, n); those of an image sum to 1.

        By the posterior over what the draws are from; or by a power of that, below 1,
        where fewer than ``_LEAST_EFFECTIVE`` draws would count for all.
        """
        # Rounds are of one size: what all were drawn from is the mean of the mixtures.
        log_ratio = self.score - torch.logsumexp(self.log_drawn, 0)
        low = torch.zeros(log_ratio.shape[1], dtype=torch.float64)
        power = high = torch.ones_like(low)
        for _ in range(_HALVINGS):
            few = _effective(power * log_ratio) < _LEAST_EFFECTIVE
            low, high = torch.where(few, low, power), torch.where(few, power, high)
            power = (low + high) / 2
        return (low * log_ratio).softmax(0)

    def effective_share(self, last: int) -> Tensor:
        """Return how many of the last draws count, by their own mixture, shape (n,)."""
        return _effective(self.score[-last:] - self.log_drawn[-1, -last:]) / last


def _effective(log_weight: Tensor) -> Tensor:
    """Return as many equal draws as tell a mean as well, of (s, n), shape (n,)."""
    return 1 / log_weight.softmax(0).square().sum(0)


def fitted(
    mixture: ParticlePosterior, drawn: Latents, weight: Tensor
) -> ParticlePosterior:
    """Take one step of expectation-maximisation towards weighed draws.

    Parameters
    ----------
    mixture : ParticlePosterior
        Of n images.
    drawn : Latents
        Leading dimensions (s, n).
    weight : Tensor, shape (s, n)
        Those of an image sum to one.

    Returns
    -------
    ParticlePosterior
        Under which the draws are likelier.
    """
    free = mixture.covariance.diagonal(dim1=-2, dim2=-1) > 0
    # What is held departs by rounding.
    step = mixture.departures(drawn) * free
    share = mixture.log_parts(drawn, step).softmax(-1) * weight[..., None]
    total = share.sum(0)
    share = share[..., :-1]
    mass = share.sum(0)
    alive = mass > _LEAST_MASS
    share = torch.where(alive, share / mass, 0.0)
    # As many draws of one weight would tell the moments as well.
    effective = 1 / share.square().sum(0).clamp(min=1e-300)
    mean = torch.einsum("snm,snmi->nmi", share, step)
    apart = step - mean
    spread = torch.einsum("snm,snmi,snmj->nmij", share, apart, apart)
    known = (effective / (effective + _PRIOR_DRAWS))[..., None, None]
    spread = known * spread + (1 - known) * mixture.covariance
    covariance = torch.where(alive[..., None, None], spread, mixture.covariance)
    return replace(
        mixture,
        modes=moved(mixture.modes, mean),
        covariance=covariance,
        weight=total[..., :-1],
        background=total[..., -1],
    )


def _heaviest(mixture: ParticlePosterior, count: int) -> ParticlePosterior:
    """Return the components of most weight, and those weights made to sum to one."""
    order = mixture.weight.argsort(dim=1, descending=True, stable=True)[:, :count]
    kept = mixture.in_order(order)
    total = kept.weight.sum(1) + kept.background
    return replace(
        kept, weight=kept.weight / total[:, None], background=kept.background / total
    )


@dataclass(frozen=True)
class SampledRefinement(Generic[P]):
    """Draws about refined modes, and about what they were refined from.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`. The modes are where the
    density is, and what was proposed is what is to be reached.

    Attributes
    ----------
    refinement : ModeRefinement
    sampling : ImportanceSampling
    """

    refinement: ModeRefinement[P]
    sampling: ImportanceSampling

    def infer(
        self,
        images: WhitenedImages,
        projector: P,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return mixtures that are as near to the posteriors as draws can tell."""
        refinement = self.refinement
        proposed = refinement.proposal.infer(images, projector, prior, start)
        modes = refinement.refine(images, projector, prior, proposed)
        unknowns = modes.covariance.shape[-1]
        wider = torch.full((unknowns,), _WIDER, dtype=torch.float64)
        share = proposed.weight.new_tensor([1 - _PROPOSED_SHARE, _PROPOSED_SHARE])
        first = mixture_of(
            (modes.inflated(wider), proposed), share.expand(len(proposed), 2)
        )
        return self.sampling.fit(images, projector, prior, first)
