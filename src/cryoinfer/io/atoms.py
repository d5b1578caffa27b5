"""Read atomic models from mmCIF and PDB files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError, MissingFileError

_ELEMENTS_OF_RESIDUES = {"H", "D", "C", "N", "O", "P", "S", "Se"}


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
    residue_numbers : tuple of int
    insertion_codes : tuple of str
        What tells residues of one number apart; mostly empty.
    b_factors_angstrom2 : array of float64, shape (a,)
    """

    coordinates_angstrom: NDArray[np.float64]
    elements: tuple[str, ...]
    atom_names: tuple[str, ...]
    residue_names: tuple[str, ...]
    chain_names: tuple[str, ...]
    residue_numbers: tuple[int, ...]
    insertion_codes: tuple[str, ...]
    b_factors_angstrom2: NDArray[np.float64]

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


def read_atoms(
    path: Path | str, *, hydrogens: bool = False, waters: bool = False
) -> AtomicModel:
    """Read the first model of an mmCIF or PDB file, plain or gzipped.

    Of alternative conformations the first is kept.

    Parameters
    ----------
    path : path
    hydrogens, waters : bool
        Whether to keep them; maps seldom show either.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent, cannot be parsed or holds no such atoms.
    """
    structure = read_models(path)
    atoms = _chosen(structure, hydrogens, waters, path)
    return AtomicModel(
        coordinates_angstrom=np.array([cra.atom.pos.tolist() for cra in atoms]),
        elements=tuple(_element(cra) for cra in atoms),
        atom_names=tuple(cra.atom.name for cra in atoms),
        residue_names=tuple(cra.residue.name for cra in atoms),
        chain_names=tuple(cra.chain.name for cra in atoms),
        residue_numbers=tuple(cra.residue.seqid.num or 0 for cra in atoms),
        insertion_codes=tuple(cra.residue.seqid.icode.strip() for cra in atoms),
        b_factors_angstrom2=np.array([cra.atom.b_iso for cra in atoms]),
    )


def kept_atoms(
    path: Path | str, *, hydrogens: bool = False, waters: bool = False
) -> KeptAtoms:
    """Return which atoms of a file :func:`read_atoms` keeps.

    Raises
    ------
    MissingFileError, InputError
        As there.
    """
    structure = read_models(path)
    of = 0
    for cra in structure[0].all() if len(structure) else ():
        cra.atom.serial, of = of, of + 1
    atoms = _chosen(structure, hydrogens, waters, path)
    return KeptAtoms(np.array([cra.atom.serial for cra in atoms], dtype=np.int64), of)


def read_models(path: Path | str) -> gemmi.Structure:
    """Return all that a coordinate file holds.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent or cannot be parsed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"No such model: {path}")
    try:
        return gemmi.read_structure(str(path), format=gemmi.CoorFormat.Detect)
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{path} is not an mmCIF or PDB model: {error}") from error


def _chosen(
    structure: gemmi.Structure, hydrogens: bool, waters: bool, path: Path | str
) -> list[gemmi.CRA]:
    """Return the atoms of the first model that are kept; alters the structure."""
    structure.remove_alternative_conformations()
    if not waters:
        structure.remove_waters()
    atoms = list(structure[0].all()) if len(structure) else []
    if not hydrogens:
        atoms = [cra for cra in atoms if _element(cra) not in ("H", "D")]
    if not atoms:
        raise InputError(
            f"{path} holds no atoms besides hydrogens and waters. Expected an mmCIF "
            "or PDB file with coordinates."
        )
    return atoms


def _element(cra: gemmi.CRA) -> str:
    """Return the symbol, mended where a PDB file without symbols misled the parser.

    CHARMM's files name atoms from column 13 on, so that the alpha carbon ``CA``
    reads as calcium and ``HG1`` as mercury. No residue with a peptide backbone
    holds such elements.
    """
    symbol, name = cra.atom.element.name, cra.atom.name
    backbone = {"N", "CA", "C"} <= {atom.name for atom in cra.residue}
    if backbone and symbol not in _ELEMENTS_OF_RESIDUES:
        return name.lstrip("0123456789")[:1]
    return symbol
