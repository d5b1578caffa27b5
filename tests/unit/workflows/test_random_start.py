"""Maps from random poses."""

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows.problem import define_problem, initial_noise
from cryoinfer.workflows.random_start import RandomStartConfig, random_start

RADIUS = 5


def start(particles, starts: int = 1, iterations: int = 12, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    problem = define_problem(particles, "C1", None, 0.0, 0.0, generator)
    config = RandomStartConfig(RADIUS, starts, iterations, minibatch=100)
    noise = initial_noise(problem)
    found = random_start(problem, noise, config, generator, SilentMonitor())
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
    _, found = start(simulated(200, snr_db=-40.0).particles, iterations=4)
    # But for what the last map has learnt by heart from the same 200 images.
    assert 0.7 < found.noise_ratio < 1.1


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
