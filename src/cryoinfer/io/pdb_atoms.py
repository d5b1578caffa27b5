"""The columns of PDB files, and what programs make of them.

Fixed columns (wwPDB format 3.3), read as they stand: readers that build a hierarchy
take residues of one name for one, and lose copies of a molecule.
"""

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.atom_columns import AtomColumns, AtomFile, Cell, Texts
from cryoinfer.io.number_words import integer_of, number_of, numbers_or_nan

_WIDTH = 80
_HYBRID_DIGITS = 4
_NAME, _RESIDUE, _NUMBER = slice(12, 16), slice(17, 20), slice(22, 26)
_FOURTH, _CHAIN, _CODE = 20, 21, 26


def read(content: bytes) -> AtomFile:
    """Return the atoms of a PDB file.

    Raises
    ------
    InputError
        If there are none, or a coordinate is no number.
    """
    models: list[list[bytes]] = [[]]
    ends: set[int] = set()  # of chains, of the first model
    cell = None
    for line in content.splitlines():
        record = line[:6].upper()
        if record in (b"ATOM  ", b"HETATM"):
            models[-1].append(line)
        elif record.startswith(b"TER") and len(models) == 1:
            ends.add(len(models[0]))
        elif record.startswith((b"MODEL", b"ENDMDL")) and models[-1]:
            models.append([])
        elif record == b"CRYST1" and cell is None:
            cell = _cell(line.decode("latin-1"))
    if not models[-1] and len(models) > 1:
        models.pop()
    if not models[0]:
        raise InputError("expected ATOM records of a PDB file, or mmCIF; found neither")
    table = _table(models[0])
    places = (_coordinates(_table(one), one) for one in models[1:])
    first = _coordinates(table, models[0])
    return AtomFile(_columns(table, ends), (first, *places), cell)


def _table(lines: list[bytes]) -> NDArray[np.bytes_]:
    """Return the characters of atoms, shape (a, 80)."""
    text = b"".join(line[:_WIDTH].ljust(_WIDTH) for line in lines)
    return np.frombuffer(text, dtype="S1").reshape(-1, _WIDTH)


def _field(table: NDArray[np.bytes_], where: slice) -> Texts:
    """Return the words in some columns, blanks at either end taken away."""
    # Few words are distinct, and text is slow.
    distinct, place = np.unique(_bytes(table, where), return_inverse=True)
    return np.char.strip(np.char.decode(distinct, "latin-1"))[place]


def _bytes(table: NDArray[np.bytes_], where: slice) -> NDArray[np.bytes_]:
    part = np.ascontiguousarray(table[:, where])
    return part.view(f"S{part.shape[1]}")[:, 0]


def _coordinates(table: NDArray[np.bytes_], lines: list[bytes]) -> NDArray[np.float64]:
    fields = [_bytes(table, slice(at, at + 8)) for at in (30, 38, 46)]
    axes = [np.char.decode(field, "latin-1") for field in fields]
    places = np.stack([numbers_or_nan(axis) for axis in axes], 1)
    for row in np.flatnonzero(np.isnan(places).any(1)):
        if any(number_of(axis[row]) is None for axis in axes):
            line = lines[row].decode("latin-1")
            raise InputError(
                f"atom {row + 1:,} has no coordinates that are numbers, in columns 31 "
                f"to 54: {line[:60].rstrip()!r}. Is the file cut short, or a number "
                "too large for its columns?"
            )
    return places


def _columns(table: NDArray[np.bytes_], ends: set[int]) -> AtomColumns:
    residue_names, chains = _names(table)
    codes = _field(table, slice(_CODE, _CODE + 1))
    numbers = _field(table, _NUMBER)
    # Some programs write numbers of five digits into the column behind.
    digit = np.char.isdigit(codes)
    numbers = np.where(digit, np.char.add(numbers, codes), numbers)
    after_end = np.zeros(len(table), dtype=bool)
    after_end[[row for row in ends if row < len(table)]] = True
    symbols = _field(table, slice(76, 78))
    # A name that begins a column early, behind the serial number.
    early = np.char.isalpha(_field(table, slice(11, 12)))
    names = _field(table, _NAME)
    names = np.where(early, _field(table, slice(11, 16)), names)
    return AtomColumns(
        names=names,
        residue_names=residue_names,
        chains=chains,
        segments=_field(table, slice(72, 76)),
        insertion_codes=np.where(digit, "", codes),
        alternatives=_field(table, slice(16, 17)),
        symbols=np.where(np.char.isalpha(symbols), symbols, ""),
        from_first_column=early | (table[:, _NAME.start] != b" "),
        residue_numbers=_numbers(numbers),
        after_end=after_end,
        occupancies=_floats(_field(table, slice(54, 60)), 1.0),
        b_factors_angstrom2=_floats(_field(table, slice(60, 66)), 0.0),
    )


def _names(table: NDArray[np.bytes_]) -> tuple[Texts, Texts]:
    """Return residues' and chains' names.

    Column 21 belongs to residue names of four letters (TIP3), or to chain names of two
    (of large complexes). It is a chain's where the run of atoms with it has several
    residue names, or one that is known without it.
    """
    three, letter = _field(table, _RESIDUE), _field(table, slice(_CHAIN, _CHAIN + 1))
    fourth = _field(table, slice(_FOURTH, _FOURTH + 1))
    two = np.char.add(fourth, letter)
    of_chain = np.zeros(len(table), dtype=bool)
    begins = np.flatnonzero(np.concatenate([[True], two[1:] != two[:-1]]))
    for first, last in zip(begins, [*begins[1:], len(table)], strict=True):
        if fourth[first] and letter[first]:
            names = set(three[first:last].tolist())
            known = gemmi.find_tabulated_residue(three[first]).found()
            # A residue under a name of four letters amid those of its chain.
            amid = any(
                not fourth[row] and letter[row] == letter[first]
                for row in (first - 1, last % len(table))
            )
            of_chain[first:last] = len(names) > 1 or (known and not amid)
    residue_names = np.where(of_chain, three, np.char.add(three, fourth))
    return residue_names, np.where(of_chain, two, letter)


def _numbers(words: Texts) -> NDArray[np.int64]:
    """Return residue numbers, hybrid-36 beyond 9,999; 0 where there is none."""
    distinct, place = np.unique(words, return_inverse=True)
    values = np.array([_number(str(word)) for word in distinct], dtype=np.int64)
    return values[place]


def _number(word: str) -> int:
    number = integer_of(word)
    if number is not None:
        return number
    # A000 follows 9999, and a000 follows ZZZZ.
    if len(word) != _HYBRID_DIGITS or not (word.isascii() and word.isalnum()):
        return 0
    base, below = 36 ** (_HYBRID_DIGITS - 1), 10**_HYBRID_DIGITS
    if word == word.upper():
        return int(word, 36) - 10 * base + below
    return int(word, 36) + 16 * base + below if word == word.lower() else 0


def _floats(words: Texts, missing: float) -> NDArray[np.float64]:
    """Return numbers; NaN for what is none."""
    return np.where(words == "", missing, numbers_or_nan(words))


def _cell(line: str) -> Cell | None:
    places = [(at, at + 9) for at in (6, 15, 24)] + [
        (at, at + 7) for at in (33, 40, 47)
    ]
    found = [number_of(line[first:last]) for first, last in places]
    values = tuple(x for x in found if x is not None)
    if len(values) != len(found):
        return None
    return Cell.of_lengths(values, line[55:66].strip())
