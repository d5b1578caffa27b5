"""Beads against sums of waves, their own map, and the atoms that they stand for."""

import math
from dataclasses import replace

import pytest
import torch

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.nodes import Nodes
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.beads import GaussianBeads
from cryoinfer.records import Pose


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def beads(count: int = 6) -> GaussianBeads:
    def drawn(seed: int, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)

    return GaussianBeads(
        10 * drawn(1, count, 3) - 5, 1 + drawn(2, count), 1 + 8 * drawn(3, count)
    )


def poses(count: int) -> Pose:
    shift = torch.randn(count, 2, generator=seeded(4), dtype=torch.float64) * 3
    return Pose(random_rotations(count, seeded(5)), shift)


@pytest.mark.parametrize("box", [14, 15])
def test_images_are_sums_of_waves(box: int) -> None:
    made, pose, pixel_size = beads(), poses(4), 2.2
    found = image_to_fourier(made.project(pose, box, pixel_size))
    along = torch.fft.fftfreq(box, pixel_size, dtype=torch.float64)
    y, x = torch.meshgrid(along, along[: box // 2 + 1].abs(), indexing="ij")
    expected = torch.zeros_like(found)
    for row in range(4):
        place = made.coordinates_angstrom @ pose.rotation[row].T
        place = place[:, :2] + pose.shift_angstrom[row]
        for bead in range(6):
            turns = place[bead, 0] * x + place[bead, 1] * y
            blur = -2 * math.pi**2 * made.variance_angstrom2[bead] * (x**2 + y**2)
            wave = torch.exp(blur - 2j * math.pi * turns)
            expected[row] += made.weight_angstrom[bead] * wave
    if box % 2 == 0:  # the sign of Nyquist is undefined
        expected[:, box // 2] = 0
        expected[:, :, box // 2] = 0
    expected /= box * pixel_size**2
    # Double precision, in another order.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("box", [14, 15])
def test_the_map_sums_to_the_image(box: int) -> None:
    rest = Pose(torch.eye(3).double()[None], torch.zeros(1, 2).double())
    image = beads().project(rest, box, 2.2)[0]
    torch.testing.assert_close(beads().to_map(box, 2.2).sum(0), image)


def test_all_numbers_have_gradients() -> None:
    made, pose = beads(3), poses(2)

    def images(*numbers: torch.Tensor) -> torch.Tensor:
        return GaussianBeads(*numbers).project(pose, 8, 3.0)

    numbers = [value.clone().requires_grad_() for value in vars(made).values()]
    assert torch.autograd.gradcheck(images, numbers)


def test_each_image_may_have_its_own_coordinates() -> None:
    made, pose = beads(), poses(3)
    moved = made.coordinates_angstrom + torch.arange(3.0).double()[:, None, None]
    together = replace(made, coordinates_angstrom=moved).project(pose, 12, 2.5)
    for row in range(3):
        one = replace(made, coordinates_angstrom=moved[row])
        alone = one.project(pose[[row]], 12, 2.5)[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-12)


def test_beads_of_single_atoms_are_those_atoms() -> None:
    atoms = GaussianAtoms.from_elements(beads(4).coordinates_angstrom, ["C"] * 4, 200.0)
    found = GaussianBeads.fitted(atoms, torch.arange(4), 4.0, seeded())
    frequency = torch.randn(500, 3, generator=seeded(6), dtype=torch.float64)
    frequency = frequency / frequency.norm(dim=1, keepdim=True) / 5.0
    goal = atoms.transform_at(frequency)
    turns = 2 * math.pi * frequency @ found.coordinates_angstrom.T
    squared = frequency.square().sum(1)[:, None]
    size = torch.exp(-2 * math.pi**2 * found.variance_angstrom2 * squared)
    waves = torch.polar(found.weight_angstrom * size, -turns).sum(1)
    error = (waves - goal).abs().square().mean()
    # A carbon is five Gaussians, which a blur of 200 A^2 makes nearly one.
    assert float(error / goal.abs().square().mean()) < 1e-5


def test_a_bead_a_residue_shows_adenylate_kinase_to_8_angstrom() -> None:
    model = example_atoms("adenylate-kinase-open")
    coordinates = torch.from_numpy(model.coordinates_angstrom)
    atoms = GaussianAtoms.from_elements(coordinates, model.elements)
    bead_of_atom = torch.from_numpy(Nodes.of_model(model).of_atom)
    found = GaussianBeads.fitted(atoms, bead_of_atom, 8.0, seeded())
    assert found.coordinates_angstrom.shape == (214, 3)
    pose = poses(20)
    seen, goal = (one.project(pose, 32, 4.0) for one in (found, atoms))
    seen, goal = (one - one.mean((1, 2), keepdim=True) for one in (seen, goal))
    product = (seen * goal).sum((1, 2))
    norm = (seen.square().sum((1, 2)) * goal.square().sum((1, 2))).sqrt()
    assert float((product / norm).min()) > 0.99
