"""A low-resolution map from nothing: annealed expectation over every pose.

Minibatches of images are assigned softly to all rotations and shifts of a grid. The
likelihood is flattened by a temperature that falls to 1, so that the first maps are
blobs and symmetry breaks slowly; the noise is measured as the map explains more.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.fourier.slices import FourierVolume, SliceAccumulator, insert_slices
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.so3_grid import rotation_grid
from cryoinfer.inference.coarse import GRID_ORDER, GridSlices, PoseGrid, shift_grid
from cryoinfer.inference.whitening import WhitenedImages, concatenate, whiten
from cryoinfer.interfaces import Monitor
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.workflows.problem import Problem

FEWEST_PARTICLES = 100

_HOTTEST = 8.0
_ANNEALED_SHARE = 0.6  # of the iterations, until the temperature is 1
_CONCENTRATED_NATS = 3.0
"""Mean entropy of an image's posterior over the grid that ends a start: about twenty
poses. Noisier images stay above it until more of them are averaged."""

_MOST_ROUNDS = 4  # each with twice as many images an iteration
_LARGEST_POOL = 20_000
_MEMORY_ELEMENTS = 2**23


@dataclass(frozen=True)
class RandomStartConfig:
    """How hard to try.

    Attributes
    ----------
    radius : int
        Fourier radius of the map.
    starts : int
        Independent random starts; the likeliest wins.
    iterations : int
        A round.
    minibatch : int
        Images an iteration of the first round; doubled while poses stay uncertain.
    """

    radius: int
    starts: int
    iterations: int
    minibatch: int


@dataclass(frozen=True)
class RandomStart:
    """The likeliest map of all starts.

    Attributes
    ----------
    density : Tensor, shape (m, m, m)
        On coarse voxels, masked by a sphere.
    noise_ratio : float
        Residual power over the power of the images, inside the radius.
    ratios : tuple of float
        That of every start.
    """

    density: Tensor
    noise_ratio: float
    ratios: tuple[float, ...]


def random_start(
    problem: Problem,
    noise: tuple[Tensor, ...],
    config: RandomStartConfig,
    generator: torch.Generator,
    monitor: Monitor,
) -> RandomStart:
    """Make maps from random poses and keep the likeliest.

    Parameters
    ----------
    problem : Problem
    noise : tuple of Tensor
        Power of the images per optics group and ring.
    config : RandomStartConfig
    generator : torch.Generator
    monitor : Monitor

    Returns
    -------
    RandomStart

    Raises
    ------
    InputError
        If there are fewer than 100 particles.
    """
    n = len(problem.particles)
    if n < FEWEST_PARTICLES:
        raise InputError(
            f"ab initio needs at least {FEWEST_PARTICLES} particles, found {n}; with a "
            "map of the molecule, `cryoinfer refine --map` works with fewer"
        )
    chosen = torch.randperm(n, generator=generator)[:_LARGEST_POOL]
    pool = _load(problem, noise, config.radius, chosen)
    annealing = _Annealing(problem, config, pool)
    monitor.stage("random starts", config.starts * annealing.fewest_images)
    best: tuple[Tensor, float] | None = None
    ratios = []
    for start in range(config.starts):
        name = f"random start {start + 1}"
        density, ratio = annealing.run(name, generator, monitor)
        monitor.message(f"{name}: unexplained power {ratio:.4f}")
        ratios.append(ratio)
        if best is None or ratio < best[1]:
            best = density, ratio
    assert best is not None
    return RandomStart(*best, tuple(ratios))


def _load(
    problem: Problem, noise: tuple[Tensor, ...], radius: int, index: Tensor
) -> list[WhitenedImages]:
    parts: dict[int, list[WhitenedImages]] = {}
    for batch in problem.batches(index):
        group = int(batch.optics.group[0])
        images = whiten(batch, problem.grid, radius, noise[group])
        parts.setdefault(group, []).append(images)
    return [concatenate(group) for group in parts.values()]


@dataclass(frozen=True)
class _Expectation:
    sums: SliceAccumulator
    residual_power: float  # mean over coefficients and poses
    entropy_nats: float  # mean over images


class _Annealing:
    """The parts of a start that do not depend on chance."""

    def __init__(
        self, problem: Problem, config: RandomStartConfig, pool: list[WhitenedImages]
    ) -> None:
        self._problem = problem
        self._config = config
        self._pool = pool
        self._total = sum(len(images) for images in pool)
        step = problem.grid.resolution_at(config.radius) / 3
        shifts = shift_grid(problem.max_shift_angstrom, step)
        self._grid = PoseGrid(rotation_grid(GRID_ORDER), shifts)
        self._map_box = problem.map_box(config.radius)
        voxel = problem.grid.length_angstrom / self._map_box
        radius = problem.particle_radius_angstrom / voxel
        self._mask = soft_sphere(self._map_box, radius, 1.5)

    @property
    def fewest_images(self) -> int:
        """How many images a start looks at that ends with its first round."""
        return self._config.iterations * min(self._config.minibatch, self._total)

    def run(
        self, name: str, generator: torch.Generator, monitor: Monitor
    ) -> tuple[Tensor, float]:
        """Return one start's map and its share of unexplained power.

        The monitor counts images, for later rounds have more of them.
        """
        volume, density = self._update(self._random_sums(generator))
        ratio, entropy = 1.0, float("inf")
        for round_number in range(_MOST_ROUNDS):
            size = self._config.minibatch * 2**round_number
            images = min(size, self._total)
            if round_number:
                monitor.extend(self._config.iterations * images)
                monitor.message(
                    f"{name}: poses are uncertain yet (entropy {entropy:.1f} nats, "
                    f"below {_CONCENTRATED_NATS:g} is enough): round "
                    f"{round_number + 1} of at most {_MOST_ROUNDS}, of {images:,} "
                    "images an iteration"
                )
            recent: list[_Expectation] = []
            for iteration in range(self._config.iterations):
                progress = iteration / (_ANNEALED_SHARE * self._config.iterations)
                temperature = max(1.0, _HOTTEST * (1 - progress))
                minibatch = self._minibatch(size, ratio, generator)
                found = self._expect(volume, minibatch, temperature)
                ratio *= max(found.residual_power, 1e-3)
                volume, density = self._update(found.sums)
                recent.append(replace(found, residual_power=ratio))
                monitor.advance(images)
            ratio = sum(found.residual_power for found in recent[-5:]) / 5
            entropy = recent[-1].entropy_nats
            if entropy < _CONCENTRATED_NATS:
                break
        return density, ratio

    def _minibatch(
        self, size: int, ratio: float, generator: torch.Generator
    ) -> list[WhitenedImages]:
        taken = []
        for images in self._pool:
            share = max(1, round(size * len(images) / self._total))
            rows = torch.randperm(len(images), generator=generator)[:share]
            part, factor = images.select(rows), ratio**-0.5
            taken.append(
                replace(
                    part,
                    coefficients=part.coefficients * factor,
                    ctf=part.ctf * factor,
                    weight=part.weight * factor,
                )
            )
        return taken

    def _empty(self) -> SliceAccumulator:
        return SliceAccumulator.empty(
            self._problem.grid.box, self._config.radius, padding=2.0
        )

    def _random_sums(self, generator: torch.Generator) -> SliceAccumulator:
        sums = self._empty()
        for images in self._minibatch(self._config.minibatch, 1.0, generator):
            insert_slices(
                sums,
                random_rotations(len(images), generator),
                images.disc,
                images.coefficients * images.ctf,
                images.ctf.square(),
                images.scale,
            )
        return sums

    def _update(self, sums: SliceAccumulator) -> tuple[FourierVolume, Tensor]:
        whole = symmetrise(sums, self._problem.symmetry_rotation)
        density = solve(whole, None, self._problem.grid.box, self._map_box)
        density = density * self._mask
        return FourierVolume.from_map(density, self._config.radius, 2.0), density

    def _expect(
        self,
        volume: FourierVolume,
        minibatch: list[WhitenedImages],
        temperature: float,
    ) -> "_Expectation":
        sums = self._empty()
        left, entropy, coefficients, count = 0.0, 0.0, 0, 0
        per_image = len(self._grid.rotation) * len(self._grid.shift_angstrom)
        size = max(1, _MEMORY_ELEMENTS // per_image)
        for images in minibatch:
            slices = GridSlices.of(volume, self._grid, images.disc, images.scale)
            for rows in torch.arange(len(images)).split(size):
                part = images.select(rows)
                likelihood = slices.log_likelihood(part)
                scaled = likelihood.movedim(1, 0).flatten(1) / temperature
                weight = torch.softmax(scaled, 1)
                explained = (weight * scaled).sum() * temperature
                weight = weight.unflatten(1, (likelihood.shape[0], -1)).movedim(0, 1)
                slices.insert_expectation(sums, part, weight)
                left += float(part.coefficients.abs().square().sum() - explained)
                coefficients += part.coefficients.numel()
                entropy += float(-torch.xlogy(weight, weight).sum())
                count += len(part)
        return _Expectation(sums, left / coefficients, entropy / count)
