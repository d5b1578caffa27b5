"""A whole run without any kernel: what a device would do that has none of its own."""

import pytest

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.operations import plain_only
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio


@pytest.mark.slow
def test_plain_versions_find_the_map_and_poses_of_the_kernels(tmp_path) -> None:
    config = SimulationConfig(n=100, box=20, pixel_size_angstrom=4.5, snr_db=10.0)
    particles = Particles.load(simulate(config, tmp_path, SilentMonitor()))
    settings = AbinitioConfig(starts=1)
    found = abinitio(particles, settings, SilentMonitor())
    with plain_only():
        plain = abinitio(particles, settings, SilentMonitor())
    # Both draw the same numbers, and end in the same hand and frame but for rounding.
    maps = found.reconstruction, plain.reconstruction
    fsc = fourier_shell_correlation(*(one.density * one.mask for one in maps))
    resolution = found.reconstruction.resolution_angstrom
    shells = int(config.box * config.pixel_size_angstrom / resolution)
    assert float(fsc[1 : shells + 1].min()) > 0.99  # 0.9998 was found
    angle = geodesic_angle(found.latents.pose.rotation, plain.latents.pose.rotation)
    variance = found.covariance.diagonal(dim1=1, dim2=2)
    # A refinement ends where a step promises a tenth of a nat, or a hundredth: within
    # half a standard deviation of the mode. Most end nearer: 0.09 and 0.02 were found.
    assert float((angle / variance[:, :3].sum(1).sqrt()).median()) < 0.5
    moved = found.latents.pose.shift_angstrom - plain.latents.pose.shift_angstrom
    assert float((moved.abs() / variance[:, 3:5].sqrt()).median()) < 0.5
