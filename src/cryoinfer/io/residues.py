"""Which atoms of a file are one residue, and which residues one chain.

Told by the place in the file. Names and numbers do not tell: programs of molecular
dynamics number every chain from 1, give all one name or none, and count waters from
0 again after 9,999.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cryoinfer.io.atom_columns import AtomColumns

_WRAPS_AT = 10_000  # of numbers with four digits
_ALTERNATIVE_ANGSTROM = 5.0
"""Within which alternative places of an atom lie, where a file lists them apart."""


def residue_index(columns: AtomColumns) -> NDArray[np.int64]:
    """Return the number of each atom's residue, from 0, shape (a,).

    A new one begins where chain, segment, number, insertion code or name change, where
    the file ends a chain, and where the first atom comes again. Alternatives of one
    residue may have several names (microheterogeneity).
    """
    changes = columns.after_end.copy()
    for word in (
        columns.chains,
        columns.segments,
        columns.residue_numbers,
        columns.insertion_codes,
    ):
        changes[1:] |= word[1:] != word[:-1]
    names, letters = columns.residue_names, columns.alternatives
    other = names[1:] != names[:-1]
    beside = (letters[1:] != "") & (letters[:-1] != "") & (letters[1:] != letters[:-1])
    changes[1:] |= other & ~beside
    changes[:1] = True
    begin = np.maximum.accumulate(np.where(changes, np.arange(len(columns)), 0))
    again = columns.names == columns.names[begin]
    again &= letters == letters[begin]
    again &= names == names[begin]
    changes |= again
    return np.cumsum(changes).astype(np.int64) - 1


def rows_of(residue: NDArray[np.int64]) -> list[range]:
    """Return the rows of every residue."""
    begins = np.flatnonzero(np.diff(residue, prepend=-1)).tolist()
    ends = [*begins[1:], len(residue)]
    return [range(first, last) for first, last in zip(begins, ends, strict=True)]


def alternatives(
    columns: AtomColumns,
    residues: list[range],
    coordinates_angstrom: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return which atoms stand in alternative places, shape (a,).

    Of each atom of a residue the first place is the one; of several names of a residue
    the first. What a file lists apart, with letters that the residue lacks and near
    it, is its alternative as well.
    """
    found = np.zeros(len(columns), dtype=bool)
    lettered = columns.alternatives != ""
    if not lettered.any():
        return found
    several = set(np.flatnonzero(lettered).tolist())
    first_of: dict[tuple[object, ...], range] = {}
    for rows in residues:
        own = [row for row in rows if row in several]
        key = _key(columns, rows[0])
        earlier = first_of.setdefault(key, rows)
        if len(own) == len(rows) and earlier is not rows:
            if _is_alternative(columns, earlier, rows, coordinates_angstrom):
                found[rows.start : rows.stop] = True
                continue
        if own:
            found[list(_later(columns, rows))] = True
    return found


def _key(columns: AtomColumns, row: int) -> tuple[object, ...]:
    words = (columns.chains, columns.segments, columns.insertion_codes)
    return (*(str(word[row]) for word in words), int(columns.residue_numbers[row]))


def _later(columns: AtomColumns, rows: range) -> Iterator[int]:
    """Yield the atoms of a residue that are not its first conformation."""
    name, seen = columns.residue_names[rows[0]], set()
    for row in rows:
        atom, letter = columns.names[row], columns.alternatives[row]
        if columns.residue_names[row] != name or (letter and atom in seen):
            yield row
        seen.add(atom)


def _is_alternative(
    columns: AtomColumns,
    first: range,
    other: range,
    coordinates_angstrom: NDArray[np.float64],
) -> bool:
    """Tell whether a residue is listed apart from its first conformation."""
    letters = {columns.alternatives[row] for row in first}
    if letters & {columns.alternatives[row] for row in other}:
        return False
    place = {columns.names[row]: coordinates_angstrom[row] for row in first}
    apart = [
        np.linalg.norm(place[name] - coordinates_angstrom[row])
        for row in other
        if (name := columns.names[row]) in place
    ]
    return bool(apart) and bool(max(apart) < _ALTERNATIVE_ANGSTROM)


class ChainNames:
    """Tell chains apart, and name those alike that a file names alike or not at all.

    Parameters
    ----------
    columns : AtomColumns
    residues : list of range
        Rows of every residue.
    of_polymer : array of bool, length r
        Whether a residue is one of a protein or a nucleic acid.

    Attributes
    ----------
    of_residue : list of str
        The name of each residue's chain; no two chains have one name.
    numbers : array of int64
        Of the residues, counted on where four digits end.
    made : tuple of str
        Names that the file does not have.
    """

    def __init__(
        self,
        columns: AtomColumns,
        residues: list[range],
        of_polymer: NDArray[np.bool_],
    ) -> None:
        first = [rows[0] for rows in residues]
        self._chain = columns.chains[first].tolist()
        self._segment = columns.segments[first].tolist()
        self._code = columns.insertion_codes[first].tolist()
        self._ends = np.cumsum(columns.after_end)[first].tolist()
        self.numbers = self._counted_on(columns.residue_numbers[first])
        self._keys: list[tuple[str, str]] = []
        self._seen: list[set[tuple[int, str]]] = []
        chains = self._chains(of_polymer)
        names = self._names()
        self.of_residue = [names[chain] for chain in chains]
        given = set(self._chain)
        self.made = tuple(name for name in names if name not in given)

    def _counted_on(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return numbers that do not begin again after 9,999."""
        found, beyond = numbers.copy(), 0
        for row in range(1, len(numbers)):
            same = self._place(row) == self._place(row - 1)
            beyond = beyond if same else 0
            if same and numbers[row - 1] == _WRAPS_AT - 1 and numbers[row] in (0, 1):
                beyond += _WRAPS_AT
            found[row] += beyond
        return found

    def _place(self, row: int) -> tuple[str, str, int]:
        return self._chain[row], self._segment[row], self._ends[row]

    def _chains(self, of_polymer: NDArray[np.bool_]) -> list[int]:
        """Return the chain of each residue."""
        found = [-1] * len(self._chain)
        for rows in self._stretches(np.flatnonzero(of_polymer).tolist()):
            key = (self._chain[rows[0]], self._segment[rows[0]])
            own = {(int(self.numbers[row]), self._code[row]) for row in rows}
            chain = self._fitting(key, own)
            if chain is None:
                chain = self._begin(key)
            self._seen[chain] |= own
            for row in rows:
                found[row] = chain
        self._add_others(found)
        return found

    def _fitting(self, key: tuple[str, str], own: set[tuple[int, str]]) -> int | None:
        """Return the chain that residues belong to: of their name, but none of theirs.

        The last of their segment, or of another segment. A chain without any name
        ends where the file says so.
        """
        name, segment = key
        if key == ("", ""):
            return None
        alike = [
            chain
            for chain, (other, piece) in enumerate(self._keys)
            if other == name and (name or piece == segment)
            if not self._seen[chain] & own
        ]
        same = [chain for chain in alike if self._keys[chain] == key]
        return max(same or alike, default=None)

    def _add_others(self, found: list[int]) -> None:
        """Put what is of no polymer into the chain of its name before it, or after."""
        last: dict[str, int] = {}
        for row, chain in enumerate(found):
            name = self._chain[row]
            if chain >= 0:
                last[name] = chain
            elif name in last:
                found[row] = last[name]
        following: dict[str, int] = {}
        for row in range(len(found) - 1, -1, -1):
            name = self._chain[row]
            if found[row] < 0 and name not in following:
                following[name] = self._begin((name, ""))
            if found[row] < 0:
                found[row] = following[name]
            following[name] = found[row]

    def _begin(self, key: tuple[str, str]) -> int:
        self._keys.append(key)
        self._seen.append(set())
        return len(self._keys) - 1

    def _stretches(self, polymer: list[int]) -> Iterator[list[int]]:
        """Yield residues of a polymer that follow each other with rising numbers."""
        stretch: list[int] = []
        for row in polymer:
            before = stretch[-1] if stretch else row
            falls = self.numbers[row] < self.numbers[before]
            same = self.numbers[row] == self.numbers[before] and row != before
            again = same and self._code[row] == self._code[before]
            if self._place(row) != self._place(before) or falls or again:
                yield stretch
                stretch = []
            stretch.append(row)
        if stretch:
            yield stretch

    def _names(self) -> list[str]:
        """Return a name for every chain."""
        names = [name for name, _ in self._keys]
        segments = [segment for _, segment in self._keys]
        alone = {n for n in names if n and names.count(n) == 1}
        found = [name if name in alone else "" for name in names]
        free = set(segments) - alone - {""}
        for row, (name, segment) in enumerate(self._keys):
            shared = segments.count(segment) > 1 or segment not in free
            if not found[row] and not shared:
                found[row] = segment
            elif not found[row] and name and name not in found:
                found[row] = name
        for row, name in enumerate(names):
            if not found[row]:
                found[row] = next(one for one in fresh_names(name) if one not in found)
        return found


def fresh_names(name: str = "") -> Iterator[str]:
    """Yield names for chains: A to Z and AA to ZZ, or A2, A3 for A."""
    if name:
        yield from (f"{name}{number}" for number in range(2, 1_000_000))
    letters = [chr(ord("A") + place) for place in range(26)]
    yield from letters
    yield from (one + other for one in letters for other in letters)
    yield from (f"C{number}" for number in range(1, 1_000_000))
