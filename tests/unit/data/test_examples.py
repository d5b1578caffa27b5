"""Example structures: what ships, and symmetric copies."""

from importlib.resources import files

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cryoinfer.data.examples import EXAMPLE_NAMES, example_atoms, symmetric_copies
from cryoinfer.errors import InputError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.atoms import AtomicModel

needs_adenylate_kinase = pytest.mark.skipif(
    not (files("cryoinfer.data") / "files/adenylate-kinase-open.pdb.gz").is_file(),
    reason="the coordinates of adenylate kinase are not in this checkout",
)


def triangle() -> AtomicModel:
    return AtomicModel(
        coordinates_angstrom=np.array([[10.0, 0, 0], [11, 2, 0], [12, -2, 3]]),
        elements=("C", "N", "O"),
        atom_names=("CA", "N", "O"),
        residue_names=("GLY",) * 3,
        chain_names=("X",) * 3,
        residue_numbers=(1, 1, 2),
        insertion_codes=("", "", ""),
        b_factors_angstrom2=np.array([10.0, 20.0, 30.0]),
        residue_index=np.array([0, 0, 1]),
    )


@needs_adenylate_kinase
@pytest.mark.parametrize("state", ["open", "closed"])
def test_adenylate_kinase_is_whole(state: str) -> None:
    atoms = example_atoms(f"adenylate-kinase-{state}")
    assert len(atoms) == 1656
    assert set(atoms.elements) == {"C", "N", "O", "S"}
    assert sorted(set(atoms.residue_numbers)) == list(range(1, 215))
    assert atoms.atom_names.count("CA") == 214
    # A sum of 1,656 numbers in float64.
    assert np.abs(atoms.coordinates_angstrom.mean(axis=0)).max() < 1e-10


@needs_adenylate_kinase
def test_the_lid_closes() -> None:
    """The open state reaches further: its alpha carbons move by 7 angstrom."""
    radii = []
    for state in ("open", "closed"):
        atoms = example_atoms(f"adenylate-kinase-{state}")
        alpha = np.array(atoms.atom_names) == "CA"
        x = atoms.coordinates_angstrom[alpha]
        radii.append(np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()))
    assert radii[0] > radii[1] + 2


@needs_adenylate_kinase
@pytest.mark.parametrize("name", EXAMPLE_NAMES)
def test_every_name_gives_a_centred_structure(name: str) -> None:
    atoms = example_atoms(name)
    assert np.abs(atoms.coordinates_angstrom.mean(axis=0)).max() < 1e-10


@needs_adenylate_kinase
@pytest.mark.parametrize("name", ["adenylate-kinase-c4", "adenylate-kinase-d2"])
def test_symmetric_examples_do_not_overlap(name: str) -> None:
    first, *others = example_atoms(name).coordinates_angstrom.reshape(4, 1656, 3)
    gap = min(cKDTree(first).query(other)[0].min() for other in others)
    # Heavy atoms that only touch are 3 to 4 angstrom apart.
    assert gap > 3


def test_unknown_examples_are_refused() -> None:
    with pytest.raises(InputError, match="adenylate-kinase-open"):
        example_atoms("ribosome")


@pytest.mark.parametrize(("symmetry", "order"), [("C1", 1), ("C4", 4), ("D2", 4)])
def test_copies_have_the_symmetry(symmetry: str, order: int) -> None:
    atoms = symmetric_copies(triangle(), symmetry, 9.0)
    assert len(atoms) == len(atoms.elements) == 3 * order
    for rotation in symmetry_rotations(symmetry).numpy():
        turned = atoms.coordinates_angstrom @ rotation.T
        distance = np.linalg.norm(
            turned[:, None] - atoms.coordinates_angstrom[None], axis=2
        )
        # Float64 products of rotations.
        assert distance.min(axis=1).max() < 1e-12
        partner = distance.argmin(axis=1)
        assert [atoms.elements[i] for i in partner] == list(atoms.elements)


def test_copies_stand_at_the_radius_in_chains_of_their_own() -> None:
    atoms = symmetric_copies(triangle(), "D2", 9.0)
    centres = atoms.coordinates_angstrom.reshape(4, 3, 3).mean(axis=1)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 9.0)
    assert atoms.chain_names == ("A",) * 3 + ("B",) * 3 + ("C",) * 3 + ("D",) * 3
    assert len(atoms.b_factors_angstrom2) == 12


def test_other_groups_are_refused() -> None:
    with pytest.raises(InputError, match="C4 or D2"):
        symmetric_copies(triangle(), "O", 9.0)
