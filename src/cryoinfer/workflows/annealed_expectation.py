"""One iteration of a random start: expectation over every pose, and the next map.

Minibatches of images are assigned softly to all rotations and shifts of a grid. The
likelihood is flattened by a temperature that falls to 1, so that the first maps are
blobs and symmetry breaks slowly; the noise is measured as the map explains more. Then
sums are carried from one minibatch to the next and slowly forgotten, so that the map is
one of many more images than an iteration looks at (stochastic approximation of EM;
Cappe and Moulines, J. R. Statist. Soc. B 71, 593, 2009).
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_sum
from cryoinfer.fourier.slices import FourierVolume, SliceAccumulator, insert_slices
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.so3_grid import asymmetric_unit
from cryoinfer.geometry.symmetry import is_polyhedral
from cryoinfer.inference.coarse import (
    GRID_ORDER,
    GridSlices,
    PoseGrid,
    normalised_weights,
    shift_grid,
)
from cryoinfer.inference.whitening import WhitenedImages, concatenate, whiten
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.workflows.acquisition import is_usual_power
from cryoinfer.workflows.problem import Problem, start_radius

_HOTTEST = 8.0
_ITERATIONS = 30
_MINIBATCH = 250

_POLYHEDRAL_ITERATIONS = 20
_POLYHEDRAL_STARTS = 6
"""Starts of a particle with the point group of a polyhedron, for one of another. Slow
annealing takes each of them to the same wrong arrangement of the units about the
centre; without it every third start finds the right one, which is the likeliest by far
(``benchmarks/README.md``, section 35). A start costs little, since the search is one
of all mates."""

_ANNEALED_SHARE = 0.6  # of the iterations, until the temperature is 1

_MEMORY_GROWTH = 0.1
_LONGEST_MEMORY = 16.0
"""Minibatches that a map is made of: one while the temperature falls, then a tenth of
one more with every iteration."""

_AVERAGED = 5  # iterations, for the unexplained power

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
        Independent random starts; the likeliest goes on.
    iterations : int
        Of each start.
    minibatch : int
        Images an iteration.
    hottest : float
        Temperature of the first iteration; 1 does not anneal.
    """

    radius: int
    starts: int
    iterations: int
    minibatch: int
    hottest: float

    @classmethod
    def of_particle(cls, problem: Problem, starts: int) -> Self:
        """Return how hard to try, by the symmetry and the size of the particle.

        Parameters
        ----------
        problem : Problem
        starts : int
            Of a particle whose point group is not that of a polyhedron.
        """
        radius = start_radius(problem)
        if is_polyhedral(problem.symmetry_rotation):
            starts *= _POLYHEDRAL_STARTS
            return cls(radius, starts, _POLYHEDRAL_ITERATIONS, _MINIBATCH, 1.0)
        return cls(radius, starts, _ITERATIONS, _MINIBATCH, _HOTTEST)


@dataclass(frozen=True)
class Annealed:
    """Where a start stands: what its next iteration depends on, but for chance.

    Attributes
    ----------
    density : Tensor, shape (m, m, m)
        On coarse voxels, masked by a sphere.
    sums : Tensor
        Of slices, that the map was made of.
    noise_ratio : float
        Residual power over the power of the images, inside the radius.
    recent_ratios : tuple of float
        Of the last iterations, whose residuals are those of few images each.
    iteration : int
        What comes next.
    """

    density: Tensor
    sums: Tensor
    noise_ratio: float = 1.0
    recent_ratios: tuple[float, ...] = ()
    iteration: int = 0

    @property
    def unexplained_power(self) -> float:
        """The mean over the last iterations."""
        return sum(self.recent_ratios) / len(self.recent_ratios)


class AnnealedExpectation:
    """The parts of a start that do not depend on chance.

    Parameters
    ----------
    problem : Problem
    noise : tuple of Tensor
        Power of the images per optics group and ring.
    config : RandomStartConfig
    chosen : Tensor of int64
        Rows of particles, of which the largest pool's worth is read.
    """

    def __init__(
        self,
        problem: Problem,
        noise: tuple[Tensor, ...],
        config: RandomStartConfig,
        chosen: Tensor,
    ) -> None:
        self.config = config
        self._problem = problem
        self._pool = _load(problem, noise, config.radius, chosen[:_LARGEST_POOL])
        self._total = sum(len(images) for images in self._pool)
        step = problem.grid.resolution_at(config.radius) / 3
        shifts = shift_grid(problem.max_shift_angstrom, step)
        # Mates look alike: one of them is enough.
        rotations = asymmetric_unit(GRID_ORDER, problem.symmetry_rotation)
        self._grid = PoseGrid(rotations, shifts).to(problem.device)
        self._map_box = problem.map_box(config.radius)
        voxel = problem.grid.length_angstrom / self._map_box
        radius = problem.particle_radius_angstrom / voxel
        self._mask = soft_sphere(self._map_box, radius, 1.5)

    @property
    def images(self) -> int:
        """How many images an iteration looks at."""
        return min(self.config.minibatch, self._total)

    def begun(self, generator: torch.Generator) -> Annealed:
        """Return the beginning of a start: a map of random poses."""
        sums = self._random_sums(generator)
        return Annealed(self._solved(sums), sums.sums.cpu())

    def iterated(self, now: Annealed, generator: torch.Generator) -> Annealed:
        """Return a start after one more iteration."""
        annealed = _ANNEALED_SHARE * self.config.iterations
        temperature = self.config.hottest * (1 - now.iteration / annealed)
        temperature = max(1.0, temperature)
        memory = 1 + _MEMORY_GROWTH * (now.iteration - annealed)
        memory = min(max(memory, 1.0), _LONGEST_MEMORY)
        density = now.density.to(self._problem.device)
        volume = FourierVolume.from_map(density, self.config.radius, 2.0)
        minibatch = self._minibatch(now.noise_ratio, generator)
        found = self._expect(volume, minibatch, temperature)
        found.sums.sums.add_(now.sums.to(found.sums.sums), alpha=1 - 1 / memory)
        ratio = now.noise_ratio * max(found.residual_power, 1e-3)
        return Annealed(
            density=self._solved(found.sums),
            sums=found.sums.sums.cpu(),
            noise_ratio=ratio,
            recent_ratios=(*now.recent_ratios, ratio)[-_AVERAGED:],
            iteration=now.iteration + 1,
        )

    def _minibatch(
        self, ratio: float, generator: torch.Generator
    ) -> list[WhitenedImages]:
        taken = []
        for images in self._pool:
            share = max(1, round(self.images * len(images) / self._total))
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
            problem.grid.box, self.config.radius, 2.0, problem.device
        )

    def _random_sums(self, generator: torch.Generator) -> SliceAccumulator:
        sums = self._empty()
        for images in self._minibatch(1.0, generator):
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
        left, coefficients = 0.0, 0
        per_image = len(self._grid.rotation) * len(self._grid.shift_angstrom)
        size = max(1, _MEMORY_ELEMENTS // per_image)
        for images in minibatch:
            slices = GridSlices.of(volume, self._grid, images.disc, images.scale)
            for rows in torch.arange(len(images)).split(size):
                part = images.select(rows)
                likelihood = slices.log_likelihood(part)
                scaled = likelihood.movedim(1, 0).flatten(1) / temperature
                weight = normalised_weights(scaled)
                explained = reproducible_sum(weight * scaled) * temperature
                weight = weight.unflatten(1, (likelihood.shape[0], -1)).movedim(0, 1)
                slices.insert_expectation(sums, part, weight)
                power = reproducible_sum(part.coefficients.abs().square())
                left += float(power - explained)
                coefficients += part.coefficients.numel()
        return _Expectation(sums, left / coefficients)


@dataclass(frozen=True)
class _Expectation:
    sums: SliceAccumulator
    residual_power: float  # mean over coefficients and poses


def _load(
    problem: Problem, noise: tuple[Tensor, ...], radius: int, index: Tensor
) -> list[WhitenedImages]:
    parts: dict[int, list[WhitenedImages]] = {}
    for batch in problem.batches(index):
        group = int(batch.optics.group[0])
        images = whiten(batch, problem.grid, radius, noise[group])
        usual = torch.nonzero(is_usual_power(images)).squeeze(1)
        parts.setdefault(group, []).append(images.select(usual))
    return [concatenate(group) for group in parts.values()]
