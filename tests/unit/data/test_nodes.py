"""One node a residue, and the atoms that go with it."""

import numpy as np
import pytest
import torch

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.nodes import Nodes
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel


def model(*rows: tuple[str, str, str, str, int, str]) -> AtomicModel:
    """Return atoms of (name, element, residue, chain, number, insertion code)."""
    names, elements, residues, chains, numbers, codes = zip(*rows, strict=True)
    along = 4.0 * np.arange(len(rows))
    keys = [row[2:] for row in rows]
    index = [len(set(keys[: row + 1])) - 1 for row in range(len(keys))]
    return AtomicModel(
        coordinates_angstrom=np.stack([along, 0 * along, 0 * along], 1),
        elements=elements,
        atom_names=names,
        residue_names=residues,
        chain_names=chains,
        residue_numbers=numbers,
        insertion_codes=codes,
        b_factors_angstrom2=along,
        residue_index=np.array(index),
    )


def amino(residue: str, chain: str, number: int, code: str = "") -> list:
    atoms = (("N", "N"), ("CA", "C"), ("C", "C"))
    return [(name, el, residue, chain, number, code) for name, el in atoms]


def test_residues_are_told_apart_by_chain_number_and_insertion_code() -> None:
    atoms = model(
        *amino("GLY", "A", 1),
        *amino("GLY", "A", 1, "A"),
        *amino("GLY", "B", 1),
        *amino("GLY", "B", 2),
    )
    nodes = Nodes.of_model(atoms)
    assert nodes.atom.tolist() == [1, 4, 7, 10]
    assert nodes.of_atom.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert nodes.coordinates_angstrom(atoms)[:, 0].tolist() == [4, 16, 28, 40]


def test_amino_acids_under_other_names_are_known_and_ligands_left_out() -> None:
    atoms = model(
        *amino("HSD", "A", 1),
        ("P", "P", "A", "N", 1, ""),
        ("C1'", "C", "A", "N", 1, ""),
        ("P", "P", "AMP", "L", 1, ""),
        ("C1'", "C", "AMP", "L", 1, ""),
    )
    nodes = Nodes.of_model(atoms)
    assert nodes.atom.tolist() == [1, 3]
    assert nodes.of_atom.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_what_has_no_node_goes_with_the_nearest() -> None:
    atoms = model(
        *amino("ALA", "A", 1),
        ("ZN", "ZN", "ZN", "A", 2, ""),
        *amino("ALA", "A", 3),
    )
    # The zinc lies 8 angstrom from the one alpha carbon, as it does from the other.
    nodes = Nodes.of_model(atoms)
    assert len(nodes) == 2
    assert nodes.of_atom[3] in (0, 1)
    step = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64)
    # Two nodes that move alike do not turn.
    assert torch.equal(nodes.extended(step, atoms), step[:1].expand(7, 3))


def test_residues_turn_with_those_around_them() -> None:
    atoms = example_atoms("adenylate-kinase-open")
    nodes = Nodes.of_model(atoms)
    every = torch.from_numpy(atoms.coordinates_angstrom)
    own = torch.from_numpy(nodes.coordinates_angstrom(atoms))
    axis = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64)
    along = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)

    def rigid(points: torch.Tensor) -> torch.Tensor:
        return torch.linalg.cross(axis.expand_as(points), points) + along

    found = nodes.extended(torch.stack([rigid(own), 2 * rigid(own)]), atoms)
    # What keeps nodes in a row from turning anyhow is 1e-3 of an inertia of 100 A^2
    # and more: a hundred thousandth of a turn by 2 radian, at arms of up to 10 A.
    expected = torch.stack([rigid(every), 2 * rigid(every)])
    assert float((found - expected).abs().max()) < 4e-4
    assert torch.allclose(found[:, nodes.atom], expected[:, nodes.atom], atol=1e-12)


@pytest.mark.parametrize(
    "atom",
    [
        ("CA", "Ca", "CA", "A", 1, ""),  # calcium
        ("P", "P", "PO4", "A", 1, ""),
        ("C1", "C", "BNZ", "A", 1, ""),
    ],
)
def test_ligands_alone_have_no_nodes(atom: tuple[str, str, str, str, int, str]) -> None:
    with pytest.raises(InputError, match=r"no alpha carbon .* among 1 atoms"):
        Nodes.of_model(model(atom))


def test_adenylate_kinase_has_a_node_a_residue() -> None:
    atoms = example_atoms("adenylate-kinase-open")
    nodes = Nodes.of_model(atoms)
    kept = atoms.select(nodes.atom)
    assert len(kept) == 214
    assert set(kept.atom_names) == {"CA"}
    assert kept.residue_numbers == tuple(range(1, 215))
