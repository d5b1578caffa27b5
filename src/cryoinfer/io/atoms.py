"""Read atomic models from mmCIF and PDB files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryoinfer.errors import InputError
from cryoinfer.io.atom_columns import AtomColumns, AtomFile, Cell
from cryoinfer.io.atom_files import read_atom_file
from cryoinfer.io.elements import HYDROGENS, NONE, elements_of
from cryoinfer.io.places import FARTHEST_ANGSTROM
from cryoinfer.io.residue_kinds import POLYMERS, Kind, residue_kinds
from cryoinfer.io.residues import ChainNames, alternatives, residue_index, rows_of

_BESIDE_ANGSTROM = 5.0
"""Of a molecule, within which an ion may be bound: farther ones are of the solvent."""

_OF_SALTS = {"Li", "Na", "K", "Rb", "Cs", "F", "Cl", "Br", "I"}

_LARGEST_B_ANGSTROM2 = 10_000.0


@dataclass(frozen=True)
class AtomicModel:
    """The atoms of one model of a structure.

    Attributes
    ----------
    coordinates_angstrom : array of float64, shape (a, 3)
        (x, y, z) as in the file.
    elements : tuple of str
        Symbols such as ``"C"`` or ``"Zn"``.
    atom_names, residue_names, chain_names : tuple of str
        No two chains have one name: :class:`cryoinfer.io.residues.ChainNames`.
    residue_numbers : tuple of int
    insertion_codes : tuple of str
        What tells residues of one number apart; mostly empty.
    b_factors_angstrom2 : array of float64, shape (a,)
    residue_index : array of int64, shape (a,)
        What tells residues apart, whatever they are called: their place in the file.
    """

    coordinates_angstrom: NDArray[np.float64]
    elements: tuple[str, ...]
    atom_names: tuple[str, ...]
    residue_names: tuple[str, ...]
    chain_names: tuple[str, ...]
    residue_numbers: tuple[int, ...]
    insertion_codes: tuple[str, ...]
    b_factors_angstrom2: NDArray[np.float64]
    residue_index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.elements)

    def select(self, rows: NDArray[np.int64]) -> "AtomicModel":
        """Return some of the atoms."""
        chosen = rows.tolist()
        values: dict[str, Any] = {
            name: value[rows]
            if isinstance(value, np.ndarray)
            else tuple(value[row] for row in chosen)
            for name, value in vars(self).items()
        }
        return AtomicModel(**values)

    def residues(self) -> list[range]:
        """Return the rows of every residue, in their order."""
        return rows_of(self.residue_index)

    def residue_kinds(self) -> list[Kind]:
        """Return what every residue is, in their order."""
        return residue_kinds(
            self.residues(),
            self.atom_names,
            self.elements,
            self.residue_names,
            self.coordinates_angstrom,
        )

    def residue_label(self, row: int) -> str:
        """Return how people call the residue of an atom, ``A GLY 12B``."""
        number = f"{self.residue_numbers[row]}{self.insertion_codes[row]}"
        return f"{self.chain_names[row]} {self.residue_names[row]} {number}"


@dataclass(frozen=True)
class KeptAtoms:
    """Which atoms of a file a model holds.

    Attributes
    ----------
    rows : ndarray of int64, shape (a,)
        Their places among all atoms of the file's first model, from 0.
    of : int
        How many those are.
    """

    rows: NDArray[np.int64]
    of: int


@dataclass(frozen=True)
class LeftOut:
    """What a file has and a model has not.

    Attributes
    ----------
    hydrogens, alternatives, dummies : int
        Atoms: of hydrogen, in other than the first of alternative places, and of no
        element.
    waters, ions : Counter
        Residues by name; ions that no molecule is near.
    """

    hydrogens: int = 0
    alternatives: int = 0
    dummies: int = 0
    waters: Counter[str] = field(default_factory=Counter)
    ions: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = [
            _of_residues(self.waters, "waters"),
            _of_residues(
                self.ions, f"ions farther than {_BESIDE_ANGSTROM:g} A from any molecule"
            ),
            _of_atoms(self.hydrogens, "hydrogens"),
            _of_atoms(
                self.alternatives,
                "atoms in alternative places, of which the first counts",
            ),
            _of_atoms(self.dummies, "atoms of no known element"),
        ]
        return "; ".join(kind for kind in kinds if kind)


@dataclass(frozen=True)
class ReadStructure:
    """What is read of a coordinate file.

    Attributes
    ----------
    model : AtomicModel
    kept : KeptAtoms
    left_out : LeftOut
    named_chains : tuple of str
        Chains that the file does not name, or names as others.
    models : int
        In the file; the first is read.
    cell : Cell or None
    odd_b_factors : int
        Atoms whose B-factor none can be; then those of all are 0.
    odd_occupancies : int
        Atoms whose occupancy is 0, or none can be; all count as there.
    """

    model: AtomicModel
    kept: KeptAtoms
    left_out: LeftOut
    named_chains: tuple[str, ...]
    models: int
    cell: Cell | None
    odd_b_factors: int
    odd_occupancies: int


def read_atoms(
    path: Path | str, *, hydrogens: bool = False, waters: bool = False
) -> AtomicModel:
    """Read the first model of an mmCIF or PDB file, plain or gzipped.

    As :func:`read_structure`.
    """
    return read_structure(path, hydrogens=hydrogens, waters=waters).model


def read_structure(
    path: Path | str, *, hydrogens: bool = False, waters: bool = False
) -> ReadStructure:
    """Read the first model of an mmCIF or PDB file, and say what is left out.

    Of alternative conformations the first is kept.

    Parameters
    ----------
    path : path
    hydrogens, waters : bool
        Whether to keep them; maps seldom show either. Ions far from any molecule go
        with the waters.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent, cannot be parsed, holds no such atoms, or coordinates
        that no atom can have.
    """
    file = read_atom_file(path)
    columns, places = file.columns, file.coordinates_angstrom[0]
    _require_places(columns, places, path)
    index = residue_index(columns)
    residues = rows_of(index)
    second = alternatives(columns, residues, places)
    elements = elements_of(columns, residues)
    first = [[row for row in rows if not second[row]] for rows in residues]
    kinds = residue_kinds(
        first, columns.names.tolist(), elements, columns.residue_names.tolist(), places
    )
    chains = ChainNames(
        columns,
        residues,
        np.array([kind in POLYMERS for kind in kinds]),
    )
    kept, left_out = _chosen(file, first, kinds, elements, (hydrogens, waters))
    if not len(kept):
        raise InputError(
            f"{path}: expected an mmCIF or PDB file with atoms of a molecule, found "
            f"none besides what is left out: {left_out}"
        )
    rows = kept.tolist()
    b_factors = columns.b_factors_angstrom2[kept]
    odd = ~((b_factors >= 0) & (b_factors <= _LARGEST_B_ANGSTROM2))
    occupancies = columns.occupancies[kept]
    model = AtomicModel(
        coordinates_angstrom=places[kept],
        elements=tuple(elements[row] for row in rows),
        atom_names=tuple(columns.names[kept].tolist()),
        residue_names=tuple(columns.residue_names[kept].tolist()),
        chain_names=tuple(chains.of_residue[index[row]] for row in rows),
        residue_numbers=tuple(chains.numbers[index[kept]].tolist()),
        insertion_codes=tuple(columns.insertion_codes[kept].tolist()),
        b_factors_angstrom2=np.zeros(len(kept)) if odd.any() else b_factors,
        residue_index=index[kept],
    )
    present = set(model.chain_names)
    return ReadStructure(
        model,
        KeptAtoms(kept, len(columns)),
        left_out,
        tuple(name for name in chains.made if name in present),
        len(file.coordinates_angstrom),
        file.cell,
        int(odd.sum()),
        int((~((occupancies > 0) & (occupancies <= 1))).sum()),
    )


def _require_places(
    columns: AtomColumns, places: NDArray[np.float64], path: Path | str
) -> None:
    """Refuse coordinates that no atom can have, and files that have none."""
    if not len(places):
        raise InputError(f"{path}: expected atoms with coordinates, found none")
    wrong = ~(np.abs(places) < FARTHEST_ANGSTROM).all(1)
    if wrong.any():
        row = int(wrong.argmax())
        x, y, z = places[row]
        raise InputError(
            f"{path}: {wrong.sum():,} of {len(places):,} atoms are at no place, the "
            f"first is atom {row + 1:,}, {columns.names[row]} of "
            f"{columns.residue_names[row]} {columns.residue_numbers[row]}, at "
            f"({x:g}, {y:g}, {z:g}): expected angstrom, within "
            f"{FARTHEST_ANGSTROM:g} of the origin. Remove these atoms, or correct "
            "the file"
        )


def _chosen(
    file: AtomFile,
    residues: Sequence[Sequence[int]],
    kinds: Sequence[Kind],
    elements: Sequence[str],
    also: tuple[bool, bool],
) -> tuple[NDArray[np.int64], LeftOut]:
    """Return the rows of atoms that are kept, and what is not."""
    hydrogens, waters = also
    names = file.columns.residue_names
    gone: dict[str, Counter[str]] = {"water": Counter(), "ion": Counter()}
    free = set() if waters else _free_ions(file, residues, kinds, elements)
    kept, without, dummies = [], 0, 0
    for place, rows in enumerate(residues):
        if (kinds[place] == "water" and not waters) or place in free:
            gone[kinds[place]][str(names[rows[0]])] += 1
            continue
        for row in rows:
            if elements[row] in HYDROGENS and not hydrogens:
                without += 1
            elif elements[row] == NONE:
                dummies += 1
            else:
                kept.append(row)
    second = len(file.columns) - sum(map(len, residues))
    left_out = LeftOut(without, second, dummies, gone["water"], gone["ion"])
    return np.array(kept, dtype=np.int64), left_out


def _free_ions(
    file: AtomFile,
    residues: Sequence[Sequence[int]],
    kinds: Sequence[Kind],
    elements: Sequence[str],
) -> set[int]:
    """Return the places of ions of a dissolved salt; one alone is no salt."""
    ions = [
        place
        for place, kind in enumerate(kinds)
        if kind == "ion" and elements[residues[place][0]] in _OF_SALTS
    ]
    of_molecules = [
        row
        for place, kind in enumerate(kinds)
        if kind not in ("ion", "water")
        for row in residues[place]
    ]
    if not ions or not of_molecules:
        return set()
    at = file.coordinates_angstrom[0]
    nearest, _ = cKDTree(at[of_molecules]).query(at[[residues[i][0] for i in ions]])
    far = np.flatnonzero(nearest > _BESIDE_ANGSTROM)
    return {ions[one] for one in far} if len(far) > 1 else set()


def _of_residues(names: Counter[str], kind: str) -> str:
    """Return ``2,500 waters (TIP3)``."""
    return f"{names.total():,} {kind} ({', '.join(sorted(names))})" if names else ""


def _of_atoms(count: int, kind: str) -> str:
    return f"{count:,} {kind}" if count else ""
