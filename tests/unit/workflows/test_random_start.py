"""Maps from random poses."""

import io
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.workflows.problem import define_problem, initial_noise
from cryoinfer.workflows.random_start import (
    BEGINNING,
    RandomStartConfig,
    random_start,
)

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
    config = RandomStartConfig(RADIUS, starts, iterations, minibatch=100)
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
    assert found.ratios == (found.noise_ratio,)
    # Zero outside of the particle.
    assert found.density[0, 0, 0] == 0


def test_pure_noise_stays_unexplained(simulated) -> None:
    monitor = CountingMonitor()
    _, found = start(
        simulated(200, snr_db=-40.0).particles, iterations=4, monitor=monitor
    )
    # But for what the last map has learnt by heart from the same 200 images.
    assert 0.7 < found.noise_ratio < 1.1
    # Minibatches double, but there are no more than all 200 images; each round is
    # told, with what it waits for, before it begins.
    assert monitor.planned == [4 * 100, 4 * 200, 4 * 200, 4 * 200]
    assert monitor.done == monitor.total == 2800
    assert [text.split(": ")[-1] for text in monitor.told[:3]] == [
        f"round {number} of at most 4, of 200 images an iteration"
        for number in (2, 3, 4)
    ]
    assert all("below 3 is enough" in text for text in monitor.told[:3])


def test_the_best_start_wins(simulated) -> None:
    _, found = start(simulated().particles, starts=2, iterations=4)
    assert len(found.ratios) == 2
    assert found.noise_ratio == min(found.ratios)


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
    "most", [5, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 4, 8))]
)
def test_an_interrupted_start_goes_on_bitwise(simulated, most: int) -> None:
    # Noise alone takes four rounds: of 2 starts of 10 iterations 8 states are kept.
    particles = simulated(100, snr_db=-40.0).particles
    whole = StoppingMonitor()
    _, expected = start(particles, 2, iterations=10, monitor=whole)
    assert whole.count == 8
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
