"""The atoms of a coordinate file, column by column and in the order of the file.

Nothing is merged, sorted or left out here: what is one residue, and what is kept, is
decided by :mod:`cryoinfer.io.residues` and :mod:`cryoinfer.io.atoms`.
"""

from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray

Texts = NDArray[np.str_]

_LEAST_CELL_ANGSTROM = 5.0  # programs write 1 1 1 for no cell


@dataclass(frozen=True)
class AtomColumns:
    """What a file says of each of a atoms.

    Attributes
    ----------
    names, residue_names, chains, segments, insertion_codes : arrays of str, length a
        Empty where the file says nothing.
    alternatives : array of str, length a
        The letter of an alternative conformation.
    symbols : array of str, length a
        Of the elements, as written; empty where the file has none.
    from_first_column : array of bool, length a
        Whether a name begins where PDB files have symbols of two letters.
    residue_numbers : array of int64, length a
    after_end : array of bool, length a
        Whether the file says that a chain ends before the atom.
    occupancies, b_factors_angstrom2 : arrays of float64, length a
    """

    names: Texts
    residue_names: Texts
    chains: Texts
    segments: Texts
    insertion_codes: Texts
    alternatives: Texts
    symbols: Texts
    from_first_column: NDArray[np.bool_]
    residue_numbers: NDArray[np.int64]
    after_end: NDArray[np.bool_]
    occupancies: NDArray[np.float64]
    b_factors_angstrom2: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Cell:
    """The box that a structure repeats in.

    Attributes
    ----------
    vectors_angstrom : array of float64, shape (3, 3)
        A row each.
    alone : bool
        Whether only shifts by these vectors make copies, as in a simulation: no
        symmetry of a crystal.
    """

    vectors_angstrom: NDArray[np.float64]
    alone: bool

    @classmethod
    def of_lengths(
        cls, lengths_angles: tuple[float, ...], space_group: str
    ) -> "Cell | None":
        """Return a cell of (a, b, c) in angstrom and its angles in degrees.

        None where lengths or angles are none of a cell.
        """
        lengths, angles = lengths_angles[:3], lengths_angles[3:]
        if not np.isfinite(lengths_angles).all() or min(lengths) < _LEAST_CELL_ANGSTROM:
            return None
        if not all(10.0 < angle < 170.0 for angle in angles):
            return None
        found = cls.of_vectors(np.array(gemmi.UnitCell(*lengths_angles).orth.mat).T)
        alone = space_group.replace(" ", "") in ("", "P1")
        return None if found is None else cls(found.vectors_angstrom, alone)

    @classmethod
    def of_vectors(cls, vectors_angstrom: NDArray[np.float64]) -> "Cell | None":
        """Return a cell of three vectors, a row each; None where they span none."""
        vectors = np.array(vectors_angstrom, dtype=np.float64)
        if not np.isfinite(vectors).all():
            return None
        if abs(np.linalg.det(vectors)) < _LEAST_CELL_ANGSTROM**3 / 10:
            return None
        return cls(vectors, True)


@dataclass(frozen=True)
class AtomFile:
    """All that is read of a coordinate file.

    Attributes
    ----------
    columns : AtomColumns
        Of the first model.
    coordinates_angstrom : tuple of arrays of float64, shape (a, 3)
        (x, y, z) of each model's atoms.
    cell : Cell or None
    """

    columns: AtomColumns
    coordinates_angstrom: tuple[NDArray[np.float64], ...]
    cell: Cell | None
