"""Chains that stay whole, and residues that ride on their nodes."""

import numpy as np
import pytest
import roma
import torch

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.physics.structures.deformation import (
    carried,
    chain_network,
    restrained,
    turns,
)

NODES = 30
NUMBERS = range(NODES)


def helix() -> torch.Tensor:
    """Return the alpha carbons of a helix, 3.8 angstrom from one to the next."""
    place = torch.arange(NODES, dtype=torch.float64)
    turn = torch.deg2rad(100 * place)
    return torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), 1.5 * place], 1)


def bonds(nodes: torch.Tensor) -> torch.Tensor:
    return (nodes[1:] - nodes[:-1]).norm(dim=1)


def test_springs_join_neighbours_of_one_chain() -> None:
    network = chain_network(helix().numpy(), ["A"] * 10 + ["B"] * 20, NUMBERS)
    pairs = set(zip(network.first.tolist(), network.second.tolist(), strict=True))
    assert (0, 4) in pairs
    assert (0, 5) not in pairs
    assert (9, 10) not in pairs
    assert (10, 11) in pairs
    assert len(pairs) == sum(10 - k + 20 - k for k in range(1, 5))


def test_springs_do_not_span_what_is_missing_of_a_chain() -> None:
    nodes = helix().numpy()
    nodes[15:] += [0, 0, 40.0]
    network = chain_network(nodes, ["A"] * NODES, NUMBERS)
    crossing = (network.first < 15) & (network.second >= 15)
    assert not crossing.any()


def test_springs_do_not_join_pieces_whose_numbers_jump() -> None:
    numbers = [*range(15), *range(40, 55)]
    network = chain_network(helix().numpy(), ["A"] * NODES, numbers)
    crossing = (network.first < 15) & (network.second >= 15)
    assert not crossing.any()
    assert len(network.first) == 2 * sum(15 - k for k in range(1, 5))


def test_what_is_whole_stays() -> None:
    nodes = helix()
    chain = chain_network(nodes.numpy(), ["A"] * NODES, NUMBERS)
    assert torch.equal(restrained(chain, nodes, 0.01), nodes)
    turned = nodes @ roma.rotvec_to_rotmat(torch.tensor([0.5, 1.0, 2.0]).double()).mT
    # The minimiser sees forces of rounding alone.
    assert float((restrained(chain, turned, 0.01) - turned).abs().max()) < 1e-9


def test_a_chain_that_was_torn_is_mended() -> None:
    nodes = helix()
    chain = chain_network(nodes.numpy(), ["A"] * NODES, NUMBERS)
    torn = nodes.clone()
    torn[NODES // 2 :, 0] += 6.0
    found = restrained(chain, torn, 0.01)
    assert float(bonds(torn).max()) > 6.5
    # Springs a hundred times as stiff as what pulls the other way.
    assert float((bonds(found) - bonds(nodes)).abs().max()) < 0.3
    # The halves are still apart: they have bent, not come back.
    apart = found[NODES // 2 :].mean(0) - found[: NODES // 2].mean(0)
    before = nodes[NODES // 2 :].mean(0) - nodes[: NODES // 2].mean(0)
    assert float(apart[0] - before[0]) > 3


def test_residues_that_are_carried_by_a_rigid_motion_go_with_it() -> None:
    generator = torch.Generator().manual_seed(0)
    nodes = helix()
    owner = torch.arange(NODES).repeat_interleave(4)
    noise = torch.randn(len(owner), 3, generator=generator, dtype=torch.float64)
    atoms = nodes[owner] + noise
    rotation = roma.random_rotmat(dtype=torch.float64)
    along = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)
    found = carried(atoms, owner, nodes, nodes @ rotation.mT + along)
    assert torch.allclose(found, atoms @ rotation.mT + along, atol=1e-9)


def test_small_turns_are_those_of_residues_that_are_carried() -> None:
    generator = torch.Generator().manual_seed(1)
    nodes = helix()
    step = torch.randn(NODES, 3, generator=generator, dtype=torch.float64)
    arm = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64).expand(NODES, 3)
    small = 1e-5
    owner = torch.arange(NODES)
    found = carried(nodes + arm, owner, nodes, nodes + small * step)
    slope = (found - nodes - arm) / small
    turn = turns(nodes, step)
    expected = step + torch.linalg.cross(turn, arm)
    # Second order of the step, and the pull on what could turn anyhow.
    assert float((slope - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("amplitude", [-4.0, 4.0])
def test_adenylate_kinase_stays_whole_when_it_moves_far(amplitude: float) -> None:
    model = MovingModel.of(example_atoms("adenylate-kinase-closed"), 1, 2.0)
    straight = model.node_coordinates_angstrom + model.modes.displacement_angstrom(
        torch.tensor([amplitude], dtype=torch.float64)
    )
    atoms = model.at(torch.tensor([amplitude]))
    nodes = torch.from_numpy(atoms.coordinates_angstrom[model.nodes.atom])
    # Alpha carbons are 3.8 A apart, 2.9 A beside a cis proline; straight lines tear
    # them 7 A apart.
    assert float(bonds(straight).max()) > 7
    assert float(bonds(nodes).min()) > 2.8
    assert float(bonds(nodes).max()) < 4.1
    names = np.array(atoms.atom_names)
    carbon = atoms.coordinates_angstrom[names == "C"][:-1]
    nitrogen = atoms.coordinates_angstrom[names == "N"][1:]
    peptide = np.linalg.norm(carbon - nitrogen, axis=1)
    # 1.33 A but for hinges, where residues turn by different angles.
    assert np.median(peptide) == pytest.approx(1.33, abs=0.05)
    assert peptide.max() < 2.6
