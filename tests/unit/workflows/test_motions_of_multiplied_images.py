"""Motions of images that were multiplied by their CTF: those of the images before."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.motions import Motion
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import StackWriter
from cryoinfer.io.star import text_column
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.workflows.dynamics import infer_dynamics
from cryoinfer.workflows.motion_problem import DynamicsConfig

SETTINGS = SimulationConfig(
    n=16,
    box=32,
    pixel_size_angstrom=4.0,
    snr_db=0.0,
    defocus_range_angstrom=(10000.0, 20000.0),
    motions=(Motion(1, "normal", 0.0, 2.0),),
)


def multiplied(folder: Path) -> Particles:
    """Return the set with true poses and images that were multiplied by their CTF."""
    particles = Particles.load(folder / "truth.star")
    n, box, size = len(particles), particles.box, particles.pixel_size_angstrom
    y, x = torch.meshgrid(
        torch.fft.fftfreq(box, size, dtype=torch.float64),
        torch.fft.rfftfreq(box, size, dtype=torch.float64),
        indexing="ij",
    )
    ctf = evaluate_ctf(particles.optics, x.flatten(), y.flatten())
    transform = image_to_fourier(particles.images(torch.arange(n)).double())
    with StackWriter(folder / "multiplied.mrcs", n, box, size) as writer:
        images = fourier_to_image(transform * ctf.unflatten(-1, y.shape), box)
        writer.write(images.float())
    source = particles.source.with_paths({"particles.mrcs": "multiplied.mrcs"})
    optics = source.optics
    column = {"rlnCtfDataAreCtfPremultiplied": text_column(np.ones(len(optics)), "%d")}
    star = source.star.with_block(optics, optics.with_columns(column))
    type(source)(star).write(folder / "multiplied.star")
    return Particles.load(folder / "multiplied.star")


@pytest.mark.slow  # two whole runs
def test_motions_are_those_of_the_images_before(tmp_path: Path) -> None:
    simulate(SETTINGS, tmp_path, SilentMonitor())
    plain = Particles.load(tmp_path / "truth.star")
    model = MovingModel.of(named_atoms(SETTINGS.structure), 1, 2.0)
    config = DynamicsConfig(poses="given")
    one = infer_dynamics(plain, model, config, SilentMonitor())
    other = infer_dynamics(multiplied(tmp_path), model, config, SilentMonitor())
    before, after = one.inference.measured, other.inference.measured
    # What lies where the CTF is below 0.1 is lost, and counts little in either.
    assert after.gain == pytest.approx(before.gain, rel=0.01)
    ratio = after.noise_power[0][3:15] / before.noise_power[0][3:15]
    # Rings have 16 images of 10 coefficients or more, which count unequally.
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.03)
    away = (other.motions.mean - one.motions.mean)[:, 0].abs() / one.motions.sd[:, 0]
    assert float(away.median()) < 0.1
    assert other.motions.sd == pytest.approx(one.motions.sd, rel=0.1)
