"""Maps of any conformation, made of the particles whose posterior lies near it.

Every image is inserted once for a conformation, into the sums of the narrowest kernel
that it belongs to; those of wider ones follow by addition
(:mod:`cryoinfer.reconstruction.kernel_regression`). Kernels are chosen shell by shell,
from the narrowest on: a wider one is taken where its maps explain the images of the one
taken before better than the maps of that one do, each half those of the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.kernel_regression import (
    ConformationPosterior,
    bandwidths,
    effective_number,
    explained_power,
    narrowest_kernels,
    voxel_shells,
)
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.records import ParticleBatch
from cryoinfer.results.target_volume import TargetVolume
from cryoinfer.workflows.final_maps import reconstruct_halves
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_pass import (
    ImageSource,
    InferredBatch,
    ParticlePass,
    PreparedBatch,
    run_pass,
)
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.reconstruct import given_poses
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.structure_update import (
    HalfMapSums,
    find_mask,
    insert_images,
    reference_volume,
)
from cryoinfer.world import ALONE, World

_GROWING = 6
"""Grids of sums of a conformation that is under way: of both halves the kernel that is
reached, and what is taken; maps of both take half as much."""

_GIGABYTE = 1e9

Cell = tuple[int, int]
"""Numbers of a conformation and of one of its kernels."""


@dataclass(frozen=True)
class VolumesConfig:
    """What may be chosen.

    Attributes
    ----------
    symmetry : str
    particle_diameter_angstrom : float, optional
        By default three quarters of the box.
    memory_bytes : float
        For sums. With less of it the particles are read more often; the maps are the
        same.
    seed : int
        Divides the particles into halves where the file does not.
    """

    symmetry: str = "C1"
    particle_diameter_angstrom: float | None = None
    memory_bytes: float = 8 * _GIGABYTE
    seed: int = 0


_DEFAULTS = VolumesConfig()


def kernel_volumes(
    particles: Particles,
    posterior: ConformationPosterior,
    targets: Tensor,
    config: VolumesConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
) -> Iterator[TargetVolume]:
    """Make maps of conformations; what is wrong is refused before the first is made.

    The halves share what the posteriors of pose and z were found with.

    Parameters
    ----------
    particles : Particles
        With poses.
    posterior : ConformationPosterior
        Of the same n particles; those of which nothing is known are left out.
    targets : Tensor, shape (t, q)
        The conformations.
    config : VolumesConfig, optional
    monitor : Monitor, optional
    world : World
        The processes that share the particles, each of which calls this and goes
        through all maps.

    Returns
    -------
    iterator of TargetVolume
        In the order of the targets, each as soon as its sums are there.

    Raises
    ------
    InputError
        If particles have no poses, or a conformation has another number of dimensions
        or is far from every particle.
    """
    near = near_particles(posterior, targets)
    known = posterior.known
    chosen = particles.select(known)
    given_poses(chosen)
    problem = define_problem(
        chosen,
        config.symmetry,
        config.particle_diameter_angstrom,
        max_shift_angstrom=None,
        defocus_sd_angstrom=0.0,
        generator=torch.Generator().manual_seed(config.seed),
    ).shared_by(world)
    if len(problem.half.unique()) < 2:
        raise InputError(
            f"expected particles of both half-sets, found {len(chosen):,} of one half "
            "whose conformation is known"
        )
    kernels = [_Kernels.of(problem, posterior[known], one) for one in targets]
    monitor = SharedMonitor(monitor, world)
    return _made(problem, kernels, near, config.memory_bytes, monitor)


def near_particles(posterior: ConformationPosterior, targets: Tensor) -> list[int]:
    """Return to how many particles each conformation is near.

    Raises
    ------
    InputError
        If a conformation has another number of dimensions, or is near to none.
    """
    require_dimensions(posterior, targets.shape[1])
    if not bool(posterior.known.any()):
        raise InputError("the conformation of no particle is known")
    mean = posterior.mean[posterior.known]
    low, high = mean.min(0).values.tolist(), mean.max(0).values.tolist()
    ranges = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in zip(low, high, strict=True))
    near = [int(posterior.is_near(one).sum()) for one in targets]
    for count, target in zip(near, targets, strict=True):
        if not count:
            told = ",".join(f"{one:.3g}" for one in target.tolist())
            raise InputError(
                f"no particle is near z = {told}, so that no map can be made there; "
                f"their z go from {ranges}. Name one among them"
            )
    return near


def require_dimensions(posterior: ConformationPosterior, found: int) -> None:
    """Refuse a conformation of another number of dimensions.

    Raises
    ------
    InputError
    """
    expected = posterior.dimensions
    if found != expected:
        numbers = "one number" if expected == 1 else f"{expected} numbers"
        raise InputError(f"expected z of {numbers}, as the run has, found {found}")


@dataclass(frozen=True)
class _Kernels:
    """The nested kernels of a conformation.

    Attributes
    ----------
    target : Tensor, shape (q,)
    narrowest : Tensor of int64, shape (n,)
        The narrowest kernel that each particle is in.
    particles : Tensor of int64, shape (kernels,)
        In each kernel.
    """

    target: Tensor
    narrowest: Tensor
    particles: Tensor

    @classmethod
    def of(
        cls, problem: Problem, posterior: ConformationPosterior, target: Tensor
    ) -> "_Kernels":
        squared = posterior.squared_distance(target)
        radii = bandwidths(squared, problem.half)
        narrowest = narrowest_kernels(squared, radii)
        count = torch.bincount(narrowest, minlength=len(radii))[: len(radii)]
        return cls(target, narrowest, count.cumsum(0))

    def __len__(self) -> int:
        return len(self.particles)


def _made(
    problem: Problem,
    kernels: Sequence[_Kernels],
    near: Sequence[int],
    memory_bytes: float,
    monitor: Monitor,
) -> Iterator[TargetVolume]:
    """Yield the maps of all conformations."""
    empty = _empty(problem)
    a_grid = empty.first.sums.nbytes
    cells = [(t, b) for t, one in enumerate(kernels) for b in range(len(one))]
    room = max(1, int(memory_bytes / a_grid - _GROWING) // 2)
    passes = [cells[i : i + room] for i in range(0, len(cells), room)]
    grids = _GROWING + 2 * len(passes[0])
    monitor.message(
        f"Sums take {grids * a_grid / _GIGABYTE:.2g} GB; particles are read "
        f"{len(passes)} time{'s' * (len(passes) > 1)}"
    )
    noise = initial_noise(problem)
    images = StrictImages(problem.grid, problem.grid.box // 2 - 1, noise)
    shells = voxel_shells(empty.first)
    growing = None
    for number, some in enumerate(passes, 1):
        sums = _CellSums(problem, kernels, some)
        _insert(problem, images, sums, f"volumes, pass {number}", monitor)
        for target, kernel in some:
            if kernel == 0:
                growing = _GrowingVolume(problem, kernels[target], shells)
            assert growing is not None  # every conformation begins with its first one
            growing.widen(kernel, sums.taken((target, kernel)))
            if kernel == len(kernels[target]) - 1:
                yield growing.finished(near[target])


def _empty(problem: Problem) -> HalfMapSums:
    return HalfMapSums.empty(problem.grid.box, problem.grid.box // 2 - 1)


class _CellSums:
    """Sums of particles by conformation, kernel and half; an `Accumulator`."""

    def __init__(
        self, problem: Problem, kernels: Sequence[_Kernels], cells: Sequence[Cell]
    ) -> None:
        self._kernels = kernels
        self._sums = {cell: _empty(problem) for cell in cells}

    def needed(self) -> Tensor:
        """Tell which particles add to any of the sums, a mask."""
        parts = [self._kernels[t].narrowest == b for t, b in self._sums]
        return torch.stack(parts).any(0)

    def add(self, one: InferredBatch[object]) -> None:
        """Insert images for each conformation, where their kernel is among the sums."""
        index, latents = one.batch.index.cpu(), one.placed.mode()
        for (target, kernel), sums in self._sums.items():
            narrowest = self._kernels[target].narrowest[index]
            rows = torch.nonzero(narrowest == kernel).squeeze(1)
            into = sums.second if one.half else sums.first
            insert_images(into, one.images.select(rows), latents[rows])

    @property
    def tensors(self) -> list[Tensor]:
        """The sums."""
        return [one for sums in self._sums.values() for one in sums.tensors]

    def taken(self, cell: Cell) -> HalfMapSums:
        """Return the sums of a kernel, which are no longer kept."""
        return self._sums.pop(cell)


@dataclass(frozen=True)
class _NeededImages:
    """Images of those particles that are needed; an `ImageSource`.

    A batch is divided, not made anew: sums are then the same to the last bit however
    many passes there are.
    """

    source: ImageSource
    needed: Tensor

    def prepare(self, batch: ParticleBatch) -> PreparedBatch | None:
        rows = torch.nonzero(self.needed[batch.index]).squeeze(1)
        return self.source.prepare(batch[rows]) if len(rows) else None


def _insert(
    problem: Problem, images: ImageSource, sums: _CellSums, name: str, monitor: Monitor
) -> None:
    """Add the particles of all processes to sums."""
    step = ParticlePass(
        name,
        _NeededImages(images, sums.needed()),
        (None, None),
        problem.prior,
        GivenPoses(),
        lambda one: one.posterior,
        (sums,),
    )
    known = ParticlePosterior.at(given_poses(problem.particles), 1)
    run_pass(problem, step, known, known, monitor)


class _GrowingVolume:
    """The map of a conformation, kernel by kernel from the narrowest on."""

    def __init__(self, problem: Problem, kernels: _Kernels, shells: Tensor) -> None:
        self._problem, self._kernels, self._shells = problem, kernels, shells
        self._reached, self._chosen = _empty(problem), _empty(problem)
        self._maps: tuple[FourierVolume, FourierVolume] | None = None
        shell_count = self._reached.first.radius + 2
        self._choice = torch.zeros(shell_count, dtype=torch.int64)

    def widen(self, kernel: int, sums: HalfMapSums) -> None:
        """Add the particles of the next kernel, and take it where it explains more."""
        added = sums.symmetrised(self._problem.symmetry_rotation)
        for own, more in zip(self._reached.tensors, added, strict=True):
            own += more.sums
        maps, chosen = self._reached_maps(), self._chosen
        if self._maps is None:
            self._maps = maps
            better = torch.ones_like(self._choice, dtype=torch.bool)
        else:
            images = chosen.first, chosen.second
            least, found = (
                explained_power(halves, images, self._shells)
                for halves in (self._maps, maps)
            )
            better = found > least
        self._choice[better] = kernel
        taken = better.numpy()[self._shells.numpy()][..., None]
        before = *chosen.tensors, *(half.values for half in self._maps)
        after = *self._reached.tensors, *(half.values for half in maps)
        for one, other in zip(before, after, strict=True):
            np.copyto(one.numpy(), other.numpy(), where=taken)

    def _reached_maps(self) -> tuple[FourierVolume, FourierVolume]:
        """Return the half-maps of the kernel that is reached, within the sphere."""
        grid, reached = self._problem.grid, self._reached
        voxels = self._problem.particle_radius_angstrom / grid.pixel_size_angstrom
        sphere = soft_sphere(grid.box, voxels, 2.0)
        first, second = (
            reference_volume(solve(one, None, grid.box, grid.box) * sphere, one.radius)
            for one in (reached.first, reached.second)
        )
        return first, second

    def finished(self, near: int) -> TargetVolume:
        """Return the map, its halves, mask and FSC."""
        problem, kernels = self._problem, self._kernels
        box = problem.grid.box
        sums = self._chosen.first, self._chosen.second
        halves = [solve(one, None, box, box) for one in sums]
        mask = find_mask(problem, halves[0] + halves[1], box // 8)
        maps = reconstruct_halves(problem, sums, mask)
        last = problem.grid.radius_at(maps.resolution_angstrom)
        return TargetVolume(
            kernels.target,
            maps,
            near,
            effective_number(kernels.narrowest, self._choice, last),
            kernels.particles[self._choice],
        )
