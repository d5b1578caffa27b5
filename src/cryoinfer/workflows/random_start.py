"""A low-resolution map from nothing: several random starts, of which one goes on.

Each start anneals a map of random poses
(:mod:`cryoinfer.workflows.annealed_expectation`). The likeliest of them goes on until
its map rests, which is judged by the map alone: how sharp the posteriors of poses get
depends on the signal, and on symmetry that nobody stated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_sum
from cryoinfer.errors import InputError, state_of_this_version
from cryoinfer.interfaces import Monitor
from cryoinfer.workflows.annealed_expectation import (
    Annealed,
    AnnealedExpectation,
    RandomStartConfig,
)
from cryoinfer.workflows.problem import Problem

FEWEST_PARTICLES = 100

_RESTS = 0.99
"""Correlation of the map with that of ten iterations before that ends a start."""

_JUDGED_EVERY = 10
"""Iterations between two such comparisons, and between two checkpoints."""

_MOST_ROUNDS = 4
"""Iterations of the start that goes on over those of the others, at most."""

BEGINNING = "random starts"
"""Under which a checkpoint keeps them, until they are over."""


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
        That of every start when they were compared.
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
    """Make maps from random poses, and go on with the likeliest until it rests.

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
    chosen = torch.randperm(n, generator=generator)
    annealing = AnnealedExpectation(problem, noise, config, chosen)
    starts = _Starts.restored(monitor.load_checkpoint(), generator)
    starts = _raced(starts, annealing, generator, monitor)
    best = _rested(starts, annealing, generator, monitor)
    return RandomStart(best.density, best.unexplained_power, starts.ratios)


@dataclass(frozen=True)
class _Starts:
    """How far the random starts have come.

    Attributes
    ----------
    ratios : tuple of float
        Of those that have been compared.
    best : Annealed or None
        The likeliest of them.
    now : Annealed or None
        The one under way.
    agreement : float
        Correlation of the likeliest map with that of some iterations before; 0 before
        it has gone on.
    """

    ratios: tuple[float, ...] = ()
    best: Annealed | None = None
    now: Annealed | None = None
    agreement: float = 0.0

    def compared(self) -> Self:
        """Return them with the one under way among those that have been compared."""
        now = self.now
        assert now is not None
        ratio = now.unexplained_power
        wins = not self.ratios or ratio < min(self.ratios)
        best = now if wins else self.best
        return replace(self, ratios=(*self.ratios, ratio), best=best, now=None)

    def state(self, generator: torch.Generator) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        kept = dict(vars(self), generator=generator.get_state())
        for name, one in (("best", self.best), ("now", self.now)):
            kept[name] = None if one is None else dict(vars(one))
        return {BEGINNING: kept}

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
            for name in ("best", "now"):
                one = saved.pop(name)
                saved[name] = None if one is None else Annealed(**one)
            return cls(**saved)


def _raced(
    starts: _Starts,
    annealing: AnnealedExpectation,
    generator: torch.Generator,
    monitor: Monitor,
) -> _Starts:
    """Anneal all starts, and keep the likeliest."""
    config = annealing.config
    done = len(starts.ratios) * config.iterations
    done += 0 if starts.now is None else starts.now.iteration
    left = config.starts * config.iterations - done
    monitor.stage("random starts", left * annealing.images)
    while len(starts.ratios) < config.starts:
        now = annealing.iterated(starts.now or annealing.begun(generator), generator)
        monitor.advance(annealing.images)
        starts = replace(starts, now=now)
        if now.iteration == config.iterations:
            starts = starts.compared()
            number, ratio = len(starts.ratios), now.unexplained_power
            monitor.message(f"random start {number}: unexplained power {ratio:.4f}")
        elif now.iteration % _JUDGED_EVERY:
            continue
        monitor.save_checkpoint(starts.state(generator))
    return starts


def _rested(
    starts: _Starts,
    annealing: AnnealedExpectation,
    generator: torch.Generator,
    monitor: Monitor,
) -> Annealed:
    """Go on with the likeliest start until its map rests."""
    best = starts.best
    assert best is not None
    most = _MOST_ROUNDS * annealing.config.iterations
    while starts.agreement < _RESTS and best.iteration < most:
        steps = min(_JUDGED_EVERY, most - best.iteration)
        monitor.extend(steps * annealing.images)
        before = best.density
        for _ in range(steps):
            best = annealing.iterated(best, generator)
            monitor.advance(annealing.images)
        agreement = _correlation(best.density, before)
        monitor.message(
            f"random start: after {best.iteration} of at most {most} iterations, maps "
            f"{steps} apart correlate to {agreement:.3f} ({_RESTS:g} ends it)"
        )
        starts = replace(starts, best=best, agreement=agreement)
        monitor.save_checkpoint(starts.state(generator))
    return best


def _correlation(first: Tensor, second: Tensor) -> float:
    """Return the correlation coefficient of two maps."""
    a, b = first.double(), second.double()
    a, b = a - a.mean(), b - b.mean()
    product = reproducible_sum(a * b)
    powers = reproducible_sum(a.square()) * reproducible_sum(b.square())
    return float(product / powers.sqrt().clamp(min=1e-30))
