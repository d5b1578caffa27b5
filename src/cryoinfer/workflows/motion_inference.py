"""Inferences of motions: climbs from what an encoder or a search names, or starts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from cryoinfer.errors import state_of_this_version
from cryoinfer.inference.amortized import SemiAmortized
from cryoinfer.inference.conformation_search import ConformationSearch
from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.mode_ranking import posterior_of_modes
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.moment_matching import MomentMatching
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, ParticleBatch
from cryoinfer.results.model_frame import ModelFrame
from cryoinfer.results.motions import Motions
from cryoinfer.workflows.motion_problem import MotionProblem
from cryoinfer.workflows.noise_and_scale import NoiseAndScale, Projected, projected
from cryoinfer.workflows.stage_checkpoints import StageMonitor

_MATCHED_UNKNOWNS = 3
_KEPT_EVERY = 8  # chunks
_SIDES_SD = (0.0, -1.5, 1.5)  # of the softest mode, that climbs begin at
_SEARCHED_CONFORMATIONS, _SEARCHED_MODES = 5, 10
_STEPS = 6  # of a climb at one radius, from a known start


class Finder(Protocol):
    """What finds the tops of posteriors."""

    @property
    def projector(self) -> MovingProjector:
        """What is shown."""
        ...

    def find(self, images: WhitenedImages, index: Tensor) -> ParticlePosterior:
        """Return the posteriors of the particles numbered ``index``."""
        ...

    def begin(self, images: WhitenedImages, index: Tensor) -> Latents:
        """Return where they are roughly, for climbs at a low radius."""
        ...


@dataclass(frozen=True)
class FromEncoder:
    """Refines what an encoder proposes; for any particles like those it learned."""

    semi: SemiAmortized[MovingProjector]

    @property
    def projector(self) -> MovingProjector:
        """What is shown."""
        return self.semi.refinement.projector

    def find(self, images: WhitenedImages, index: Tensor) -> ParticlePosterior:
        """Return the posteriors; ``index`` is not looked at."""
        return self.semi.infer_whitened(images)

    def begin(self, images: WhitenedImages, index: Tensor) -> Latents:
        """Return the most probable modes of the climbs."""
        return self.find(images, index).mode()


@dataclass(frozen=True)
class FromSearch:
    """ModeRefinement from what a search of all poses and some conformations names."""

    search: ConformationSearch
    refinement: ModeRefinement[MovingProjector]

    @classmethod
    def of(
        cls, problem: MotionProblem, projector: MovingProjector, last_radius: int
    ) -> "FromSearch":
        """Return searches with a model in the units of the images.

        Parameters
        ----------
        problem : MotionProblem
        projector : MovingProjector
        last_radius : int
            Of the climbs.
        """
        search = ConformationSearch.of(
            projector,
            problem.prior,
            _SEARCHED_CONFORMATIONS,
            _SEARCHED_MODES,
            last_radius,
        )
        first = search.plan.radius
        refinement = problem.refinement(projector, first, last_radius, _SEARCHED_MODES)
        return cls(search, refinement)

    @property
    def projector(self) -> MovingProjector:
        """What is shown."""
        return self.refinement.projector

    def find(self, images: WhitenedImages, index: Tensor) -> ParticlePosterior:
        """Return the posteriors; ``index`` is not looked at."""
        return self.refinement.refine(images, self.search.infer_whitened(images))

    def begin(self, images: WhitenedImages, index: Tensor) -> Latents:
        """Return the most probable modes of the climbs."""
        return self.find(images, index).mode()


@dataclass(frozen=True)
class FromStarts:
    """ModeRefinement from where particles are known to be nearly.

    Attributes
    ----------
    problem : MotionProblem
    projector : MovingProjector
    frame : ModelFrame
        Where the model was taken to lie among the poses of the particles' file.
    starts : Latents
        Of all particles, and of the centred model.
    first_radius : int
        Of the climbs, in Fourier pixels.
    """

    problem: MotionProblem
    projector: MovingProjector
    frame: ModelFrame
    starts: Latents
    first_radius: int

    def find(self, images: WhitenedImages, index: Tensor) -> ParticlePosterior:
        """Return the posteriors of the particles numbered ``index``, a mode each.

        At the first radius the softest mode is begun on either side as well: where
        particles move far, the middle is not within reach of the ends.
        """
        prior, projector = self.problem.prior, self.projector
        first, *others = self.problem.radii(self.first_radius, self.problem.last_radius)
        begun = self.begin(images, index)
        near, longest = images.prefix(first), reach_radian(first)
        found = []
        for side in _SIDES_SD:
            aside = begun.conformation.clone()
            aside[:, 0] += side * prior.conformation_sd_angstrom[0]
            start = replace(begun, conformation=aside)
            found.append(refine_locally(projector, near, start, prior, _STEPS, longest))
        evidence = torch.stack([one.log_evidence(prior) for one in found])
        n = len(index)
        best = evidence.argmax(0) * n + torch.arange(n)
        modes = PosteriorModes.joined(found)[best]
        for radius in others:
            near, longest = images.prefix(radius), reach_radian(radius)
            at = modes.latents
            modes = refine_locally(projector, near, at, prior, _STEPS, longest)
        # One mode each, whatever its evidence.
        return posterior_of_modes(torch.arange(n), modes, modes.log_likelihood, n, 1)

    def begin(self, images: WhitenedImages, index: Tensor) -> Latents:
        """Return the starts."""
        return self.starts[index].double()


@dataclass(frozen=True)
class MotionInference:
    """The inference of a run, for one batch of one optics group after the other.

    A :class:`cryoinfer.interfaces.Inference`.

    Attributes
    ----------
    problem : MotionProblem
    finder : Finder
    measured : NoiseAndScale
        Noise and gain.
    covariance_inflation : Tensor of float64, shape (6 + c,)
        What standard deviations are multiplied by.
    """

    problem: MotionProblem
    finder: Finder
    measured: NoiseAndScale
    covariance_inflation: Tensor

    @classmethod
    def of(
        cls, problem: MotionProblem, finder: Finder, measured: NoiseAndScale
    ) -> "MotionInference":
        """Return the inference with widths as they are found."""
        unknowns = 6 + len(problem.model.modes)
        return cls(problem, finder, measured, torch.ones(unknowns, dtype=torch.float64))

    def infer(self, batch: ParticleBatch) -> ParticlePosterior:
        """Return the posterior of every particle."""
        images = self.problem.whitened(batch, self.measured)
        return self.posterior(images, batch.index)

    def posterior(self, images: WhitenedImages, index: Tensor) -> ParticlePosterior:
        """Return posteriors, with their own moments where unknowns are few."""
        found = self.finder.find(images, index)
        prior = self.problem.prior
        if self.matches_moments:
            return MomentMatching(self.finder.projector, prior).match(images, found)
        return found.inflated(self.covariance_inflation)

    @property
    def matches_moments(self) -> bool:
        """Whether posteriors have their own moments, and no need of other widths."""
        return int((self.problem.prior.precision >= 0).sum()) <= _MATCHED_UNKNOWNS

    def calibration_subset(self) -> Iterator[Projected]:
        """Yield some particles and what the model shows of them."""
        for batch in self.measured.calibration_subset(self.problem.particles):
            images = self.problem.whitened(batch, self.measured)
            mode = self.finder.find(images, batch.index).mode()
            yield projected(self.finder.projector, images, mode)

    def all_motions(self, monitor: StageMonitor) -> Motions:
        """Infer all particles; an interrupted pass goes on."""
        problem = self.problem
        chunks = problem.chunks()
        found = Motions.blank(len(problem.particles), len(problem.model.modes))
        done = 0
        saved: Any = monitor.load_checkpoint()
        if saved is not None:
            with state_of_this_version():
                found, done = Motions(**saved["motions"]), saved["done"]
        monitor.stage("inference", sum(len(rows) for rows in chunks[done:]))
        for number, rows in enumerate(chunks[done:], done + 1):
            seen = problem.readable(problem.particles.batch(rows), self.measured)
            if seen is not None:
                posterior = self.posterior(seen.images, seen.index)
                mode = posterior.mode()
                value = self.finder.projector.log_likelihood(seen.images, mode)
                found.put(seen.index, posterior, value)
            monitor.advance(len(rows))
            if number % _KEPT_EVERY == 0 or number == len(chunks):
                monitor.save_checkpoint({"motions": dict(vars(found)), "done": number})
        return found
