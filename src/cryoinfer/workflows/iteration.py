"""One iteration: every particle inferred from its half's reference, and summed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_mean
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.so3_grid import grid_step_radian
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.inference.coarse import GRID_ORDER
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.outlier_score import Fit, fit_at
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import (
    GivenPoses,
    LocalRefinement,
    PoseInference,
)
from cryoinfer.inference.pose_search import GlobalSearch
from cryoinfer.inference.projector import Projector, residual
from cryoinfer.inference.search import SearchPlan
from cryoinfer.interfaces import Monitor
from cryoinfer.physics.premultiplied import noise_weight
from cryoinfer.records import Indexable, Latents, Pose
from cryoinfer.workflows.acquisition import is_usual, is_usual_power
from cryoinfer.workflows.half_set_alignment import SAME_FRAME, align_half_sets
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_pass import (
    Accumulator,
    InferredBatch,
    ParticlePass,
    run_pass,
)
from cryoinfer.workflows.particle_quality import FIT_RADIUS, ParticleQuality
from cryoinfer.workflows.problem import Problem, start_radius
from cryoinfer.workflows.residual_noise import measured_noise

MODES = 3
"""Modes that are kept of every posterior."""

P = TypeVar("P", bound=Projector)


@dataclass(frozen=True)
class IterationPlan:
    """What one iteration does.

    Attributes
    ----------
    name : str
    radius : int
        Fourier radius that poses are inferred at.
    map_radius : int
        Fourier radius of the sums for the next map.
    steps : int
        Of Gauss-Newton.
    max_turn_radian : float
        Of one step.
    search : SearchPlan or None
        None refines the poses that are known.
    """

    name: str
    radius: int
    map_radius: int
    steps: int
    max_turn_radian: float
    search: SearchPlan | None


@dataclass(frozen=True)
class IterationStart(Generic[P]):
    """What an iteration begins with.

    Attributes
    ----------
    references : tuple of two Projector
        Of the half-sets.
    radius : int
        Fourier radius that these hold.
    noise : tuple of Tensor, each shape (rings,)
        Noise power per optics group.
    posterior : ParticlePosterior
        Of all particles.
    flagged : Tensor of bool, shape (n,)
        Particles that the next structure and the noise are made without.
    contrast : Tensor of float64, shape (n,)
        What particles show of the structure.
    """

    references: tuple[P, P]
    radius: int
    noise: tuple[Tensor, ...]
    posterior: ParticlePosterior
    flagged: Tensor
    contrast: Tensor


InferenceChoice = Callable[[IterationPlan], PoseInference[P]]
"""Chooses the inference of an iteration by its plan."""


@dataclass(frozen=True)
class SearchOrRefinement:
    """Searches all poses where the plan says so, else refines; the default choice.

    An :data:`InferenceChoice`.

    Attributes
    ----------
    max_shift_angstrom : float
        Largest shift that is searched.
    """

    max_shift_angstrom: float

    def __call__(self, plan: IterationPlan) -> PoseInference[MapProjector]:
        """Return the inference of one iteration."""
        if plan.search is not None:
            return GlobalSearch(plan.search, self.max_shift_angstrom)
        return LocalRefinement(plan.steps, plan.max_turn_radian)


def unknown_posterior(n: int) -> ParticlePosterior:
    """Return the posteriors of n particles before anything was inferred."""
    eye = torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
    zero = torch.zeros(n, 2, dtype=torch.float64)
    return ParticlePosterior.at(Latents.rigid(Pose(eye, zero), zero[:, 0]), MODES)


@dataclass(frozen=True)
class IterationOutcome:
    """What one iteration found.

    Attributes
    ----------
    posterior : ParticlePosterior
        Of all particles.
    noise_ratio : tuple of Tensor, each shape (rings,)
        Per optics group: mean power of the whitened residual; 0 where not measured.
    quality : ParticleQuality
        Of all particles; what follows is of those that are not flagged.
    pose_change_radian : float
        Median rotation from the estimate before.
    far_share : float
        Share of the particles that moved to another cell of the exhaustive grid.
    gain_nats : float
        Mean over particles of the log likelihood at their poses over that of no map.
    """

    posterior: ParticlePosterior
    noise_ratio: tuple[Tensor, ...]
    quality: ParticleQuality
    pose_change_radian: float
    far_share: float
    gain_nats: float


@dataclass(frozen=True)
class IterationRecord(Indexable):
    """What is kept of n particles.

    Attributes
    ----------
    posterior : ParticlePosterior
        In the frame of both half-sets.
    change_radian : Tensor of float64, shape (n,)
        Rotation from the pose before, within the half's own frame.
    gain_nats : Tensor of float64, shape (n,)
        Log likelihood over that of no map.
    fit : Fit
        Of the map at the pose, at a low radius.
    used : Tensor of bool, shape (n,)
        Which the next structure is made of.
    """

    posterior: ParticlePosterior
    change_radian: Tensor
    gain_nats: Tensor
    fit: Fit
    used: Tensor


class ResidualPower:
    """Mean power of whitened residuals by optics group and ring.

    An :class:`cryoinfer.workflows.particle_pass.Accumulator`.

    Parameters
    ----------
    problem : Problem
    noise : tuple of Tensor
        Noise power per optics group and ring.
    radius : int
        Fourier radius to which the references have anything.
    """

    def __init__(
        self, problem: Problem, noise: tuple[Tensor, ...], radius: int
    ) -> None:
        self._radius, device = radius, problem.device
        self._measured = problem.noise_rows.to(device)
        self._sum = [torch.zeros(len(spectrum), device=device) for spectrum in noise]
        self._count = [torch.zeros_like(sums) for sums in self._sum]

    def add(self, one: InferredBatch[Projector]) -> None:
        """Add those particles that the noise is measured on."""
        batch = one.batch
        measured = torch.nonzero(self._measured[batch.index]).squeeze(1)
        if not len(measured):
            return
        measured = measured[is_usual(batch.images[measured])]
        images = one.images.prefix(self._radius).select(measured)
        left = residual(one.projector, images, one.posterior.mode()[measured])
        ring, weight = images.disc.ring, noise_weight(images.optics, images.ctf)
        if weight is None:
            weight = torch.ones_like(images.ctf)
        power = (weight * left.abs().square()).sum(0)
        self._sum[one.group].index_add_(0, ring, power)
        self._count[one.group].index_add_(0, ring, weight.sum(0))

    @property
    def tensors(self) -> list[Tensor]:
        """What adds up over processes."""
        return [*self._sum, *self._count]

    def mean(self) -> tuple[Tensor, ...]:
        """Return the mean power per optics group, each shape (rings,), on the CPU."""
        return tuple(
            (s / c.where(c > 0, 1.0)).cpu()
            for s, c in zip(self._sum, self._count, strict=True)
        )


def noise_of_residuals(
    problem: Problem,
    noise: tuple[Tensor, ...],
    projectors: tuple[P, P],
    posterior: ParticlePosterior,
    radius: int,
    monitor: Monitor,
) -> tuple[Tensor, ...]:
    """Return the noise of particles by what maps leave that have learned none of it.

    Parameters
    ----------
    problem : Problem
    noise : tuple of Tensor
        Noise power per optics group and ring, to be corrected.
    projectors : tuple of two
        Of the half-sets.
    posterior : ParticlePosterior
        Whose first modes the maps are looked at from.
    radius : int
        Fourier radius to which they have anything.
    monitor : Monitor
    """
    power = ResidualPower(problem, noise, radius)
    step = ParticlePass(
        "noise",
        StrictImages(problem.grid, radius, noise),
        projectors,
        problem.prior,
        GivenPoses(),
        lambda one: one.posterior,
        (power,),
    )
    run_pass(problem, step, posterior, posterior, monitor)
    return problem.world.of_first(measured_noise(noise, power.mean(), torch.ones(1)))


def run_iteration(
    problem: Problem,
    start: IterationStart[P],
    plan: IterationPlan,
    inference: PoseInference[P],
    sums: Accumulator[P],
    monitor: Monitor,
) -> IterationOutcome:
    """Infer every particle from the reference of its half, and sum the next one.

    Parameters
    ----------
    problem : Problem
    start : IterationStart
    plan : IterationPlan
    inference : PoseInference
    sums : Accumulator
        Of the next structure; changed in place.
    monitor : Monitor

    Returns
    -------
    IterationOutcome
    """
    references, noise, before = start.references, start.noise, start.posterior
    problem = problem.measured_without(start.flagged).of_contrast(start.contrast)
    reach = max(plan.map_radius, plan.radius)
    # As far as there is a map, so that the next iteration knows its new rings.
    left = ResidualPower(problem, noise, min(reach, start.radius))
    alignment = SAME_FRAME
    if plan.search is None:
        latents = before.mode()
        alignment = align_half_sets(problem, references, noise, latents, plan.radius)
    accumulators: list[Accumulator[Any]] = [left, sums]
    step = ParticlePass(
        plan.name,
        StrictImages(problem.grid, reach, noise),
        references,
        problem.prior,
        inference,
        lambda one: _record(problem, plan, start.flagged, one),
        accumulators,
        used=lambda record: record.used,
        radius=plan.radius,
        alignment=alignment,
    )
    zero = torch.zeros(len(problem.particles), dtype=torch.float64)
    no_fit = Fit(zero, zero, zero, zero)
    blank = IterationRecord(before, zero, zero, no_fit, zero > 0)
    found = run_pass(problem, step, before, blank, monitor)
    fit = found.fit.of_contrast(start.contrast)
    quality = ParticleQuality.of(fit, found.used)
    shows = found[~quality.flagged]
    moved = shows.change_radian > grid_step_radian(GRID_ORDER)
    return IterationOutcome(
        found.posterior,
        left.mean(),
        quality,
        float(shows.change_radian.median()),
        float(reproducible_mean(moved.double())),
        float(reproducible_mean(shows.gain_nats)),
    )


def _record(
    problem: Problem, plan: IterationPlan, flagged: Tensor, one: InferredBatch[P]
) -> IterationRecord:
    rotation = one.posterior.mode().pose.rotation
    before = one.known.mode().pose.rotation
    same = nearest_mates(before, rotation, problem.symmetry_rotation)
    near = one.images.prefix(plan.radius)
    power = near.coefficients.abs().square().sum(1)
    low = near.prefix(min(plan.radius, round(FIT_RADIUS * start_radius(problem))))
    return IterationRecord(
        kept_modes(one.placed),
        geodesic_angle(rotation, same),
        one.posterior.log_likelihood + power,
        fit_at(one.projector, low, one.posterior.mode()),
        is_usual_power(low).cpu() & ~flagged[one.batch.index.cpu()],
    )


def kept_modes(posterior: ParticlePosterior) -> ParticlePosterior:
    """Return what is kept of posteriors from one iteration to the next.

    The best modes, with the covariance of the first for all: a tenth of the memory.
    """
    best = posterior.best(MODES).with_first_covariance()
    return best.normalised()
