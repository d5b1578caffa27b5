"""One pass over all particles: poses from the references, sums for the next ones."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_mean
from cryoinfer.fourier.slices import (
    FourierVolume,
    SliceAccumulator,
    extract_slices,
    insert_slices,
)
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.so3_grid import grid_step_radian
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.inference.coarse import GRID_ORDER, GridSlices
from cryoinfer.inference.pose_search import grid_slices
from cryoinfer.inference.refine import LocalPoses, gauss_newton
from cryoinfer.inference.search import SearchPlan, global_search
from cryoinfer.inference.whitening import WhitenedImages, whiten
from cryoinfer.interfaces import Monitor
from cryoinfer.records import ParticleBatch
from cryoinfer.workflows.frames import Frame, relative_frame
from cryoinfer.workflows.imaging import is_usual
from cryoinfer.workflows.problem import Problem

MODES = 3
"""Modes that are kept of every posterior."""


@dataclass(frozen=True)
class PassPlan:
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


@dataclass(frozen=True)
class Estimate:
    """What is known about every particle.

    Attributes
    ----------
    poses : LocalPoses
        Of length n.
    mode_rotation : Tensor of float64, shape (n, MODES, 3, 3)
    mode_shift_angstrom : Tensor of float64, shape (n, MODES, 2)
    mode_weight : Tensor of float64, shape (n, MODES)
    """

    poses: LocalPoses
    mode_rotation: Tensor
    mode_shift_angstrom: Tensor
    mode_weight: Tensor

    @classmethod
    def unknown(cls, n: int) -> "Estimate":
        """Return the estimate before anything was inferred."""
        eye = torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
        zero = torch.zeros(n, dtype=torch.float64)
        return cls.at(LocalPoses.at(eye, torch.zeros(n, 2), zero))

    @classmethod
    def at(cls, poses: LocalPoses) -> "Estimate":
        """Return the estimate whose only modes are the given poses."""
        weight = torch.zeros(len(poses), MODES, dtype=torch.float64)
        weight[:, 0] = 1
        return cls(
            poses,
            poses.rotation[:, None].repeat(1, MODES, 1, 1),
            poses.shift_angstrom[:, None].repeat(1, MODES, 1),
            weight,
        )

    def select(self, index: Tensor) -> "Estimate":
        """Return some of the particles."""
        return Estimate(
            self.poses.select(index),
            self.mode_rotation[index],
            self.mode_shift_angstrom[index],
            self.mode_weight[index],
        )

    def with_poses(self, poses: LocalPoses) -> "Estimate":
        """Return the same modes, the best of which has moved."""
        rotation = self.mode_rotation.clone()
        shift = self.mode_shift_angstrom.clone()
        rotation[:, 0], shift[:, 0] = poses.rotation, poses.shift_angstrom
        return Estimate(poses, rotation, shift, self.mode_weight)

    def moved_to(self, frame: Frame) -> "Estimate":
        """Return poses and modes of the second half in the frame of the first."""
        rotation = self.mode_rotation @ frame.rotation.mT
        moved = (rotation @ frame.origin_angstrom)[..., :2]
        return replace(
            self,
            poses=frame.to_first(self.poses),
            mode_rotation=rotation,
            mode_shift_angstrom=self.mode_shift_angstrom - moved,
        )

    def put(self, index: Tensor, part: "Estimate") -> None:
        """Overwrite the rows of ``index``."""
        for name, value in vars(self.poses).items():
            value[index] = getattr(part.poses, name)
        self.mode_rotation[index] = part.mode_rotation
        self.mode_shift_angstrom[index] = part.mode_shift_angstrom
        self.mode_weight[index] = part.mode_weight

    def clone(self) -> "Estimate":
        """Return a copy that shares no memory."""
        poses = LocalPoses(**{k: v.clone() for k, v in vars(self.poses).items()})
        return Estimate(
            poses,
            self.mode_rotation.clone(),
            self.mode_shift_angstrom.clone(),
            self.mode_weight.clone(),
        )


@dataclass(frozen=True)
class PassOutcome:
    """What one pass found.

    Attributes
    ----------
    estimate : Estimate
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

    estimate: Estimate
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

    def mean(self) -> tuple[Tensor, ...]:
        return tuple(
            s / c.clamp(min=1) for s, c in zip(self._sum, self._count, strict=True)
        )


def run_pass(
    problem: Problem,
    references: tuple[FourierVolume, FourierVolume],
    noise: tuple[Tensor, ...],
    before: Estimate,
    plan: PassPlan,
    monitor: Monitor,
) -> PassOutcome:
    """Infer every particle from the reference of its half, and sum the next map.

    Parameters
    ----------
    problem : Problem
    references : tuple of two FourierVolume
    noise : tuple of Tensor
        Noise power per optics group and ring.
    before : Estimate
    plan : PassPlan
    monitor : Monitor

    Returns
    -------
    PassOutcome
    """
    run = _Pass(problem, references, noise, before, plan)
    monitor.stage(plan.name, len(problem.particles))
    for batch in problem.batches(torch.arange(len(problem.particles))):
        run.take(batch)
        monitor.advance(len(batch))
    return run.outcome()


class _Pass:
    """The growing results of a pass."""

    def __init__(
        self,
        problem: Problem,
        references: tuple[FourierVolume, FourierVolume],
        noise: tuple[Tensor, ...],
        before: Estimate,
        plan: PassPlan,
    ) -> None:
        self._problem, self._references = problem, references
        self._noise, self._plan = noise, plan
        self._estimate = before.clone()
        first, second = (
            SliceAccumulator.empty(
                problem.grid.box, plan.map_radius, references[0].padding
            )
            for _ in range(2)
        )
        self._sums = (first, second)
        self._residual = _ResidualPower(noise)
        self._slices: dict[tuple[int, int], GridSlices] = {}
        # Within each half's own frame: that of the second may be turned below.
        self._change = torch.zeros(len(problem.particles), dtype=torch.float64)
        self._gain = torch.zeros(len(problem.particles), dtype=torch.float64)
        self._frame = Frame.same()
        if plan.search is None:
            self._frame = relative_frame(
                problem, references, noise, before.poses, plan.radius
            )

    def take(self, batch: ParticleBatch) -> None:
        """Infer and insert the particles of a batch of one optics group and half."""
        plan, index = self._plan, batch.index
        group, half = int(batch.optics.group[0]), int(self._problem.half[index[0]])
        reach = max(plan.map_radius, plan.radius)
        images = whiten(batch, self._problem.grid, reach, self._noise[group])
        near = images.prefix(plan.radius)
        known = self._estimate.select(index)
        found = self._infer(half, group, near, known)
        empty = near.coefficients.abs().square().sum(1)
        self._gain[index] = found.poses.log_likelihood + empty
        same = nearest_mates(
            known.poses.rotation, found.poses.rotation, self._problem.symmetry_rotation
        )
        self._change[index] = geodesic_angle(found.poses.rotation, same)
        measured = torch.nonzero(self._problem.noise_rows[index]).squeeze(1)
        if len(measured):
            # As far as there is a map, so that the next pass knows its new rings.
            volume = self._references[half]
            measured = measured[is_usual(batch.images[measured])]
            sampled = images.prefix(min(reach, volume.radius)).select(measured)
            left = residual(volume, sampled, found.poses.select(measured))
            self._residual.add(group, sampled, left)
        placed = found if half == 0 else found.moved_to(self._frame)
        self._estimate.put(index, placed)
        insert_images(self._sums[half], images, placed.poses, plan.map_radius)

    def _infer(
        self, half: int, group: int, images: WhitenedImages, known: Estimate
    ) -> Estimate:
        volume, plan = self._references[half], self._plan
        if plan.search is None:
            return _refined(volume, images, known, self._problem, plan)
        if (group, half) not in self._slices:
            # Of one group and half after another: hundreds of groups would fill GBs.
            reach = self._problem.max_shift_angstrom
            slices = grid_slices(volume, images, reach, GRID_ORDER, plan.search)
            self._slices = {(group, half): slices}
        slices = self._slices[group, half]
        return _searched(volume, images, known, self._problem, plan.search, slices)

    def outcome(self) -> PassOutcome:
        """Return what all batches together gave."""
        moved = self._change > grid_step_radian(GRID_ORDER)
        return PassOutcome(
            self._estimate,
            self._sums,
            self._residual.mean(),
            float(self._change.median()),
            float(reproducible_mean(moved.double())),
            float(reproducible_mean(self._gain)),
        )


def _refined(
    volume: FourierVolume,
    images: WhitenedImages,
    known: Estimate,
    problem: Problem,
    plan: PassPlan,
) -> Estimate:
    poses = gauss_newton(
        volume, images, known.poses, problem.prior, plan.steps, plan.max_turn_radian
    )
    return known.with_poses(poses)


def _searched(
    volume: FourierVolume,
    images: WhitenedImages,
    known: Estimate,
    problem: Problem,
    search: SearchPlan,
    slices: GridSlices,
) -> Estimate:
    poses = known.poses
    seen = bool(torch.isfinite(poses.log_likelihood).all())
    modes = global_search(
        volume, slices, images, poses if seen else None, problem.prior, search
    )
    return Estimate(
        modes.best,
        modes.rotation[:, :MODES],
        modes.shift_angstrom[:, :MODES],
        modes.weight[:, :MODES] / modes.weight[:, :MODES].sum(1, keepdim=True),
    )


def insert_images(
    sums: SliceAccumulator, images: WhitenedImages, poses: LocalPoses, radius: int
) -> None:
    """Add images at their poses to the sums of their half, up to a Fourier radius."""
    offset = poses.defocus_offset_angstrom
    moved = images.prefix(radius).at_defocus_offset(offset)
    values = moved.moved_back(poses.shift_angstrom) * moved.ctf
    insert_slices(
        sums, poses.rotation, moved.disc, values, moved.ctf.square(), moved.scale
    )


def residual(
    volume: FourierVolume, images: WhitenedImages, poses: LocalPoses
) -> Tensor:
    """Return what a map at given poses leaves of whitened images, shape (b, p)."""
    images = images.at_defocus_offset(poses.defocus_offset_angstrom)
    slices = extract_slices(volume, poses.rotation, images.disc, images.scale)
    return images.moved_back(poses.shift_angstrom) - images.ctf * slices


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
