"""The atoms of mmCIF files, row by row of ``_atom_site``."""

from typing import Any

import gemmi
import numpy as np

from cryoinfer.errors import InputError
from cryoinfer.io.atom_columns import AtomColumns, AtomFile, Cell, Texts
from cryoinfer.io.number_words import integer_of, number_of, numbers_or_nan

_AXES = ("Cartn_x", "Cartn_y", "Cartn_z")
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_GROUPS = ("_symmetry.space_group_name_H-M", "_space_group.name_H-M_alt")

_LARGEST_RESIDUE_NUMBER = 2**31 - 1
"""Programs count residues in 32 bits, gemmi among them, which writes models."""

Rows = dict[str, list[Any]]


def read(document: gemmi.cif.Document) -> AtomFile:
    """Return the atoms of the first block that has any.

    Raises
    ------
    InputError
        If none has, or a coordinate is no number.
    """
    for block in document:
        rows: Rows = block.get_mmcif_category("_atom_site.")
        if rows and all(axis in rows for axis in _AXES):
            return _atoms(block, rows)
    raise InputError(
        "expected atoms (_atom_site.Cartn_x and so on) in mmCIF, found none"
    )


def _atoms(block: gemmi.cif.Block, rows: Rows) -> AtomFile:
    places = _coordinates(rows)
    model = _texts(rows, len(places), "pdbx_PDB_model_num")
    begins = np.flatnonzero(np.concatenate([[True], model[1:] != model[:-1]]))
    ends = [*begins[1:], len(places)]
    models = tuple(places[a:b] for a, b in zip(begins, ends, strict=True))
    first = {name: values[: ends[0]] for name, values in rows.items()}
    return AtomFile(_columns(first, int(ends[0])), models, _cell(block))


def _coordinates(rows: Rows) -> np.ndarray[Any, np.dtype[np.float64]]:
    # gemmi's words for ? and . are None and False: no place, not one at 0.
    axes = [[w if isinstance(w, str) else "nan" for w in rows[axis]] for axis in _AXES]
    places = np.stack([numbers_or_nan(np.array(axis)) for axis in axes], 1)
    for row in np.flatnonzero(np.isnan(places).any(1)):
        words = [axis[row] for axis in axes]
        if any(number_of(word) is None for word in words):
            raise InputError(
                f"atom {row + 1:,} has no coordinates that are numbers: "
                f"{', '.join(words)}"
            )
    return places


def _columns(rows: Rows, count: int) -> AtomColumns:
    number = _texts(rows, count, "auth_seq_id", "label_seq_id")
    return AtomColumns(
        names=_texts(rows, count, "label_atom_id", "auth_atom_id"),
        residue_names=_texts(rows, count, "label_comp_id", "auth_comp_id"),
        chains=_texts(rows, count, "auth_asym_id", "label_asym_id"),
        segments=_texts(rows, count, "label_asym_id"),
        insertion_codes=_texts(rows, count, "pdbx_PDB_ins_code"),
        alternatives=_texts(rows, count, "label_alt_id"),
        symbols=_texts(rows, count, "type_symbol"),
        from_first_column=np.zeros(count, dtype=bool),
        residue_numbers=_residue_numbers(number),
        after_end=np.zeros(count, dtype=bool),
        occupancies=_floats(rows, count, "occupancy", 1.0),
        b_factors_angstrom2=_floats(rows, count, "B_iso_or_equiv", 0.0),
    )


def _texts(rows: Rows, count: int, *names: str) -> Texts:
    """Return a column, of a row what the first of several columns knows."""
    found = [rows[name] for name in names if name in rows]
    if not found:
        return np.full(count, "", dtype=np.str_)
    return np.array([next((v for v in of if v), "") for of in zip(*found, strict=True)])


def _residue_numbers(words: Texts) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return residue numbers, 0 where there is none."""
    numbers = [integer_of(word) or 0 for word in words.tolist()]
    for row, number in enumerate(numbers):
        if abs(number) > _LARGEST_RESIDUE_NUMBER:
            raise InputError(
                f"atom {row + 1:,} has the residue number {number}: expected one "
                f"within {_LARGEST_RESIDUE_NUMBER:,} of 0, as other programs read. "
                "Renumber the residues"
            )
    return np.array(numbers, dtype=np.int64)


def _floats(
    rows: Rows, count: int, name: str, missing: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers; NaN for what is none."""
    words = _texts(rows, count, name)
    return np.where(words == "", missing, numbers_or_nan(words))


def _cell(block: gemmi.cif.Block) -> Cell | None:
    words = [block.find_value(f"_cell.{name}") for name in _CELL]
    group = next((w for w in map(block.find_value, _GROUPS) if w), "")
    try:
        values = tuple(gemmi.cif.as_number(word) for word in words if word)
    except ValueError:
        return None
    if len(values) != len(_CELL):
        return None
    return Cell.of_lengths(values, gemmi.cif.as_string(group) if group else "")
