"""Inferences of motions: refinement of what an encoder or a search proposes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.inference.conformation_search import ConformationSearch
from cryoinfer.inference.moment_matching import MomentMatching
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import InflatedCovariance, PoseInference
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents, Pose
from cryoinfer.results.model_frame import ModelFrame
from cryoinfer.results.motions import Motions
from cryoinfer.workflows.image_sources import ReadableImages
from cryoinfer.workflows.motion_frame import starts_in
from cryoinfer.workflows.motion_problem import BATCH, MotionProblem
from cryoinfer.workflows.noise_and_scale import NoiseAndScale, Projected, projected
from cryoinfer.workflows.particle_pass import InferredBatch, ParticlePass, run_pass

_MATCHED_UNKNOWNS = 3
_SEARCHED_CONFORMATIONS, _SEARCHED_MODES = 5, 10


@dataclass(frozen=True)
class MotionInference:
    """How motions are inferred, and all that this needs.

    Attributes
    ----------
    problem : MotionProblem
    inference : PoseInference
        Of modes of the posteriors.
    measured : NoiseAndScale
        Noise and gain.
    projector : MovingProjector
        The model in the units of the images.
    covariance_inflation : Tensor of float64, shape (6 + c,)
        What standard deviations are multiplied by.
    starts : ParticlePosterior or None
        Of all particles, of the centred model, where poses were given.
    frame : ModelFrame
        Where the model was taken to lie among these.
    """

    problem: MotionProblem
    inference: PoseInference[MovingProjector]
    measured: NoiseAndScale
    projector: MovingProjector
    covariance_inflation: Tensor
    starts: ParticlePosterior | None = None
    frame: ModelFrame = field(default_factory=ModelFrame.in_the_middle)

    @classmethod
    def of(
        cls,
        problem: MotionProblem,
        inference: PoseInference[MovingProjector],
        measured: NoiseAndScale,
    ) -> Self:
        """Return the inference with widths as they are found."""
        unknowns = 6 + len(problem.model.modes)
        ones = torch.ones(unknowns, dtype=torch.float64)
        return cls(problem, inference, measured, problem.projector(measured), ones)

    @classmethod
    def by_search(cls, problem: MotionProblem, measured: NoiseAndScale) -> Self:
        """Return searches of all poses, and refinements."""
        projector = problem.projector(measured)
        searched = searched_refinement(problem, projector, problem.last_radius)
        return cls.of(problem, searched, measured)

    @classmethod
    def from_poses(
        cls, problem: MotionProblem, measured: NoiseAndScale, frame: ModelFrame
    ) -> Self:
        """Return refinements from the poses of the particles."""
        starts = ParticlePosterior.at(starts_in(frame, problem), 1)
        made = cls.of(problem, problem.start_refinement(), measured)
        return replace(made, starts=starts, frame=frame)

    @property
    def posteriors(self) -> PoseInference[MovingProjector]:
        """The inference of posteriors, with their own widths or fitted ones.

        Moments and widths make up for what the curvature of a top tells. Variational
        Gaussians are not of a curvature: they are fitted to the whole posterior, and
        are left as they are.
        """
        if self.problem.config.by_variation:
            return self.inference
        if self.has_own_widths:
            return MomentMatching(self.inference)
        return InflatedCovariance(self.inference, self.covariance_inflation)

    @property
    def has_own_widths(self) -> bool:
        """Whether posteriors are as wide as their images say, and need no correction.

        Those that are fitted to the posterior, and those of so few unknowns that their
        moments are sums over a lattice.
        """
        unknowns = int((self.problem.prior.precision >= 0).sum())
        return self.problem.config.by_variation or unknowns <= _MATCHED_UNKNOWNS

    def posterior(
        self, images: WhitenedImages, index: Tensor | None = None
    ) -> ParticlePosterior:
        """Return the posteriors of images; of which particles, where it matters."""
        start = None
        if self.starts is not None and index is not None:
            start = self.starts[index]
        prior = self.problem.prior
        return self.posteriors.infer(images, self.projector, prior, start)

    @property
    def images(self) -> ReadableImages:
        """The source of images, to the last radius."""
        return self.problem.images(self.measured, self.problem.last_radius)

    def calibration_subset(self) -> Iterator[Projected]:
        """Yield some particles and what the model shows of them."""
        prior = self.problem.prior
        for batch in self.measured.calibration_subset(self.problem.particles):
            images = self.images.whitened(batch)
            start = None if self.starts is None else self.starts[batch.index]
            found = self.inference.infer(images, self.projector, prior, start)
            yield projected(self.projector, images, found.mode())

    def all_motions(self, monitor: Monitor) -> Motions:
        """Infer all particles; an interrupted pass goes on."""
        problem = self.problem
        n, c = len(problem.particles), len(problem.model.modes)
        step = ParticlePass(
            "inference",
            self.images,
            (self.projector, self.projector),
            problem.prior,
            self.posteriors,
            self._record,
            batch_size=BATCH,
        )
        known = unposed(n, c) if self.starts is None else self.starts
        blank = Motions.blank(n, c)
        return run_pass(problem.problem, step, known, blank, monitor, monitor)

    def _record(self, one: InferredBatch[MovingProjector]) -> Motions:
        value = self.projector.log_likelihood(one.images, one.posterior.mode())
        return Motions.of(one.posterior, value)


def unposed(n: int, conformations: int) -> ParticlePosterior:
    """Return the posteriors of n particles before anything was inferred."""
    zero = torch.zeros(n, 2 + conformations, dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
    pose = Pose(eye, zero[:, :2])
    return ParticlePosterior.at(Latents(pose, zero[:, 0], zero[:, 2:]), 1)


def searched_refinement(
    problem: MotionProblem, projector: MovingProjector, last_radius: int
) -> PoseInference[MovingProjector]:
    """Return a search of all poses in some conformations, and refinements.

    Parameters
    ----------
    problem : MotionProblem
    projector : MovingProjector
        In the units of the images.
    last_radius : int
        Of the refinements.
    """
    search = ConformationSearch.of(
        projector,
        problem.prior,
        problem.problem.symmetry_rotation,
        _SEARCHED_CONFORMATIONS,
        _SEARCHED_MODES,
        last_radius,
    )
    first = search.plan.radius
    return problem.refinement(search, first, last_radius, _SEARCHED_MODES)
