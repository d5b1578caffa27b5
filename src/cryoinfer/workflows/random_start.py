"""A low-resolution map from nothing: annealed expectation over every pose.

Minibatches of images are assigned softly to all rotations and shifts of a grid. The
likelihood is flattened by a temperature that falls to 1, so that the first maps are
blobs and symmetry breaks slowly; the noise is measured as the map explains more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_sum
from cryoinfer.errors import InputError, state_of_this_version
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
_AVERAGED = 5  # iterations at the end of a round, for its unexplained power

_KEPT_EVERY = 10
"""Iterations after which a checkpoint is kept; the last of a round is one of them."""

BEGINNING = "random starts"
"""Under which a checkpoint keeps them, until they are over."""

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


def require_many(particles: int) -> None:
    """Refuse particles too few for a map from nothing.

    Raises
    ------
    InputError
    """
    if particles < FEWEST_PARTICLES:
        raise InputError(
            f"ab initio needs at least {FEWEST_PARTICLES} particles, found "
            f"{particles}; with a map of the molecule, `cryoinfer refine --map` works "
            "with fewer"
        )


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
        Its checkpoint, if it has one, is continued.

    Returns
    -------
    RandomStart

    Raises
    ------
    InputError
        If there are fewer than 100 particles.
    """
    n = len(problem.particles)
    require_many(n)
    chosen = torch.randperm(n, generator=generator)[:_LARGEST_POOL]
    pool = _load(problem, noise, config.radius, chosen)
    annealing = _Annealing(problem, config, pool)
    starts = _Starts.restored(monitor.load_checkpoint(), generator)
    left = config.starts - len(starts.ratios)
    planned = left * annealing.fewest_images
    if starts.now is not None:
        planned += annealing.images_left(starts.now) - annealing.fewest_images
    monitor.stage("random starts", planned)
    while len(starts.ratios) < config.starts:
        name = f"random start {len(starts.ratios) + 1}"
        now = starts.now or annealing.begun(generator)
        while not annealing.is_over(now):
            now = annealing.iterated(name, now, generator, monitor)
            if now.iteration % _KEPT_EVERY == 0:
                starts = replace(starts, now=now)
                monitor.save_checkpoint(starts.state(generator))
        monitor.message(f"{name}: unexplained power {now.ratio:.4f}")
        starts = starts.ended(now)
    assert starts.best is not None
    return RandomStart(starts.best, min(starts.ratios), starts.ratios)


@dataclass(frozen=True)
class _Now:
    """Where a start stands: what its next iteration depends on, but for chance.

    Attributes
    ----------
    density : Tensor, shape (m, m, m)
    ratio : float
        The share of unexplained power.
    round_number, iteration : int
        What comes next.
    recent : tuple of float
        Ratios of the iterations of this round.
    entropy_nats : float
        Of the last one.
    """

    density: Tensor
    ratio: float = 1.0
    round_number: int = 0
    iteration: int = 0
    recent: tuple[float, ...] = ()
    entropy_nats: float = float("inf")


@dataclass(frozen=True)
class _Starts:
    """How far the random starts have come.

    Attributes
    ----------
    ratios : tuple of float
        Of those that are over.
    best : Tensor or None
        The likeliest of their maps.
    now : _Now or None
        The one under way.
    """

    ratios: tuple[float, ...] = ()
    best: Tensor | None = None
    now: _Now | None = None

    def ended(self, now: _Now) -> Self:
        """Return them with the one under way among those that are over."""
        wins = not self.ratios or now.ratio < min(self.ratios)
        best = now.density if wins else self.best
        return replace(self, ratios=(*self.ratios, now.ratio), best=best, now=None)

    def state(self, generator: torch.Generator) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        kept = dict(vars(self), generator=generator.get_state())
        return {BEGINNING: kept | {"now": dict(vars(self.now)) if self.now else None}}

    @classmethod
    def restored(
        cls, state: Mapping[str, Any] | None, generator: torch.Generator
    ) -> Self:
        """Invert :meth:`state`; without one nothing has begun."""
        if state is None:
            return cls()
        with state_of_this_version():
            saved = dict(state[BEGINNING])
            generator.set_state(saved.pop("generator"))
            now = saved.pop("now")
            return cls(**saved, now=None if now is None else _Now(**now))


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
        self._grid = PoseGrid(rotation_grid(GRID_ORDER), shifts).to(problem.device)
        self._map_box = problem.map_box(config.radius)
        voxel = problem.grid.length_angstrom / self._map_box
        radius = problem.particle_radius_angstrom / voxel
        self._mask = soft_sphere(self._map_box, radius, 1.5)

    @property
    def fewest_images(self) -> int:
        """How many images a start looks at that ends with its first round."""
        return self._config.iterations * min(self._config.minibatch, self._total)

    def images_left(self, now: _Now) -> int:
        """Return how many images the round of a start still looks at."""
        images = min(self._round_images(now.round_number), self._total)
        return (self._config.iterations - now.iteration) * images

    def is_over(self, now: _Now) -> bool:
        """Tell whether a start has come to its end, with its last round or before."""
        certain = now.entropy_nats < _CONCENTRATED_NATS
        ended = bool(now.round_number) and not now.iteration
        return ended and (certain or now.round_number == _MOST_ROUNDS)

    def begun(self, generator: torch.Generator) -> _Now:
        """Return the beginning of a start: a map of random poses."""
        return _Now(self._solved(self._random_sums(generator)))

    def iterated(
        self, name: str, now: _Now, generator: torch.Generator, monitor: Monitor
    ) -> _Now:
        """Return a start after one more iteration.

        The monitor counts images, for later rounds have more of them.
        """
        size = self._round_images(now.round_number)
        images = min(size, self._total)
        if now.round_number and not now.iteration:
            monitor.extend(self._config.iterations * images)
            monitor.message(
                f"{name}: poses are uncertain yet (entropy {now.entropy_nats:.1f} "
                f"nats, below {_CONCENTRATED_NATS:g} is enough): round "
                f"{now.round_number + 1} of at most {_MOST_ROUNDS}, of {images:,} "
                "images an iteration"
            )
        progress = now.iteration / (_ANNEALED_SHARE * self._config.iterations)
        temperature = max(1.0, _HOTTEST * (1 - progress))
        density = now.density.to(self._problem.device)
        volume = FourierVolume.from_map(density, self._config.radius, 2.0)
        minibatch = self._minibatch(size, now.ratio, generator)
        found = self._expect(volume, minibatch, temperature)
        ratio = now.ratio * max(found.residual_power, 1e-3)
        monitor.advance(images)
        recent = (*now.recent, ratio)[-_AVERAGED:]
        later = replace(
            now,
            density=self._solved(found.sums),
            ratio=ratio,
            iteration=now.iteration + 1,
            recent=recent,
            entropy_nats=found.entropy_nats,
        )
        if later.iteration < self._config.iterations:
            return later
        return replace(
            later,
            ratio=sum(recent) / len(recent),
            round_number=now.round_number + 1,
            iteration=0,
            recent=(),
        )

    def _round_images(self, number: int) -> int:
        return self._config.minibatch * 2**number

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
        problem = self._problem
        return SliceAccumulator.empty(
            problem.grid.box, self._config.radius, 2.0, problem.device
        )

    def _random_sums(self, generator: torch.Generator) -> SliceAccumulator:
        sums = self._empty()
        for images in self._minibatch(self._config.minibatch, 1.0, generator):
            insert_slices(
                sums,
                random_rotations(len(images), generator).to(sums.device),
                images.disc,
                images.coefficients * images.ctf,
                images.ctf.square(),
                images.scale,
            )
        return sums

    def _solved(self, sums: SliceAccumulator) -> Tensor:
        whole = symmetrise(sums.to("cpu"), self._problem.symmetry_rotation)
        density = solve(whole, None, self._problem.grid.box, self._map_box)
        return density * self._mask

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
                explained = reproducible_sum(weight * scaled) * temperature
                weight = weight.unflatten(1, (likelihood.shape[0], -1)).movedim(0, 1)
                slices.insert_expectation(sums, part, weight)
                power = reproducible_sum(part.coefficients.abs().square())
                left += float(power - explained)
                coefficients += part.coefficients.numel()
                entropy -= float(reproducible_sum(torch.xlogy(weight, weight)))
                count += len(part)
        return _Expectation(sums, left / coefficients, entropy / count)
