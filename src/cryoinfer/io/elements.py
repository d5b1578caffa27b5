"""The elements of atoms, also where a file says nothing of them or something else."""

from collections.abc import Sequence

import gemmi

from cryoinfer.io.atom_columns import AtomColumns

NONE = "X"
"""Of dummies, which programs of molecular dynamics put where no atom is."""

HYDROGENS = ("H", "D")

_OF_RESIDUES = {"H", "D", "C", "N", "O", "P", "S", "Se", "F", "Cl", "Br", "I", "B"}
_LETTERS = ("H", "C", "N", "O", "P", "S", "D", "F", "B", "I", "K", "V", "W", "Y", "U")
_TWO = {"CL": "Cl", "BR": "Br", "FE": "Fe", "MG": "Mg", "ZN": "Zn", "SE": "Se"}
_TWO |= {"MN": "Mn", "CU": "Cu", "LI": "Li", "SI": "Si", "AL": "Al", "RU": "Ru"}
_IONS = {"SOD": "Na", "CLA": "Cl", "POT": "K", "CAL": "Ca", "CES": "Cs", "LIT": "Li"}
_IONS |= {"RUB": "Rb", "BAR": "Ba", "CAD": "Cd", "IOD": "I", "ZN2": "Zn", "CIO": "Cs"}
"""Names of CHARMM and AMBER, which neither chemistry nor a rule of letters tells."""

_PEPTIDE = {"N", "CA", "C"}
_SIGNS = "+-0123456789'*\""


def elements_of(columns: AtomColumns, residues: Sequence[Sequence[int]]) -> list[str]:
    """Return the symbol of each atom, ``X`` for none.

    Parameters
    ----------
    columns : AtomColumns
    residues : sequence of rows
        Of each residue.
    """
    found = [NONE] * len(columns)
    names, symbols = columns.names.tolist(), columns.symbols.tolist()
    known: dict[tuple[str, ...], list[str]] = {}
    for rows in residues:
        own = tuple(names[row] for row in rows)
        written = tuple(symbols[row] for row in rows)
        shifted = tuple(bool(columns.from_first_column[row]) for row in rows)
        residue = str(columns.residue_names[rows[0]])
        key = (residue, *own, *written, *map(str, shifted))
        if key not in known:
            known[key] = _symbols(residue, own, written, shifted)
        for row, symbol in zip(rows, known[key], strict=True):
            found[row] = symbol
    return found


def _symbols(
    residue: str,
    names: tuple[str, ...],
    written: tuple[str, ...],
    shifted: tuple[bool, ...],
) -> list[str]:
    """Return the symbols of one residue's atoms."""
    backbone = set(names) >= _PEPTIDE
    alone = len(names) == 1
    found = []
    for name, word, early in zip(names, written, shifted, strict=True):
        symbol = gemmi.Element(word).name if word else NONE
        if backbone and symbol not in _OF_RESIDUES:
            # CHARMM's files name atoms from column 13 on, so that the alpha carbon
            # reads as calcium and HG1 as mercury; no amino acid holds such elements.
            symbol = _by_first_letter(name)
        elif symbol == NONE and alone:
            symbol = _of_ion(residue, name, early)
        elif symbol == NONE and not word:
            symbol = _by_letters(name)
        found.append(symbol)
    return found


def _by_first_letter(name: str) -> str:
    if name == "SE":
        return "Se"
    letter = name.lstrip("0123456789")[:1].upper()
    return letter if letter in _LETTERS[:9] else NONE


def _by_letters(name: str) -> str:
    """Return an element of a molecule by an atom's name."""
    bare = name.lstrip("0123456789").upper()
    return _TWO.get(bare[:2], _by_first_letter(name))


def _of_ion(residue: str, name: str, from_first_column: bool) -> str:
    """Return the element of an atom that is a residue of its own."""
    bare = name.upper().strip(_SIGNS)
    if name.upper() in _IONS:
        return _IONS[name.upper()]
    if residue.upper() in _IONS:
        return _IONS[residue.upper()]
    two = gemmi.Element(bare).name if len(bare) == 2 else NONE
    if two != NONE and (from_first_column or residue.upper().strip(_SIGNS) == bare):
        return two
    return _by_letters(bare) if bare not in _LETTERS[9:] else bare
