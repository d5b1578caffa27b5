"""Read and write STAR files without losing anything that they hold.

Every value is kept as the text that was read, so ``007`` stays ``007`` and a
number keeps its digits; whoever needs numbers asks :meth:`StarBlock.numbers`.

The tokens come from :mod:`gemmi.cif`. The ``starfile`` package is not used: it
turns ``007`` into 7 and ``nan`` into a gap, replaces apostrophes by quotes, fills
short rows with gaps instead of refusing them, and ends a table at a row that holds
a word like ``data_2019/a.mrc``.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from gemmi import cif
from numpy.typing import NDArray

from cryoinfer.errors import InputError, OutputError
from cryoinfer.io.files import require_file
from cryoinfer.io.number_words import are_whole, numbers_or_nan
from cryoinfer.io.raw_text import released
from cryoinfer.io.star_text import (
    HEADER,
    ROWS_AT_ONCE,
    STRING,
    LoopRows,
    escaped,
    parse_cif,
    quote,
    read_loops,
    unescaped,
)

_NEEDS_QUOTES = re.compile(r"""(?m)^$|^[_#'"]|[ \t]""")
_NO_NAME = re.compile(r"[\0-\x20\x7f]|^#")
_VERSION = re.compile(r"(?m)^[ \t]*# version (\d+)")


@dataclass(frozen=True)
class StarBlock:
    """One table of a STAR file.

    Attributes
    ----------
    name : str
        What follows ``data_``; may be empty.
    columns : dict of str to array of text, shape (rows,)
        By label, without the leading underscore, in the file's order.
    is_loop : bool
        False for a list of ``_label value`` pairs, which has one row.
    """

    name: str
    columns: dict[str, NDArray[Any]]
    is_loop: bool = True

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def numbers(self, label: str) -> NDArray[np.float64]:
        """Return a column as finite numbers.

        Raises
        ------
        InputError
            If a value is not a finite number; the message names its row.
        """
        values = self.numbers_or_nan(label)
        self._require(np.isfinite(values), label, "numbers")
        return values

    def integers(self, label: str) -> NDArray[np.int64]:
        """Return a column as integers; see :meth:`numbers`."""
        values = self.numbers(label)
        self._require(are_whole(values), label, "whole numbers")
        return values.astype(np.int64)

    def numbers_or_nan(self, label: str) -> NDArray[np.float64]:
        """Return a column as numbers, NaN where a value is none."""
        return numbers_or_nan(self.columns[label])

    def _require(self, good: NDArray[np.bool_], label: str, what: str) -> None:
        """Raise :class:`InputError`, naming the first row that is not good."""
        bad = np.flatnonzero(~good)
        if len(bad):
            raise InputError(
                f"{label} must hold {what}, but row {bad[0] + 1} of data_{self.name} "
                f"holds {str(self.columns[label][bad[0]])[:100]!r} ({len(bad)} such "
                "rows). Remove or correct these rows."
            )

    def with_columns(self, columns: Mapping[str, NDArray[Any]]) -> Self:
        """Return the block with columns of text replaced or added at the end."""
        return replace(self, columns={**self.columns, **columns})

    def select(self, index: NDArray[Any]) -> Self:
        """Return the block with the given rows."""
        return replace(self, columns={k: v[index] for k, v in self.columns.items()})


@dataclass(frozen=True)
class StarFile:
    """All tables of a STAR file, in its order.

    Attributes
    ----------
    blocks : tuple of StarBlock
    version : int or None
        Of RELION, from the comment ``# version 30001``; other comments are dropped.
    """

    blocks: tuple[StarBlock, ...]
    version: int | None = None

    def get(self, name: str) -> StarBlock | None:
        """Return the first block of that name, or None."""
        return next((block for block in self.blocks if block.name == name), None)

    def with_block(self, old: StarBlock, new: StarBlock) -> Self:
        """Return the file with one block exchanged."""
        return replace(
            self, blocks=tuple(new if block is old else block for block in self.blocks)
        )


def read_star(path: Path | str, only: Collection[str] | None = None) -> StarFile:
    """Read all blocks and rows of a STAR file.

    Parameters
    ----------
    path : path
    only : collection of str, optional
        Labels of the columns of loops to return; by default all of them.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If it is not STAR, or a row has too few or too many values.
    """
    path = Path(path)
    require_file(path, "STAR file")
    try:
        # Of any system: a mark of the order of bytes, and line ends of one kind.
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            outline, loops = read_loops(file, path, only)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
    plain, is_escaped = escaped(outline)
    document = parse_cif(plain, path)
    if len(document) == 0:
        raise InputError(f"{path} is empty: it holds no data_ block")
    blocks = [block for part in document for block in _tables(part, loops, path)]
    version = _VERSION.search(outline)
    return StarFile(
        blocks=tuple(map(_unescaped, blocks) if is_escaped else blocks),
        version=int(version[1]) if version else None,
    )


def write_star(path: Path | str, star: StarFile) -> None:
    """Write a STAR file that :func:`read_star` and RELION read back unchanged.

    Raises
    ------
    OutputError
        If it cannot be written, or holds text that no STAR file can: with line breaks
        in a loop, both kinds of quotes before blanks, or "/" in the name of a block.
    """
    try:
        with Path(path).open(
            "w", encoding="utf-8", errors="surrogateescape", newline="\n"
        ) as file:
            file.writelines(f"{released(line)}\n" for line in _lines(star))
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}") from error
    except _UnwritableError as error:
        raise OutputError(f"Cannot write {path}: {error}") from error


def text_column(values: NDArray[Any], pattern: str) -> NDArray[Any]:
    """Return numbers as a column of text, each formatted like ``"%.6f"``."""
    text = np.empty(len(values), dtype=STRING)
    for first in range(0, len(values), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        text[rows] = [pattern % value for value in values[rows].tolist()]
    return text


def _header(name: str) -> str:
    """Return the line that begins a block."""
    line = f"data_{name}"
    if not HEADER.fullmatch(line):  # a row of one column, such as data_2019/a.mrc
        raise _UnwritableError(f"the name of the block {line} holds '/'; rename it")
    return line


class _UnwritableError(ValueError):
    """Text that a STAR file cannot hold."""


def _unescaped(block: StarBlock) -> StarBlock:
    """Return a block whose name, labels and single values were escaped.

    Rows of loops are parsed, and have been restored, apart from the outline.
    """
    columns = {}
    for label, values in block.columns.items():
        if not block.is_loop:
            values = np.array([unescaped(str(values[0]))], dtype=STRING)
        columns[unescaped(label) if not block.is_loop else label] = values
    return replace(block, name=unescaped(block.name), columns=columns)


def _tables(
    part: cif.Block, loops: Mapping[int, LoopRows], path: Path
) -> Iterator[StarBlock]:
    """Yield the loops and runs of pairs of one ``data_`` block, in order.

    Raises
    ------
    InputError
        If a row stands on the line of a label.
    """
    name = part.name.strip()
    pairs: dict[str, NDArray[Any]] = {}
    for item in part:
        if item.pair is not None:
            tag, value = cast(tuple[str, str], item.pair)
            # For CIF these two are no text at all.
            word = value if value in ("?", ".") else cif.as_string(value)
            pairs[tag[1:]] = np.array([word], dtype=STRING)
            continue
        if pairs:
            yield StarBlock(name, pairs, is_loop=False)
            pairs = {}
        if item.loop is not None:
            loop = loops.get(item.line_number)
            if loop is None or item.loop.length() != min(1, loop.rows):
                raise InputError(
                    f"{path}, line {item.line_number}: expected every row of the loop "
                    "on a line of its own, below the labels. Rewrite the table."
                )
            yield StarBlock(name, loop.columns())
    if pairs:
        yield StarBlock(name, pairs, is_loop=False)


def _lines(star: StarFile) -> Iterator[str]:
    previous = None
    # A name heads its tables once: those of one name stay together.
    names = [block.name for block in star.blocks]
    for block in sorted(star.blocks, key=lambda block: names.index(block.name)):
        if block.name != previous:
            if star.version is not None:
                yield from ("", f"# version {star.version}")
            yield from ("", _header(block.name))
        previous = block.name
        yield ""
        yield from _lines_of_block(block)
        yield ""


def _lines_of_block(block: StarBlock) -> Iterator[str]:
    for name in (block.name, *block.columns):
        if _NO_NAME.search(name):
            raise _UnwritableError(f"{name!r} cannot name a table or a column")
    if not block.is_loop:
        for label, values in block.columns.items():
            yield _pair(label, str(values[0]))
        return
    yield "loop_"
    for number, label in enumerate(block.columns, 1):
        yield f"_{label} #{number}"
    for first in range(0, len(block), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        words = [
            _quoted(values[rows].tolist(), f"{label}, from row {first + 1}")
            for label, values in block.columns.items()
        ]
        words[0] = [
            quote(word) if _begins_something(word, len(words)) else word
            for word in words[0]
        ]
        yield from map(" ".join, zip(*words, strict=True))


def _begins_something(word: str, columns: int) -> bool:
    """Tell whether a row that begins with a word would not be taken for a row."""
    if word[0] == ";" or word.lower() == "loop_":
        return True
    return columns == 1 and HEADER.fullmatch(word) is not None


def _pair(label: str, value: str) -> str:
    if "\n" not in value:
        return f"_{label} {_quoted([value], label)[0]}"
    if "\n;" in value or "\r" in value:
        raise _UnwritableError(f"{label} holds a line that begins with a semicolon")
    return f"_{label}\n;{value}\n;"


def _quoted(words: list[str], place: str) -> list[str]:
    text = "\n".join(words)
    if "\r" in text or "\0" in text or text.count("\n") >= max(1, len(words)):
        raise _UnwritableError(f"{place} on, text holds a line break, which ends a row")
    if not words or not _NEEDS_QUOTES.search(text):
        return words
    try:
        return [quote(word) if _NEEDS_QUOTES.search(word) else word for word in words]
    except ValueError as error:
        raise _UnwritableError(f"{place} on, text {error}") from error
