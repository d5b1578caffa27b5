"""Structures that ship with the package, for examples, tests and benchmarks."""

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import as_file, files
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cryoinfer.data.given_structure import GivenStructure, given_structure
from cryoinfer.data.structure_names import EXAMPLE_NAMES, require_structure
from cryoinfer.errors import InputError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.atoms import AtomicModel, KeptAtoms, read_atoms
from cryoinfer.io.residues import fresh_names

_COPY_RADIUS_ANGSTROM = 36.0  # neighbours are 5 (C4) or 10 (D2) angstrom apart

_EXAMPLES: dict[str, Callable[[], AtomicModel]] = {
    "adenylate-kinase-open": lambda: _read("adenylate-kinase-open.pdb.gz"),
    "adenylate-kinase-closed": lambda: _read("adenylate-kinase-closed.pdb.gz"),
    "adenylate-kinase-c4": lambda: symmetric_copies(
        example_atoms("adenylate-kinase-open"), "C4", _COPY_RADIUS_ANGSTROM
    ),
    "adenylate-kinase-d2": lambda: symmetric_copies(
        example_atoms("adenylate-kinase-open"), "D2", _COPY_RADIUS_ANGSTROM
    ),
}


def example_atoms(name: str) -> AtomicModel:
    """Return the heavy atoms of an example structure, centred on their mean.

    Parameters
    ----------
    name : str
        ``adenylate-kinase-open`` (PDB 4AKE, chain A) or ``-closed`` (PDB 1AKE, chain
        A), from Escherichia coli, 1,656 atoms and 24 kDa each; ``-c4`` and ``-d2``
        are made of four open copies, which no cell ever saw.

    Raises
    ------
    InputError
        If no example has that name.
    """
    if name not in _EXAMPLES:
        raise InputError(
            f"There is no example structure {name!r}: expected one of "
            f"{', '.join(EXAMPLE_NAMES)}."
        )
    return _EXAMPLES[name]()


def named_structure(name: str) -> GivenStructure:
    """Return the heavy atoms of an example, or of a file, and what to know of them.

    Parameters
    ----------
    name : str
        What :func:`example_atoms` knows, or the path of an mmCIF or PDB file.

    Raises
    ------
    InputError
        If it is neither, or the file cannot be used.
    """
    if name in EXAMPLE_NAMES:
        model = example_atoms(name)
        return GivenStructure(model, KeptAtoms(np.arange(len(model)), len(model)), ())
    require_structure(name)
    return given_structure(name)


def named_atoms(name: str) -> AtomicModel:
    """Return the atoms alone of :func:`named_structure`."""
    return named_structure(name).model


def symmetric_copies(
    atoms: AtomicModel, symmetry: str, radius_angstrom: float
) -> AtomicModel:
    """Place copies of a molecule around the axes of a cyclic or dihedral group.

    The molecule is centred and moved by ``radius_angstrom``: along x for a cyclic
    group, along (1, 1, 1), which is on no axis, for a dihedral one.

    Parameters
    ----------
    atoms : AtomicModel
    symmetry : str
        Cn or Dn, axes as :func:`cryoinfer.geometry.symmetry.symmetry_rotations`.
    radius_angstrom : float
        Distance of the centre of each copy from the origin.

    Returns
    -------
    AtomicModel
        One chain a copy, named A, B, ...; centred on the origin.

    Raises
    ------
    InputError
        If the group is neither cyclic nor dihedral.
    """
    family = symmetry[:1].upper()
    if family not in ("C", "D"):
        raise InputError(
            f"Copies can be placed for Cn and Dn, not for {symmetry!r}: "
            "choose for example C4 or D2."
        )
    rotations = symmetry_rotations(symmetry).numpy()
    direction = np.array([1.0, 0.0, 0.0] if family == "C" else [1.0, 1.0, 1.0])
    offset = radius_angstrom * direction / np.linalg.norm(direction)
    placed = _centred(atoms.coordinates_angstrom) + offset
    copies = len(rotations)
    per_copy = int(atoms.residue_index.max()) + 1
    return AtomicModel(
        coordinates_angstrom=np.concatenate([placed @ r.T for r in rotations]),
        elements=atoms.elements * copies,
        atom_names=atoms.atom_names * copies,
        residue_names=atoms.residue_names * copies,
        chain_names=tuple(
            name for name in islice(fresh_names(), copies) for _ in range(len(atoms))
        ),
        residue_numbers=atoms.residue_numbers * copies,
        insertion_codes=atoms.insertion_codes * copies,
        b_factors_angstrom2=np.tile(atoms.b_factors_angstrom2, copies),
        residue_index=np.concatenate(
            [atoms.residue_index + copy * per_copy for copy in range(copies)]
        ),
    )


def _read(file_name: str) -> AtomicModel:
    with as_file(files("cryoinfer.data") / "files" / file_name) as path:
        atoms = read_atoms(path)
    centred = _centred(atoms.coordinates_angstrom)
    return replace(atoms, coordinates_angstrom=centred)


def _centred(coordinates_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
    return coordinates_angstrom - coordinates_angstrom.mean(axis=0)
