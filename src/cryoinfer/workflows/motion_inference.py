"""Inferences of motions: climbs from what an encoder or a search names, or starts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from cryoinfer.errors import state_of_this_version
from cryoinfer.inference.amortized import SemiAmortized
from cryoinfer.inference.climbs import Climbs, mixture_of_tops
from cryoinfer.inference.moving_search import MovingSearch
from cryoinfer.inference.moving_subject import MovingSubject
from cryoinfer.inference.polish import Polish
from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.inference.refine import LocalPoses
from cryoinfer.inference.search import laplace_log_evidence
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, ParticleBatch
from cryoinfer.results.model_frame import ModelFrame
from cryoinfer.results.motions import Motions
from cryoinfer.workflows.motion_problem import MotionProblem
from cryoinfer.workflows.moving_noise import Imaged, Shown, shown_of
from cryoinfer.workflows.parts import PartMonitor

_POLISHED_UNKNOWNS = 3
_KEPT_EVERY = 8  # chunks
_SIDES_SD = (0.0, -1.5, 1.5)  # of the softest mode, that climbs begin at
_SEARCHED_CONFORMATIONS, _SEARCHED_MODES = 5, 10
_STEPS = 6  # of a climb at one radius, from a known start


class Finder(Protocol):
    """What finds the tops of posteriors."""

    @property
    def subject(self) -> MovingSubject:
        """What is shown."""
        ...

    def find(self, images: WhitenedImages, index: Tensor) -> PoseMixture:
        """Return the posteriors of the particles numbered ``index``."""
        ...

    def begin(self, images: WhitenedImages, index: Tensor) -> LocalPoses:
        """Return where they are roughly, for climbs at a low radius."""
        ...


@dataclass(frozen=True)
class FromEncoder:
    """Climbs from what an encoder names; for any particles like those it learned."""

    semi: SemiAmortized[MovingSubject]

    @property
    def subject(self) -> MovingSubject:
        """What is shown."""
        return self.semi.climbs.subject

    def find(self, images: WhitenedImages, index: Tensor) -> PoseMixture:
        """Return the posteriors; ``index`` is not looked at."""
        return self.semi.infer_whitened(images)

    def begin(self, images: WhitenedImages, index: Tensor) -> LocalPoses:
        """Return the most probable modes of the climbs."""
        return LocalPoses.of(self.find(images, index).mode())


@dataclass(frozen=True)
class FromSearch:
    """Climbs from what a search of all poses and some conformations names."""

    search: MovingSearch
    climbs: Climbs[MovingSubject]

    @classmethod
    def of(
        cls, problem: MotionProblem, subject: MovingSubject, last_radius: int
    ) -> "FromSearch":
        """Return searches with a model in the units of the images.

        Parameters
        ----------
        problem : MotionProblem
        subject : MovingSubject
        last_radius : int
            Of the climbs.
        """
        search = MovingSearch.of(
            subject,
            problem.prior,
            _SEARCHED_CONFORMATIONS,
            _SEARCHED_MODES,
            last_radius,
        )
        first = search.plan.radius
        climbs = problem.climbs(subject, first, last_radius, _SEARCHED_MODES)
        return cls(search, climbs)

    @property
    def subject(self) -> MovingSubject:
        """What is shown."""
        return self.climbs.subject

    def find(self, images: WhitenedImages, index: Tensor) -> PoseMixture:
        """Return the posteriors; ``index`` is not looked at."""
        return self.climbs.from_modes(images, self.search.infer_whitened(images))

    def begin(self, images: WhitenedImages, index: Tensor) -> LocalPoses:
        """Return the most probable modes of the climbs."""
        return LocalPoses.of(self.find(images, index).mode())


@dataclass(frozen=True)
class FromStarts:
    """Climbs from where particles are known to be nearly.

    Attributes
    ----------
    problem : MotionProblem
    subject : MovingSubject
    frame : ModelFrame
        Where the model was taken to lie among the poses of the particles' file.
    starts : Latents
        Of all particles, and of the centred model.
    first_radius : int
        Of the climbs, in Fourier pixels.
    """

    problem: MotionProblem
    subject: MovingSubject
    frame: ModelFrame
    starts: Latents
    first_radius: int

    def find(self, images: WhitenedImages, index: Tensor) -> PoseMixture:
        """Return the posteriors of the particles numbered ``index``, a mode each.

        At the first radius the softest mode is begun on either side as well: where
        particles move far, the middle is not within reach of the ends.
        """
        prior, subject = self.problem.prior, self.subject
        first, *others = self.problem.radii(self.first_radius, self.problem.last_radius)
        begun = self.begin(images, index)
        near, longest = images.prefix(first), 2 / first
        tops = []
        for side in _SIDES_SD:
            aside = begun.conformation.clone()
            aside[:, 0] += side * prior.conformation_sd_angstrom[0]
            start = replace(begun, conformation=aside)
            tops.append(subject.climb(near, start, prior, _STEPS, longest))
        evidence = torch.stack([laplace_log_evidence(one, prior) for one in tops])
        n = len(index)
        best = evidence.argmax(0) * n + torch.arange(n)
        poses = LocalPoses.joined(tops).select(best)
        for radius in others:
            poses = subject.climb(
                images.prefix(radius), poses, prior, _STEPS, 2 / radius
            )
        # One mode each, whatever its evidence.
        return mixture_of_tops(torch.arange(n), poses, poses.log_likelihood, n, 1)

    def begin(self, images: WhitenedImages, index: Tensor) -> LocalPoses:
        """Return the starts."""
        return LocalPoses.of(self.starts[index])


@dataclass(frozen=True)
class MotionInference:
    """The inference of a run, for one batch of one optics group after the other.

    A :class:`cryoinfer.interfaces.Inference`.

    Attributes
    ----------
    problem : MotionProblem
    finder : Finder
    imaged : Imaged
        Noise and gain.
    widening : Tensor of float64, shape (6 + c,)
        What standard deviations are multiplied by.
    """

    problem: MotionProblem
    finder: Finder
    imaged: Imaged
    widening: Tensor

    @classmethod
    def of(
        cls, problem: MotionProblem, finder: Finder, imaged: Imaged
    ) -> "MotionInference":
        """Return the inference with widths as they are found."""
        unknowns = 6 + len(problem.model.modes)
        return cls(problem, finder, imaged, torch.ones(unknowns, dtype=torch.float64))

    def infer(self, batch: ParticleBatch) -> PoseMixture:
        """Return the posterior of every particle."""
        images = self.problem.whitened(batch, self.imaged)
        return self.posterior(images, batch.index)

    def posterior(self, images: WhitenedImages, index: Tensor) -> PoseMixture:
        """Return posteriors, with their own moments where unknowns are few."""
        found = self.finder.find(images, index)
        prior = self.problem.prior
        if self.polishes:
            return Polish(self.finder.subject, prior).of(images, found)
        return found.widened(self.widening)

    @property
    def polishes(self) -> bool:
        """Whether posteriors have their own moments, and no need of other widths."""
        return int((self.problem.prior.precision >= 0).sum()) <= _POLISHED_UNKNOWNS

    def pilots(self) -> Iterator[Shown]:
        """Yield some particles and what the model shows of them."""
        for batch in self.imaged.pilots(self.problem.particles):
            images = self.problem.whitened(batch, self.imaged)
            mode = self.finder.find(images, batch.index).mode()
            yield shown_of(self.finder.subject, images, mode)

    def all_motions(self, monitor: PartMonitor) -> Motions:
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
            seen = problem.readable(problem.particles.batch(rows), self.imaged)
            if seen is not None:
                posterior = self.posterior(seen.images, seen.index)
                mode = posterior.mode()
                value = self.finder.subject.log_likelihood(seen.images, mode)
                found.put(seen.index, posterior, value)
            monitor.advance(len(rows))
            if number % _KEPT_EVERY == 0 or number == len(chunks):
                monitor.save_checkpoint({"motions": dict(vars(found)), "done": number})
        return found
