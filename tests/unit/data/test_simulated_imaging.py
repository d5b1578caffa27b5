"""Simulated sets whose images are those of waves, or counted."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from cryoinfer.data.junk import Junk
from cryoinfer.data.motions import Motion
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.data.simulated_set import Composition
from cryoinfer.errors import InputError
from cryoinfer.physics.detector import CountingDetector
from cryoinfer.physics.multislice import multislice_images
from cryoinfer.physics.structures.atoms import GaussianAtoms

WAVES = SimulationConfig(
    n=6,
    box=32,
    pixel_size_angstrom=3.0,
    snr_db=None,
    defocus_range_angstrom=(8000.0, 12000.0),
    max_shift_angstrom=3.0,
    optics_groups=2,
    scattering="multislice",
)


def test_a_multislice_set_differs_from_weak_phase_by_what_is_left_out(
    tmp_path: Path,
) -> None:
    """Of the same particles, in the same units."""
    waves = Simulation.of(WAVES)
    weak = Simulation.of(replace(WAVES, scattering="weak-phase"))
    torch.testing.assert_close(waves.latents.pose.rotation, weak.latents.pose.rotation)
    every = torch.arange(WAVES.n)
    seen, flat = waves.signal(every), weak.signal(every)
    atoms = waves.shown.first.structure
    assert isinstance(atoms, GaussianAtoms)
    expected = multislice_images(atoms, waves.latents.pose, waves.optics, WAVES.box)
    assert torch.equal(seen, expected)
    off = float((seen - flat).norm() / flat.norm())
    # A protein of 50 A at 6 A: a few per cent.
    assert 0.01 < off < 0.1
    star = simulate(WAVES, tmp_path / "set")
    written = torch.as_tensor(Particles.load(star).images(torch.arange(WAVES.n)))
    torch.testing.assert_close(written, seen)


def test_moving_atoms_are_those_of_each_conformation() -> None:
    config = replace(WAVES, motions=(Motion.parse("1:U(-3,3)"),), n=3)
    moving = Simulation.of(config)
    rest = moving.shown.first.at_rest
    every = torch.arange(config.n)
    seen = moving.signal(every)
    still = multislice_images(rest, moving.latents.pose, moving.optics, config.box)
    weak = Simulation.of(replace(config, scattering="weak-phase")).signal(every)
    near = (seen - weak).flatten(1).norm(dim=1) / weak.flatten(1).norm(dim=1)
    far = (still - weak).flatten(1).norm(dim=1) / weak.flatten(1).norm(dim=1)
    assert bool((near < 0.1).all())
    assert float(far.max()) > 0.2


def test_noise_is_set_by_the_signal_of_waves() -> None:
    simulation = Simulation.of(replace(WAVES, snr_db=0.0))
    signal = simulation.signal(torch.arange(WAVES.n)).double()
    found = simulation.model.noise.pixel_variance(WAVES.box)
    # float32 rings of noise.
    assert float(found) == pytest.approx(float(signal.var(correction=0)), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"defocus_range_angstrom": None}, "needs a CTF, found none"),
        ({"composition": Composition(junk=(Junk("ice", 0.1),))}, "with --junk"),
        ({"composition": Composition(also=("adenylate-kinase-closed",))}, "with --als"),
        ({"scattering": "kinematic"}, "must be weak-phase or multislice, found 'kin"),
    ],
)
def test_what_waves_cannot_show_is_refused(
    changes: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        replace(WAVES, **changes)  # type: ignore[arg-type]


COUNTED = replace(WAVES, n=16, detector=CountingDetector(20.0))


def ratio(dose: float, mtf: float = 1.0) -> float:
    detector = CountingDetector(dose, mtf)
    return Simulation.of(replace(COUNTED, detector=detector)).signal_to_noise


def test_signal_to_noise_of_counts_is_proportional_to_the_dose() -> None:
    # Exactly: expected counts are, but for rounding.
    assert ratio(40.0) == pytest.approx(2 * ratio(20.0), rel=1e-9)
    assert ratio(20.0, 0.3) < 0.9 * ratio(20.0)


@pytest.mark.parametrize("scattering", ["weak-phase", "multislice"])
def test_counted_images_are_the_signal_and_the_noise_that_is_told(
    tmp_path: Path, scattering: Literal["weak-phase", "multislice"]
) -> None:
    config = replace(COUNTED, scattering=scattering, optics_groups=1)
    star = simulate(config, tmp_path / "set")
    told = json.loads((tmp_path / "set" / "simulation.json").read_text())
    simulation = Simulation.of(config)
    assert told.pop("snr_db") == pytest.approx(10 * math.log10(told["signal_to_noise"]))
    assert told.pop("signal_to_noise") == simulation.signal_to_noise
    assert told == {
        "model": scattering,
        "detector": "counting",
        "dose_per_square_angstrom": 20.0,
        "mtf_at_nyquist": 1.0,
    }
    every = torch.arange(config.n)
    images = Particles.load(star).stored_images(every).double()
    signal = simulation.signal(every).double()
    noise = images - signal
    # 16,384 pixels: means to 0.8 % of a standard deviation, variances to 1.1 %.
    variance = signal.var(correction=0) / simulation.signal_to_noise
    assert abs(float(noise.mean())) < 0.04 * float(noise.std())
    assert float(noise.var() / variance) == pytest.approx(1.0, abs=0.05)


def test_sets_without_a_detector_say_their_noise_too(tmp_path: Path) -> None:
    simulate(replace(WAVES, snr_db=-3.0), tmp_path / "noisy")
    told = json.loads((tmp_path / "noisy" / "simulation.json").read_text())
    assert told["detector"] is None
    assert told["snr_db"] == pytest.approx(-3.0)
    simulate(WAVES, tmp_path / "clean")
    told = json.loads((tmp_path / "clean" / "simulation.json").read_text())
    assert told["signal_to_noise"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"defocus_range_angstrom": None, "scattering": "weak-phase"}, "needs a CTF"),
        ({"snr_db": 0.0}, "does not go with --snr-db"),
        ({"noise": "coloured"}, "does not go with --noise coloured"),
        ({"detector": CountingDetector(0.0)}, "a dose is above 0 and at most 10000"),
        ({"detector": CountingDetector(math.nan)}, "a dose is above 0"),
        ({"detector": CountingDetector(1.0, 1.5)}, "an MTF at Nyquist is above 0"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    changes: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        replace(COUNTED, **changes)  # type: ignore[arg-type]
