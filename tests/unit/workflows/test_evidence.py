"""Whether images show a map, or only what halves have in common."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.whitening import whiten
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.records import Pose
from cryoinfer.results.run_result import Evidence
from cryoinfer.workflows import evidence
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.problem import define_problem, initial_noise, start_radius
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct
from cryoinfer.workflows.refine import RefineConfig, StartingMap, refine

NOTHING_DB = -80.0
QUICK = AbinitioConfig(max_shift_angstrom=0.0, starts=1)


def problem_of(particles):
    generator = torch.Generator().manual_seed(0)
    return define_problem(particles, "C1", None, 0.0, 0.0, generator)


def test_noise_gains_nothing_from_any_map_whatever_the_search(simulated) -> None:
    made = simulated(400, box=16, pixel_size_angstrom=6.0, snr_db=NOTHING_DB)
    problem = problem_of(made.particles)
    radius = start_radius(problem)
    # A map that these images were not made of, whose slices hold two nats.
    other = simulated(box=16, pixel_size_angstrom=6.0).density
    volume = FourierVolume.from_map(other, radius, 2.0)
    noise, rows = initial_noise(problem), torch.arange(400)
    images = whiten(made.particles.batch(rows), problem.grid, radius, noise[0])
    rotations = random_rotations(50, torch.Generator().manual_seed(3))
    slices = extract_slices(volume, rotations, images.disc, images.scale)
    expected = images.ctf[:1] * slices
    strength = (2 / expected.abs().square().sum(1).mean()).sqrt()
    volume = replace(volume, values=volume.values * strength)
    (gain,) = evidence._gains(problem, noise, [volume], rows, radius)
    ratio = gain.exp()
    error = float(ratio.std()) / 20
    # The mean of the ratio of the evidences is 1, that of its logarithm less.
    assert float(ratio.std()) > 0.1
    assert float(ratio.mean()) == pytest.approx(1.0, abs=4 * error)
    assert float(gain.mean()) < 2 * float(gain.std()) / 20


def test_a_map_of_noise_has_the_spectrum_of_the_map(simulated) -> None:
    density = simulated().density
    mask = torch.ones_like(density)
    generator = torch.Generator().manual_seed(1)
    unlike = evidence._noise_like(density, mask, generator)
    both = fourier_shell_correlation(density + unlike, density + unlike)
    assert torch.allclose(both[1:-1], torch.ones(len(both) - 2).double())
    # Of equal power and unlike, a sum with either correlates by the square root of 1/2.
    along = fourier_shell_correlation(density + unlike, density)
    assert along[4:-1].mean() == pytest.approx(0.5**0.5, abs=0.05)
    assert fourier_shell_correlation(unlike, density)[4:-1].mean() < 0.1


@pytest.mark.slow
def test_what_noise_gives_back_is_no_structure(simulated) -> None:
    made = simulated(120, box=16, pixel_size_angstrom=6.0, snr_db=NOTHING_DB)
    found = abinitio(made.particles, QUICK, SilentMonitor())
    maps = found.reconstruction
    assert maps.evidence is not None
    assert maps.shared_resolution_angstrom is not None
    # The halves agree, as they began with one map: the test cannot pass of itself.
    assert maps.fsc[1:4].max() > 0.143
    assert not maps.evidence.is_structure
    # Nor does it become one by being refined, from its map or from its poses.
    start = StartingMap(maps.density, 6.0)
    config = RefineConfig(max_shift_angstrom=0.0, seed=5)
    again = refine(made.particles, start, config, SilentMonitor()).reconstruction
    assert again.evidence is not None
    assert not again.evidence.is_structure
    posed = made.particles.with_results(
        pose=found.latents.pose, random_subset=found.random_subset
    )
    maps = reconstruct(posed, ReconstructConfig(), SilentMonitor())
    assert maps.evidence is not None
    assert not maps.evidence.is_structure
    assert maps.shared_resolution_angstrom is None


def test_noise_shows_no_map_that_it_is_given(simulated) -> None:
    made = simulated(200, box=16, pixel_size_angstrom=6.0, snr_db=NOTHING_DB)
    config = RefineConfig(max_shift_angstrom=0.0)
    found = refine(
        made.particles, StartingMap(made.density, 6.0), config, SilentMonitor()
    )
    maps = found.reconstruction
    assert maps.evidence is not None
    assert not maps.evidence.is_structure
    # The given map comes back out of noise.
    curve = fourier_shell_correlation(maps.density, made.density)
    assert curve[1:4].mean() > 0.3


@pytest.mark.parametrize("views", ["uniform", "one"])
def test_weak_particles_are_something(simulated, views) -> None:
    # 24 pixels at -20 dB: all of an image's signal is 5.8 nats.
    made = simulated(400, snr_db=-20.0, views=views)
    maps = reconstruct(made.with_poses(), ReconstructConfig(), SilentMonitor())
    assert maps.evidence is not None
    assert maps.evidence.is_structure


def test_random_poses_of_noise_are_nothing(simulated) -> None:
    made = simulated(200, box=16, pixel_size_angstrom=6.0, snr_db=NOTHING_DB)
    rotation = random_rotations(200, torch.Generator().manual_seed(2))
    pose = Pose(rotation, torch.zeros(200, 2))
    particles = made.particles.with_results(pose=pose)
    maps = reconstruct(particles, ReconstructConfig(), SilentMonitor())
    assert maps.evidence is not None
    assert not maps.evidence.is_structure


def test_few_images_are_not_asked(simulated) -> None:
    made = simulated()
    few = made.with_poses().select(torch.arange(evidence.FEWEST_IMAGES - 1))
    assert reconstruct(few, ReconstructConfig(), SilentMonitor()).evidence is None


def test_strong_particles_are_something(simulated) -> None:
    # They gain tens of nats from maps of noise, too.
    made = simulated(snr_db=10.0)
    maps = reconstruct(made.with_poses(), ReconstructConfig(), SilentMonitor())
    assert maps.evidence is not None
    assert maps.evidence.is_structure


def test_what_is_needed_is_more_than_chance() -> None:
    clear = Evidence(
        100, gain_nats=1.0, over_noise_nats=4.0, error_nats=0.1, common_nats=0.4
    )
    # 0.1 at least, what is common, and four standard errors.
    assert clear.needed_nats == pytest.approx(0.9)
    assert clear.excess_nats == 1.0
    assert clear.is_structure
    assert not replace(clear, gain_nats=0.89).is_structure
    # What maps of noise gain as well is no gain.
    assert not replace(clear, over_noise_nats=0.8).is_structure


def test_images_that_fit_better_from_elsewhere_show_no_structure() -> None:
    clear = Evidence(100, 4.0, 4.0, 0.1, 0.4, astray_share=0.5)
    assert clear.is_structure
    astray = replace(clear, astray_share=0.51)
    assert astray.is_seen
    assert not astray.is_structure
    assert not replace(clear, gain_nats=0.0).is_seen
