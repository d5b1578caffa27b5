"""One pass over all particles: poses from the references, sums for the next ones."""

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_mean
from cryoinfer.fourier.slices import SliceAccumulator, insert_slices
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.so3_grid import grid_step_radian
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.inference.coarse import GRID_ORDER, GridSlices
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_search import grid_slices
from cryoinfer.inference.projector import residual
from cryoinfer.inference.search import SearchPlan, global_search
from cryoinfer.inference.whitening import WhitenedImages, whiten
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents, ParticleBatch, Pose
from cryoinfer.workflows.acquisition import is_usual
from cryoinfer.workflows.half_set_alignment import HalfSetAlignment, align_half_sets
from cryoinfer.workflows.problem import Problem

MODES = 3
"""Modes that are kept of every posterior."""


@dataclass(frozen=True)
class IterationPlan:
    """What one pass does.

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


def unknown_posterior(n: int) -> ParticlePosterior:
    """Return the posteriors of n particles before anything was inferred."""
    eye = torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
    zero = torch.zeros(n, 2, dtype=torch.float64)
    return ParticlePosterior.at(Latents.rigid(Pose(eye, zero), zero[:, 0]), MODES)


@dataclass(frozen=True)
class IterationOutcome:
    """What one pass found.

    Attributes
    ----------
    posterior : ParticlePosterior
        Of all particles.
    sums : tuple of two SliceAccumulator
        Of each half.
    noise_ratio : tuple of Tensor, each shape (rings,)
        Per optics group: mean power of the whitened residual; 0 where not measured.
    pose_change_radian : float
        Median rotation from the estimate before.
    far_share : float
        Share of the particles that moved to another cell of the exhaustive grid.
    gain_nats : float
        Mean over particles of the log likelihood at their poses over that of no map.
    """

    posterior: ParticlePosterior
    sums: tuple[SliceAccumulator, SliceAccumulator]
    noise_ratio: tuple[Tensor, ...]
    pose_change_radian: float
    far_share: float
    gain_nats: float


class _ResidualPower:
    """Mean power of whitened residuals by optics group and ring."""

    def __init__(self, noise: tuple[Tensor, ...]) -> None:
        self._sum = [torch.zeros(len(spectrum)) for spectrum in noise]
        self._count = [torch.zeros(len(spectrum)) for spectrum in noise]

    def add(self, group: int, images: WhitenedImages, residual: Tensor) -> None:
        ring, power = images.disc.ring, residual.abs().square().sum(0)
        self._sum[group].index_add_(0, ring, power)
        count = torch.full_like(power, float(len(residual)))
        self._count[group].index_add_(0, ring, count)

    @property
    def tensors(self) -> list[Tensor]:
        """What adds up over processes."""
        return [*self._sum, *self._count]

    def mean(self) -> tuple[Tensor, ...]:
        return tuple(
            s / c.clamp(min=1) for s, c in zip(self._sum, self._count, strict=True)
        )


def run_iteration(
    problem: Problem,
    references: tuple[MapProjector, MapProjector],
    noise: tuple[Tensor, ...],
    before: ParticlePosterior,
    plan: IterationPlan,
    monitor: Monitor,
) -> IterationOutcome:
    """Infer every particle from the reference of its half, and sum the next map.

    Parameters
    ----------
    problem : Problem
    references : tuple of two MapProjector
    noise : tuple of Tensor
        Noise power per optics group and ring.
    before : ParticlePosterior
    plan : IterationPlan
    monitor : Monitor

    Returns
    -------
    IterationOutcome
    """
    run = _Iteration(problem, references, noise, before, plan)
    monitor.stage(plan.name, problem.own_count)
    for batch in problem.own_batches():
        run.take(batch)
        monitor.advance(len(batch))
    return run.outcome()


class _Iteration:
    """The growing results of a pass."""

    def __init__(
        self,
        problem: Problem,
        references: tuple[MapProjector, MapProjector],
        noise: tuple[Tensor, ...],
        before: ParticlePosterior,
        plan: IterationPlan,
    ) -> None:
        self._problem, self._references = problem, references
        self._noise, self._plan = noise, plan
        self._before = before
        self._found: list[ParticlePosterior] = []
        self._rows: list[Tensor] = []
        first, second = (
            SliceAccumulator.empty(
                problem.grid.box, plan.map_radius, references[0].volume.padding
            )
            for _ in range(2)
        )
        self._sums = (first, second)
        self._residual = _ResidualPower(noise)
        self._slices: dict[tuple[int, int], GridSlices] = {}
        # Within each half's own frame: that of the second may be turned below.
        self._change = torch.zeros(len(problem.particles), dtype=torch.float64)
        self._gain = torch.zeros(len(problem.particles), dtype=torch.float64)
        self._frame = HalfSetAlignment.same()
        if plan.search is None:
            self._frame = align_half_sets(
                problem, references, noise, before.mode(), plan.radius
            )

    def take(self, batch: ParticleBatch) -> None:
        """Infer and insert the particles of a batch of one optics group and half."""
        plan, index = self._plan, batch.index
        group, half = int(batch.optics.group[0]), int(self._problem.half[index[0]])
        reach = max(plan.map_radius, plan.radius)
        images = whiten(batch, self._problem.grid, reach, self._noise[group])
        near = images.prefix(plan.radius)
        known = self._before[index]
        found = self._infer(half, group, near, known)
        empty = near.coefficients.abs().square().sum(1)
        self._gain[index] = found.log_likelihood + empty
        rotation = found.mode().pose.rotation
        before = known.mode().pose.rotation
        same = nearest_mates(before, rotation, self._problem.symmetry_rotation)
        self._change[index] = geodesic_angle(rotation, same)
        measured = torch.nonzero(self._problem.noise_rows[index]).squeeze(1)
        if len(measured):
            # As far as there is a map, so that the next pass knows its new rings.
            projector = self._references[half]
            measured = measured[is_usual(batch.images[measured])]
            sampled = images.prefix(min(reach, projector.radius)).select(measured)
            left = residual(projector, sampled, found.mode()[measured])
            self._residual.add(group, sampled, left)
        if half == 1:
            found = replace(found, modes=self._frame.to_first(found.modes))
        self._found.append(found)
        self._rows.append(index)
        insert_images(self._sums[half], images, found.mode(), plan.map_radius)

    def _infer(
        self, half: int, group: int, images: WhitenedImages, known: ParticlePosterior
    ) -> ParticlePosterior:
        projector, plan = self._references[half], self._plan
        if plan.search is None:
            return _refined(projector, images, known, self._problem, plan)
        if (group, half) not in self._slices:
            # Of one group and half after another: hundreds of groups would fill GBs.
            reach = self._problem.max_shift_angstrom
            slices = grid_slices(
                projector.volume, images, reach, GRID_ORDER, plan.search
            )
            self._slices = {(group, half): slices}
        slices = self._slices[group, half]
        return _searched(projector, images, known, self._problem, plan.search, slices)

    def outcome(self) -> IterationOutcome:
        """Return what all batches of all processes together gave."""
        world = self._problem.world
        world.add_up(*(sums.sums for sums in self._sums))
        world.add_up(self._change, self._gain, *self._residual.tensors)
        moved = self._change > grid_step_radian(GRID_ORDER)
        found = itertools.chain.from_iterable(world.gathered(self._found))
        rows = itertools.chain.from_iterable(world.gathered(self._rows))
        order = torch.cat(list(rows)).argsort()
        return IterationOutcome(
            ParticlePosterior.joined(list(found))[order],
            self._sums,
            self._residual.mean(),
            float(self._change.median()),
            float(reproducible_mean(moved.double())),
            float(reproducible_mean(self._gain)),
        )


def _refined(
    projector: MapProjector,
    images: WhitenedImages,
    known: ParticlePosterior,
    problem: Problem,
    plan: IterationPlan,
) -> ParticlePosterior:
    found = refine_locally(
        projector,
        images,
        known.mode(),
        problem.prior,
        plan.steps,
        plan.max_turn_radian,
    )
    return known.with_mode(found)


def _searched(
    projector: MapProjector,
    images: WhitenedImages,
    known: ParticlePosterior,
    problem: Problem,
    search: SearchPlan,
    slices: GridSlices,
) -> ParticlePosterior:
    seen = bool(torch.isfinite(known.log_likelihood).all())
    pose = known.mode().pose if seen else None
    found = global_search(projector, slices, images, pose, problem.prior, search)
    best = found.best(MODES).with_first_covariance()
    return replace(best, weight=best.weight / best.weight.sum(1, keepdim=True))


def insert_images(
    sums: SliceAccumulator, images: WhitenedImages, latents: Latents, radius: int
) -> None:
    """Add images at their poses to the sums of their half, up to a Fourier radius."""
    offset, pose = latents.defocus_offset_angstrom, latents.pose
    moved = images.prefix(radius).at_defocus_offset(offset)
    values = moved.moved_back(pose.shift_angstrom) * moved.ctf
    insert_slices(
        sums, pose.rotation, moved.disc, values, moved.ctf.square(), moved.scale
    )


def initial_search_plan(
    radius: int, shift_step_angstrom: float, symmetry: Tensor
) -> SearchPlan:
    """Return a global search at one radius."""
    return SearchPlan(
        coarse_radius=radius,
        radius=radius,
        cells=6,
        modes=MODES,
        steps=5,
        cell_radian=grid_step_radian(GRID_ORDER),
        shift_step_angstrom=shift_step_angstrom,
        symmetry=symmetry,
    )
