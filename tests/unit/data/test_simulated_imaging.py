"""Simulated sets whose images are those of waves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryoinfer.data.junk import Junk
from cryoinfer.data.motions import Motion
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.data.simulated_set import Composition
from cryoinfer.errors import InputError
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
