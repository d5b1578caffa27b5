"""Maps from random poses."""

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.inference.whitening import whiten
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.workflows.acquisition import is_usual_power
from cryoinfer.workflows.annealed_expectation import (
    AnnealedExpectation,
    RandomStartConfig,
)
from cryoinfer.workflows.problem import define_problem, initial_noise
from cryoinfer.workflows.random_start import BEGINNING, random_start

RADIUS = 5


class CountingMonitor(SilentMonitor):
    """Keeps what was told, and asks that nothing is done before it was planned."""

    def __init__(self) -> None:
        self.done, self.total = 0, 0
        self.planned: list[int] = []
        self.told: list[str] = []

    def stage(self, name: str, total: int) -> None:
        self.planned.append(total)
        self.total += total

    def extend(self, steps: int) -> None:
        assert self.done == self.total
        self.planned.append(steps)
        self.total += steps

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        assert self.done <= self.total

    def message(self, text: str) -> None:
        self.told.append(text)


def start(
    particles,
    starts: int = 1,
    iterations: int = 12,
    seed: int = 0,
    monitor: Monitor | None = None,
):
    generator = torch.Generator().manual_seed(seed)
    problem = define_problem(particles, "C1", None, 0.0, 0.0, generator)
    config = RandomStartConfig(RADIUS, starts, iterations, minibatch=100, hottest=8.0)
    noise = initial_noise(problem)
    monitor = monitor or SilentMonitor()
    found = random_start(problem, noise, config, generator, monitor)
    return problem, found


def test_a_map_explains_images_with_little_noise(simulated) -> None:
    problem, found = start(simulated().particles)
    box = problem.map_box(RADIUS)
    assert found.density.shape == (box, box, box)
    assert found.density.isfinite().all()
    # A grid of 15 degrees leaves a third at the most of images with 10 % noise.
    assert 0 < found.noise_ratio < 0.33
    # The start went on until its map rested, which explains more.
    assert found.noise_ratio < found.ratios[0] < 0.33
    # Zero outside of the particle.
    assert found.density[0, 0, 0] == 0


def test_pure_noise_stays_unexplained(simulated) -> None:
    monitor = CountingMonitor()
    _, found = start(
        simulated(200, snr_db=-40.0).particles, iterations=4, monitor=monitor
    )
    # But for what the last map has learnt by heart from the same 200 images.
    assert 0.7 < found.noise_ratio < 1.1
    # Its map never rests: four rounds of 4 iterations, compared after ten.
    assert monitor.planned == [4 * 100, 10 * 100, 2 * 100]
    assert monitor.done == monitor.total == 1600
    assert "after 14 of at most 16 iterations" in monitor.told[1]
    assert all("(0.99 ends it)" in text for text in monitor.told[1:])


def test_the_best_start_goes_on(simulated) -> None:
    monitor = CountingMonitor()
    _, found = start(simulated().particles, starts=2, iterations=4, monitor=monitor)
    assert len(found.ratios) == 2
    assert found.noise_ratio <= min(found.ratios)
    assert sum(text.startswith("random start:") for text in monitor.told) in (1, 2)


def test_sums_are_forgotten_as_iterations_go_on(simulated) -> None:
    generator = torch.Generator().manual_seed(0)
    problem = define_problem(simulated().particles, "C1", None, 0.0, 0.0, generator)
    config = RandomStartConfig(RADIUS, 1, iterations=5, minibatch=100, hottest=8.0)
    rows = torch.arange(len(problem.particles))
    annealing = AnnealedExpectation(problem, initial_noise(problem), config, rows)
    now = annealing.begun(generator)
    for _ in range(5):
        now = annealing.iterated(now, generator)
    # While the temperature falls, for 3 iterations, the last minibatch is all there is;
    # iteration 13 has a memory of 1 + 0.1 * (13 - 3) = 2 minibatches.
    state = generator.get_state()
    nothing = replace(now, sums=torch.zeros_like(now.sums), iteration=13)
    fresh = annealing.iterated(nothing, generator)
    generator.set_state(state)
    kept = annealing.iterated(replace(now, iteration=13), generator)
    # Single precision, of sums that are added in another order.
    rounding = 1e-6 * float(now.sums.abs().max())
    expected = fresh.sums + now.sums / 2
    torch.testing.assert_close(kept.sums, expected, rtol=1e-5, atol=rounding)


def test_mates_are_searched_once(simulated) -> None:
    def rotations(symmetry: str) -> int:
        generator = torch.Generator().manual_seed(0)
        particles = simulated().particles
        problem = define_problem(particles, symmetry, None, 0.0, 0.0, generator)
        config = RandomStartConfig(RADIUS, 1, iterations=5, minibatch=100, hottest=8.0)
        rows = torch.arange(len(particles))
        made = AnnealedExpectation(problem, initial_noise(problem), config, rows)
        return len(made._grid.rotation)

    # A cell more on every side than a fourth of them.
    assert rotations("C4") < 0.45 * rotations("C1")


@pytest.mark.parametrize(
    ("snr_db", "times"),
    [
        (0.0, 9.0),  # views differ by a factor of two and more
        (-10.0, 3.5),  # edges of a film: of two times the power of others and more
    ],
)
def test_images_of_unusual_power_are_not_looked_at(
    simulated, snr_db: float, times: float
) -> None:
    made = simulated(300, snr_db=snr_db)
    problem = define_problem(
        made.particles, "C1", None, 0.0, 0.0, torch.Generator().manual_seed(0)
    )
    noise = initial_noise(problem)[0]
    images = whiten(
        made.particles.batch(torch.arange(300)), problem.grid, RADIUS, noise
    )
    assert bool(is_usual_power(images).all())
    strong = torch.ones(300, 1)
    strong[::10] = times**0.5
    odd = replace(images, coefficients=images.coefficients * strong)
    assert torch.equal(is_usual_power(odd), strong[:, 0] == 1)
    few = odd.select(torch.arange(3))
    assert bool(is_usual_power(few)[1:].all())


def test_a_seed_decides_everything(simulated) -> None:
    _, first = start(simulated().particles, iterations=2)
    _, again = start(simulated().particles, iterations=2)
    _, other = start(simulated().particles, iterations=2, seed=1)
    assert torch.equal(first.density, again.density)
    assert not torch.equal(first.density, other.density)


def test_few_particles_are_refused(simulated) -> None:
    few = simulated().particles.select(torch.arange(99))
    with pytest.raises(InputError, match="at least 100"):
        start(few)


class StoppingMonitor(SilentMonitor):
    """Keeps a state as a file does, and stops when it has kept some of them."""

    def __init__(self, most: int | None = None, kept: Any = None) -> None:
        self.most, self.kept, self.count = most, kept, 0

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        torch.save(dict(state), file := io.BytesIO())
        self.kept, self.count = file.getvalue(), self.count + 1
        if self.count == self.most:
            raise KeyboardInterrupt

    def load_checkpoint(self) -> Mapping[str, object] | None:
        if self.kept is None:
            return None
        return torch.load(io.BytesIO(self.kept), weights_only=True)


@pytest.mark.parametrize(
    "most", [4, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 2, 5))]
)
def test_an_interrupted_start_goes_on_bitwise(simulated, most: int) -> None:
    # Noise alone never rests: 2 states of starts, and 3 of the one that goes on.
    particles = simulated(200, snr_db=-40.0).particles
    whole = StoppingMonitor()
    _, expected = start(particles, 2, iterations=10, monitor=whole)
    assert whole.count == 5
    stopped = StoppingMonitor(most)
    with pytest.raises(KeyboardInterrupt):
        start(particles, 2, iterations=10, monitor=stopped)
    goes_on = StoppingMonitor(kept=stopped.kept)
    _, found = start(particles, 2, iterations=10, monitor=goes_on)
    assert goes_on.count == whole.count - most
    assert torch.equal(found.density, expected.density)
    assert found.ratios == expected.ratios


def test_a_state_of_other_starts_is_told(simulated) -> None:
    torch.save({BEGINNING: {"ratios": ()}}, file := io.BytesIO())
    with pytest.raises(InputError, match="another version"):
        start(simulated().particles, monitor=StoppingMonitor(kept=file.getvalue()))
