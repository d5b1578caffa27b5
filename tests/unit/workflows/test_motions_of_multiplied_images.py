"""Motions of images that were multiplied by their CTF: those of the images before."""

from pathlib import Path

import pytest
from tests.extracted import MULTIPLIED, extracted_set

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.motions import Motion
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SilentMonitor
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


@pytest.mark.slow  # two whole runs
def test_motions_are_those_of_the_images_before(tmp_path: Path) -> None:
    simulate(SETTINGS, tmp_path, SilentMonitor())
    plain = Particles.load(tmp_path / "truth.star")
    model = MovingModel.of(named_atoms(SETTINGS.structure), 1, 2.0)
    config = DynamicsConfig(poses="given")
    one = infer_dynamics(plain, model, config, SilentMonitor())
    multiplied = Particles.load(extracted_set(tmp_path, MULTIPLIED, "multiplied"))
    other = infer_dynamics(multiplied, model, config, SilentMonitor())
    before, after = one.inference.measured, other.inference.measured
    # What lies where the CTF is below 0.1 is lost, and counts little in either.
    assert after.gain == pytest.approx(before.gain, rel=0.01)
    ratio = after.noise_power[0][3:15] / before.noise_power[0][3:15]
    # Rings have 16 images of 10 coefficients or more, which count unequally.
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.03)
    away = (other.motions.mean - one.motions.mean)[:, 0].abs() / one.motions.sd[:, 0]
    assert float(away.median()) < 0.1
    assert other.motions.sd == pytest.approx(one.motions.sd, rel=0.1)
