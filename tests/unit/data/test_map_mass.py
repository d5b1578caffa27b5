"""The mass of a map's molecule, whose atoms are known."""

import pytest
import torch

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.map_mass import mass_kilodalton
from cryoinfer.physics.structures.atoms import GaussianAtoms

KILODALTON = 23.6  # adenylate kinase


def density(box: int, pixel: float, b_factor: float) -> torch.Tensor:
    model = example_atoms("adenylate-kinase-open")
    places = torch.from_numpy(model.coordinates_angstrom).float()
    atoms = GaussianAtoms.from_elements(places, model.elements, b_factor)
    return atoms.to_map(box, pixel)


@pytest.mark.parametrize(
    ("box", "pixel", "b_factor"),
    [(48, 2.0, 0.0), (80, 1.2, 0.0), (80, 2.0, 200.0), (40, 2.5, 800.0)],
)
@pytest.mark.parametrize("offset", [0.0, -0.4])
def test_mass_is_that_of_the_atoms(
    box: int, pixel: float, b_factor: float, offset: float
) -> None:
    """Whatever the resolution, the box, the units and the level of the solvent."""
    found = mass_kilodalton(7.0 * density(box, pixel, b_factor) + offset, pixel)
    # What the docstring promises; most of it is how rough a molecule's surface is.
    assert found == pytest.approx(KILODALTON, rel=0.12)


def test_noise_does_not_add_to_it() -> None:
    clean = density(48, 2.0, 100.0)
    noise = torch.randn(48, 48, 48, generator=torch.Generator().manual_seed(0))
    height = float(clean.square().sum() / clean.sum())
    found = mass_kilodalton(clean + 0.5 * height * noise, 2.0)
    assert found == pytest.approx(KILODALTON, rel=0.15)


def test_maps_that_do_not_tell_have_none() -> None:
    assert mass_kilodalton(torch.zeros(16, 16, 16), 2.0) is None
    assert mass_kilodalton(torch.ones(16, 16, 16), 2.0) is None
    assert mass_kilodalton(density(16, 6.0, 0.0), 6.0) is None
