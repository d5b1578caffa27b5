"""What a residue is, by its atoms; a list of names knows only one program's."""

from collections.abc import Sequence
from typing import Literal

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryoinfer.io.elements import HYDROGENS, NONE

Kind = Literal["amino acid", "nucleotide", "water", "ion", "other"]

POLYMERS = ("amino acid", "nucleotide")
"""Kinds of what chains are made of."""

_BACKBONE = {"N", "CA", "C"}
_SUGAR = {"C1'", "C2'", "C3'", "C4'", "C5'", "O4'", "O5'", "O3'"}
_FEW_OF_SUGAR = 2
_LINKED_ANGSTROM = 8.5
"""From a phosphorus to the sugar (5.5) or the phosphorus (7) of the nucleotide before
it, and half as much again: two ligands are hardly ever as near."""

_VIRTUAL_ANGSTROM = 0.9
"""From an oxygen, within which no atom but hydrogen is: sites that carry charge."""


def residue_kinds(
    residues: Sequence[Sequence[int]],
    names: Sequence[str],
    elements: Sequence[str],
    residue_names: Sequence[str],
    coordinates_angstrom: NDArray[np.float64],
) -> list[Kind]:
    """Return the kind of every residue.

    An amino acid has an alpha carbon between N and C (or is known by name, or is that
    atom alone); a nucleotide has atoms of a sugar, and phosphorus bonded to the sugar
    beside it in the file (or is known by name): AMP, a ligand, has all of a nucleotide
    but neighbours. A water is one oxygen, whatever it is called, and an ion one atom.

    Parameters
    ----------
    residues : sequence of rows
        Of each residue's atoms.
    names, elements, residue_names : sequences of str, length a
    coordinates_angstrom : array of float64, shape (a, 3)
    """
    found: list[Kind] = []
    maybe = []
    for place, rows in enumerate(residues):
        bare = [row for row in rows if elements[row] not in (*HYDROGENS, NONE)]
        kind = _kind(bare, names, elements, residue_names, coordinates_angstrom)
        found.append(kind)
        if kind in ("other", "ion") and _is_like_nucleotide(bare, names, elements):
            maybe.append(place)
    ends = {place: _ends(residues[place], names) for place in maybe}
    for place in maybe:
        for beside in (place - 1, place + 1):
            nucleotide = beside in ends or (
                0 <= beside < len(found) and found[beside] == "nucleotide"
            )
            if not nucleotide:
                continue
            other = ends.get(beside) or _ends(residues[beside], names)
            pairs = (ends[place], other) if beside > place else (other, ends[place])
            if _is_linked(*pairs, coordinates_angstrom):
                found[place] = "nucleotide"
    return found


def _kind(
    bare: list[int],
    names: Sequence[str],
    elements: Sequence[str],
    residue_names: Sequence[str],
    coordinates_angstrom: NDArray[np.float64],
) -> Kind:
    """Return what a residue is by itself."""
    if not bare:
        return "other"
    known = gemmi.find_tabulated_residue(residue_names[bare[0]])
    if known.is_water() and len(bare) == 1:
        return "water"
    own = {names[row] for row in bare}
    carbon = any(names[row] == "CA" and elements[row] == "C" for row in bare)
    if carbon and (known.is_amino_acid() or own >= _BACKBONE or len(bare) == 1):
        return "amino acid"
    if known.is_nucleic_acid():
        return "nucleotide"
    if known.is_amino_acid():
        return "other"
    if all(elements[row] == "O" for row in bare):
        apart = coordinates_angstrom[bare[1:]] - coordinates_angstrom[bare[0]]
        if not len(apart) or np.linalg.norm(apart, axis=1).max() < _VIRTUAL_ANGSTROM:
            return "water"
    return "ion" if len(bare) == 1 else "other"


def _is_like_nucleotide(
    bare: list[int], names: Sequence[str], elements: Sequence[str]
) -> bool:
    """Tell whether a residue has atoms of a sugar, or is phosphorus alone."""
    own = {names[row].replace("*", "'") for row in bare}
    alone = len(bare) == 1 and elements[bare[0]] == "P" and "P" in own
    return alone or ("C1'" in own and len(own & _SUGAR) >= _FEW_OF_SUGAR)


def _ends(rows: Sequence[int], names: Sequence[str]) -> tuple[int, int]:
    """Return the rows of the phosphorus and of the sugar's C1', -1 for none."""
    row_of = {names[row].replace("*", "'"): row for row in rows}
    return row_of.get("P", -1), row_of.get("C1'", -1)


def _is_linked(
    before: tuple[int, int],
    after: tuple[int, int],
    coordinates_angstrom: NDArray[np.float64],
) -> bool:
    """Tell whether a phosphate joins a nucleotide to the one before it.

    Files list them from the 5' end on; some the other way round.
    """
    for one, other in ((before, after), (after, before)):
        phosphorus = other[0]
        sugar = one[1] if one[1] >= 0 else one[0]
        if phosphorus >= 0 and sugar >= 0:
            apart = coordinates_angstrom[phosphorus] - coordinates_angstrom[sugar]
            if np.linalg.norm(apart) < _LINKED_ANGSTROM:
                return True
    return False
