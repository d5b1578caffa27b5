"""Stochastic variational inference of particles, from one Fourier radius to the next.

A Gaussian over rotation vector, shift, defocus and amplitudes is fitted about each mode
that another inference proposes, by gradients of a bound of the evidence at its own
draws (Woollard et al., "Physics aware inference for the cryo-EM inverse problem",
Machine Learning in Structural Biology, 2022). The gradients are those of the normal
equations, which every projector has.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cryoinfer.geometry.rotation_volume import ALL_TURNS, log_exponential_volume
from cryoinfer.geometry.rotations import left_jacobian
from cryoinfer.inference.local_refinement import reach_radian
from cryoinfer.inference.mode_ranking import (
    contenders,
    distinct_modes,
    posterior_of_modes,
)
from cryoinfer.inference.modes import PosteriorModes, covariance_of
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations, Projector
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.inference.variational import (
    GaussianGuide,
    VariationalConfig,
    bound,
    fit_guides,
)
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents

_SHARE_OF_STEPS = 0.25
"""Of those at the last radius, that each before it takes: its guide only has to lead
within reach of the next."""

_EVIDENCE_DRAWS = 32  # of a guide that is fitted, which weigh it
_AT_ONCE = 64  # images whose slopes are in memory together
_WIDEST_RADIAN = 1.0  # sd of rotations, that a guide begins with at most
_FARTHEST_SD = 3.0  # that it begins from its centre
_WALL_RADIAN = 0.1  # beyond half a turn, where the density has fallen by half a nat

P = TypeVar("P", bound=Projector, contravariant=True)


@dataclass(frozen=True)
class VariationalRefinement(Generic[P]):
    """Fits Gaussians about the modes that another inference proposes.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`. The Gaussians of a
    radius begin where those of the radius before have ended, as wide as the normal
    equations say there; in the end they are weighed by the importance-weighted bounds
    of their evidence. Random numbers are the same for all images: what is found for
    one does not depend on those beside it.

    Attributes
    ----------
    proposal : PoseInference
        Of modes; what else it knows of them is not looked at.
    radii : tuple of int
        Fourier radii, from low to high.
    lever_angstrom : float
        Of rotations: they move nothing farther than what is that far off.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the structure as it is, the identity among them.
    modes : int
        That Gaussians are fitted about at the first radius.
    config : VariationalConfig
        Of the fit at the last radius; those before it take a quarter of the steps.
    seed : int
        Of the draws.
    """

    proposal: PoseInference[P]
    radii: tuple[int, ...]
    lever_angstrom: float
    symmetry: Tensor
    modes: int = 2
    config: VariationalConfig = field(default_factory=VariationalConfig)
    seed: int = 0

    def infer(
        self,
        images: WhitenedImages,
        projector: P,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors: their modes are the means of the Gaussians.

        ``modes`` each, best first; those that were given up have no weight.
        """
        proposed = self.proposal.infer(images, projector, prior, start)
        n, count = proposed.weight.shape[0], min(self.modes, proposed.weight.shape[1])
        alike = self.symmetry, self.lever_angstrom
        apart = reach_radian(self.radii[0])
        owner, chosen = distinct_modes(proposed, count, apart, *alike)
        found = PosteriorModes.unknown(proposed.modes[owner, chosen])
        generator = torch.Generator().manual_seed(self.seed)
        for radius in self.radii:
            near = images.prefix(radius).select(owner)
            joint = JointDensity(projector, near, prior, found.latents)
            config = self.config if radius == self.radii[-1] else self._on_the_way
            guide = fit_guides(joint, joint.linearised(), config, generator)
            evidence = bound(joint, guide, _EVIDENCE_DRAWS, generator, importance=True)
            found = joint.modes_of(guide)
            kept = contenders(owner, found.latents, evidence, 0.5 / radius, *alike)
            owner, found, evidence = owner[kept], found[kept], evidence[kept]
        return posterior_of_modes(owner, found, evidence, n, count)

    @property
    def _on_the_way(self) -> VariationalConfig:
        """How Gaussians are fitted at the radii before the last."""
        steps = max(1, round(_SHARE_OF_STEPS * self.config.steps))
        return replace(self.config, steps=steps)


@dataclass(frozen=True)
class JointDensity:
    """How likely images and departures from centres are together.

    A :data:`cryoinfer.inference.variational.LogJoint` of those departures that the
    prior does not hold, in radian and angstrom.

    Attributes
    ----------
    projector : Projector
    images : WhitenedImages
        Of n particles.
    prior : PosePrior
    centre : Latents
        Of the same particles.
    """

    projector: Projector
    images: WhitenedImages
    prior: PosePrior
    centre: Latents

    def __call__(self, unknowns: Tensor) -> Tensor:
        """Return log densities of departures (k, n, d), (k, n); differentiable."""
        step = self._step(unknowns).flatten(0, 1)
        angle = step[:, :3].norm(dim=1)
        # Vectors of more than half a turn are rotations that shorter ones are.
        within = angle.clamp(max=math.pi)
        of_vectors = -0.5 * ((angle - within) / _WALL_RADIAN).square()
        if self.prior.rotation_unknowns == ALL_TURNS:
            of_vectors = of_vectors + log_exponential_volume(within)
        value = of_vectors + self._of_latents(step)
        return value.view(unknowns.shape[:2])

    def linearised(self) -> GaussianGuide:
        """Return the posteriors of images that are linear about the centres."""
        free = self._free
        found = self._equations(self.centre)
        information = (found.information + self.prior.information)[:, free][:, :, free]
        gradient = (found.gradient + self.prior.gradient(self.centre))[:, free]
        # No prior holds rotations, and an image may say nothing of them.
        turns = (free < 3).double() / _WIDEST_RADIAN**2
        covariance = torch.linalg.inv(information + torch.diag(turns))
        factor = torch.linalg.cholesky(covariance)
        away = factor.mT @ gradient[..., None]
        away = away / (away.norm(dim=1, keepdim=True) / _FARTHEST_SD).clamp(min=1.0)
        return GaussianGuide((factor @ away)[..., 0], factor)

    def modes_of(self, guide: GaussianGuide) -> PosteriorModes:
        """Return guides as Gaussians about their means."""
        step = self._step(guide.mean)
        at = moved(self.centre, step)
        # What was about the centre before is about the mean now.
        factor = self._step(guide.factor.mT).mT
        turned = left_jacobian(step[:, :3]) @ factor[:, :3]
        factor = torch.cat([turned, factor[:, 3:]], 1)
        likelihood = self.projector.log_likelihood(self.images, at)
        return PosteriorModes(at, covariance_of(factor @ factor.mT), likelihood)

    @property
    def _free(self) -> Tensor:
        """Which unknowns are not held, shape (d,)."""
        return torch.nonzero(self.prior.precision >= 0).squeeze(1)

    def _step(self, unknowns: Tensor) -> Tensor:
        """Return departures (..., 6 + c), zero where an unknown is held."""
        c = self.centre.conformation.shape[-1]
        step = unknowns.new_zeros(*unknowns.shape[:-1], 6 + c)
        return step.index_copy(-1, self._free, unknowns)

    def _of_latents(self, step: Tensor) -> Tensor:
        """Return log densities at departures (k n, 6 + c), with their slopes."""
        n, known = len(self.images), step.detach()
        at = moved(self.centre[torch.arange(len(step)) % n], known)
        prior = self.prior.log_density(at)
        if not step.requires_grad:
            return self._log_likelihood(at) + prior
        found = self._equations(at)
        slope = found.gradient + self.prior.gradient(at)
        # Slopes are by rotations from where the departure has led to.
        turns = (left_jacobian(known[:, :3]).mT @ slope[:, :3, None])[..., 0]
        slope = torch.cat([turns, slope[:, 3:]], 1)
        return found.log_likelihood + prior + ((step - known) * slope).sum(1)

    def _log_likelihood(self, at: Latents) -> Tensor:
        parts = [
            self.projector.log_likelihood(self.images.select(few), at[rows])
            for rows, few in self._few(len(at))
        ]
        return torch.cat(parts)

    def _equations(self, at: Latents) -> NormalEquations:
        parts = [
            self.projector.normal_equations(
                self.images.select(few), at[rows], self.prior
            )
            for rows, few in self._few(len(at))
        ]
        return NormalEquations.joined(parts)

    def _few(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Return rows of latents, and of the images that they belong to."""
        rows = torch.arange(count).split(_AT_ONCE)
        return [(one, one % len(self.images)) for one in rows]
