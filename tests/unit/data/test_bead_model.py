"""Pseudo-atoms of maps: where they lie, and how they move."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from cryoinfer.data.bead_model import beads_of_map
from cryoinfer.data.examples import example_atoms
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.nodes import Nodes
from cryoinfer.errors import InputError
from cryoinfer.physics.structures.beads import GaussianBeads
from cryoinfer.physics.structures.elastic import ElasticNetwork

BOX, PIXEL = 48, 2.0
CENTRE = BOX // 2 * PIXEL


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_beads_of_lumps_are_in_their_middles() -> None:
    place = torch.tensor([[-20.0, 0, 4], [6, 18, -10], [22, -12, 0], [0, -20, 20]])
    lumps = GaussianBeads(place, torch.ones(4), torch.full((4,), 9.0))
    density = lumps.to_map(BOX, PIXEL)
    found = beads_of_map(density, PIXEL, 4, None, seeded())
    coordinates = found.model.coordinates_angstrom - CENTRE
    distance, nearest = cKDTree(coordinates).query(place.numpy())
    assert sorted(nearest) == [0, 1, 2, 3]
    # Of 200 points a bead, 3 angstrom about their lump: 0.2 along each axis.
    assert distance.max() < 1.0
    # A Gaussian that is cut at three tenths of its height is narrower.
    assert 1.5 < found.spread_angstrom < 3.0
    sd = np.sqrt(found.model.b_factors_angstrom2 / (8 * np.pi**2))
    assert sd == pytest.approx(found.spread_angstrom, rel=0.15)


def test_the_softest_motion_is_that_of_the_atoms() -> None:
    atoms = example_atoms("adenylate-kinase-open")
    nodes = Nodes.of_model(atoms)
    moving = MovingModel.of(atoms, 1, 1.0)
    density = moving.beads(8.0).atoms.to_map(BOX, PIXEL)
    found = beads_of_map(density, PIXEL, 150, None, seeded()).model
    centre = atoms.coordinates_angstrom.mean(0)
    places = nodes.coordinates_angstrom(atoms) - centre
    own = ElasticNetwork.between(places).normal_modes(1).direction[0]
    beads = found.coordinates_angstrom - CENTRE
    modes = ElasticNetwork.between(beads).normal_modes(3).direction
    _, nearest = cKDTree(beads).query(places)
    overlap = [
        float((one[nearest] * own).sum() / one[nearest].norm() / own.norm())
        for one in modes
    ]
    # Beads know the shape and no chain: modes 1 and 2 may mix.
    assert max(abs(value) for value in overlap) > 0.75


def test_beads_are_a_model_that_moves_and_has_no_chain() -> None:
    place = 8 * torch.randn(200, 3, generator=seeded(1))
    blob = GaussianBeads(place, torch.ones(200), torch.full((200,), 6.0))
    found = beads_of_map(blob.to_map(BOX, PIXEL), PIXEL, 60, None, seeded())
    model = MovingModel.of(found.model, 2, 1.0)
    assert len(model.nodes) == 60
    assert not len(model.chain.first)
    moved = model.at(torch.tensor([2.0, 0.0]))
    away = moved.coordinates_angstrom - found.model.coordinates_angstrom
    assert np.sqrt((away**2).sum(1).mean()) == pytest.approx(2.0, rel=1e-6)


def test_beads_follow_each_other_through_the_mass() -> None:
    # A rod, from one end to the other.
    place = torch.tensor([[x, 0.0, 0.0] for x in range(-30, 31)])
    rod = GaussianBeads(place, torch.ones(61), torch.full((61,), 4.0))
    found = beads_of_map(rod.to_map(BOX, PIXEL), PIXEL, 8, None, seeded()).model
    along = np.diff(found.coordinates_angstrom[:, 0])
    assert (along > 0).all() or (along < 0).all()


def test_a_level_that_leaves_nothing_is_refused() -> None:
    density = torch.zeros(16, 16, 16)
    density[8, 8, 8] = 1.0
    with pytest.raises(InputError, match=r"1 voxels .* above 0.5, .* \(--count\)"):
        beads_of_map(density, PIXEL, 4, 0.5, seeded())
