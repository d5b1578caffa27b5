"""The noise that runs measure beside their maps."""

import pytest
import torch

from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.refine import RefineConfig, refine


@pytest.fixture
def made(simulated):
    return simulated(400, snr_db=0.0, defocus_range_angstrom=(8000.0, 16000.0))


def test_every_ring_of_the_noise_is_measured(made) -> None:
    """Also the outermost, and though every image has a share in the map."""
    config = RefineConfig(particle_diameter_angstrom=80.0)
    found = refine(made.with_poses(), None, config, SilentMonitor()).noise_power[0]
    ratio = found / made.simulation.model.noise.spectrum[: len(found)]
    # Known to 3 % in ring 1, of 1,200 coefficients, and better farther out. The noise
    # of the map of 200 images adds a few per cent there.
    assert ((ratio > 0.92) & (ratio < 1.1)).all()


@pytest.mark.slow
def test_noise_beyond_the_resolution_of_a_run_is_the_power_of_images(made) -> None:
    config = AbinitioConfig(particle_diameter_angstrom=80.0, resolution_angstrom=15.0)
    found = abinitio(made.particles, config, SilentMonitor()).noise_power[0]
    ratio = found / made.simulation.model.noise.spectrum[: len(found)]
    # At 0 dB images are hardly stronger than the noise out there. Within, as above, and
    # poses that see no further leave some of the signal.
    assert ((ratio > 0.88) & (ratio < 1.15)).all()


def test_one_hot_pixel_is_no_noise_of_a_run(simulated, stack) -> None:
    made = simulated(200, snr_db=0.0)  # of whatever pixel size: poses are rotations
    images = made.particles.images(torch.arange(200))
    images[11, 0, 0] = 1e4 * images.std()
    particles = stack(images).with_results(pose=made.true_pose)
    config = RefineConfig(particle_diameter_angstrom=44.0)
    (found,) = refine(particles, None, config, SilentMonitor()).noise_power
    ratio = found / made.simulation.model.noise.spectrum[: len(found)]
    # The map shows the pixel, and leaves some of it in all images, at low frequencies
    # most; itself it would make this 800 in every ring.
    assert (ratio < 15).all()
    assert (ratio[5:] < 1.5).all()
