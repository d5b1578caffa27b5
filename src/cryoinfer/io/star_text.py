"""The text of STAR files as CIF has it, and its rows some thousands at a time.

CIF lets rows run over lines and reserves words that begin with ``data_``. RELION reads
line by line and writes such words, in paths, without quotes.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from gemmi import cif
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.raw_text import kept

STRING = np.dtypes.StringDType()

_TOKEN = re.compile(r"""'.*?'(?=[ \t\n]|$)|".*?"(?=[ \t\n]|$)|#.*|[^ \t\n]+""")
_WORD = re.compile(r"[^ \t\n]+")
_ODD = re.compile(r"[^\t\n -~]")
"""What CIF does not allow for; Python takes some of it for blanks."""

_ESCAPED = re.compile(r"[^\t\n -}]")
_ESCAPE = re.compile(r"~([0-9a-f]+)~")
_REASON = re.compile(r"(?s)string:(?P<line>\d*)(:\d+\(\d+\))?:?\s*(?P<reason>.*)")
"""An error of gemmi: its line, its column and the rest, which may begin `in data_x`."""

HEADER = re.compile(r"(?i)data_[^/]*")
"""What begins a block: with a slash it is a path, in a loop of one column."""

_RESERVED_WORDS = ("data_", "save_", "loop_", "global_", "stop_")
_RESERVED = re.compile(rf"(?i)[_$\[\];]|{'|'.join(_RESERVED_WORDS)}")
_ODD_BEGINNINGS = tuple(blank + sign for blank in "\n \t" for sign in "_$[];")
"""How no value may begin in CIF, everywhere or in some places, that has no quotes."""

ROWS_AT_ONCE = 10_000
"""That are words of Python while they are read or written, each of 50 bytes or more."""


def read_loops(
    file: TextIO, path: Path, only: Collection[str] | None = None
) -> tuple[str, dict[int, "LoopRows"]]:
    """Return a file with one row a loop, and all rows by the lines of the loops.

    Parameters
    ----------
    file : TextIO
    path : Path
        Of the file, for messages.
    only : collection of str, optional
        Labels of the columns to keep; of others nothing stays in memory.

    Raises
    ------
    InputError
        If a row has too few or too many values.
    """
    outline: list[str] = []
    loops: dict[int, LoopRows] = {}
    loop: LoopRows | None = None
    for number, line in enumerate(file, 1):
        words = line.split()
        if _ODD.search(line):
            if "\0" in line:
                raise InputError(f"{path} is not a STAR file: it is not text")
            line = kept(line)
            words = _WORD.findall(line)
        if not words or words[0][0] == "#":
            pass
        elif words[0].lower() == "loop_":
            loop = loops[number] = LoopRows(path, only)
            loop.labels += _labels(words)
        elif HEADER.fullmatch(words[0]) and _is_alone(words):
            loop = None
        elif loop is not None and words[0][0] != "_":
            loop.add(number, line, len(words))
            # The first stands for all: without one, a pair below would be a label.
            line = "? " * len(loop.labels) * (loop.rows == 1) + "\n"
        elif loop is not None and not loop.rows:
            loop.labels += _labels(words)
        else:
            loop = None
            line = _with_quotes(line, first=1)
        outline.append(line)
    return "".join(outline), loops


def _is_alone(words: list[str]) -> bool:
    """Tell whether nothing but a comment follows the first word."""
    return len(words) == 1 or words[1][0] == "#"


def _labels(words: list[str]) -> list[str]:
    """Return the words that are labels, before a comment if there is one."""
    comment = next((i for i, word in enumerate(words) if word[0] == "#"), len(words))
    return [word[1:] for word in words[:comment] if word[0] == "_"]


def _with_quotes(line: str, first: int = 0) -> str:
    """Put quotes around words that CIF reserves, from one of the words on."""
    if not _holds_reserved(line):
        return line
    tokens = _TOKEN.findall(line)
    quoted = [quote(token) if _RESERVED.match(token) else token for token in tokens]
    return " ".join(tokens[:first] + quoted[first:]) + "\n"


def _holds_reserved(text: str) -> bool:
    """Tell whether words that CIF reserves may be in a text: cheaper than to look."""
    lower = text.lower()
    return (
        text[:1] in tuple("_$[];")
        or any(beginning in text for beginning in _ODD_BEGINNINGS)
        or any(word in lower for word in _RESERVED_WORDS)
    )


class LoopRows:
    """The rows of one loop, parsed some thousands at a time.

    A whole file of words of Python would take several times what its columns do.
    """

    def __init__(self, path: Path, only: Collection[str] | None) -> None:
        self.labels: list[str] = []
        self.rows = 0
        self._path, self._only = path, only
        self._lines: list[str] = []
        self._numbers: list[int] = []
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def add(self, number: int, line: str, words: int) -> None:
        """Take one row: a line, its number, and how many words it seems to be."""
        width = len(self.labels)
        if words != width or '"' in line or "'" in line or "#" in line:
            found = sum(token[0] != "#" for token in _TOKEN.findall(line))
            if found != width:
                raise self._refusal(number, found)
        self.rows += 1
        self._lines.append(line)
        self._numbers.append(number)
        if len(self._lines) == ROWS_AT_ONCE:
            self._parse()

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return all rows by the label of their column, and forget them."""
        self._parse()
        columns = {}
        for label, parts in self._parts.items():
            columns[label] = np.concatenate(parts)
            parts.clear()
        return columns

    def _parse(self) -> None:
        width = len(self.labels)
        tags = " ".join(f"_{i}" for i in range(width))
        rows = "".join(self._lines)
        if _holds_reserved(rows):
            rows = "".join(map(_with_quotes, self._lines))
        rows, is_escaped = escaped(rows)
        document = parse_cif(
            f"data_ loop_ {tags}\n{rows}", self._path, [0, *self._numbers]
        )
        words = document[0][0].loop.values
        if len(words) != width * len(self._lines):
            raise self._refusal(self._numbers[0], len(words))
        for i, label in enumerate(self.labels):
            if self._only is None or label in self._only:
                own = _unquoted(words[i::width])
                if is_escaped:
                    own = unescaped("\n".join(own)).split("\n")
                column = np.array(own, dtype=STRING)
                self._parts.setdefault(label, []).append(column)
        self._lines, self._numbers = [], []

    def _refusal(self, number: int, found: int) -> InputError:
        return InputError(
            f"{self._path}, line {number}: expected {len(self.labels)} values, one for "
            f"each column, found {found}. The file may have been cut off or edited."
        )


def _unquoted(words: list[str]) -> list[str]:
    if not any(word[0] in "'\"" for word in words):
        return words
    return [word[1:-1] if word[0] in "'\"" else word for word in words]


def escaped(text: str) -> tuple[str, bool]:
    """Return text in the characters that CIF has, and whether it is another text."""
    if not _ODD.search(text):
        return text, False
    return _ESCAPED.sub(lambda found: f"~{ord(found[0]):x}~", text), True


def unescaped(text: str) -> str:
    """Return what :func:`escaped` was given, where it was another text."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)


def parse_cif(text: str, path: Path, numbers: Sequence[int] = ()) -> cif.Document:
    """Parse CIF, whose lines have these numbers in the file, if not their own.

    Raises
    ------
    InputError
    """
    try:
        return cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        found = _REASON.fullmatch(str(error))
        assert found is not None
        line, reason = found["line"], found["reason"]
        if line and numbers:
            line = numbers[min(int(line), len(numbers)) - 1]
        place = f"line {line}: " if line else ""
        raise InputError(
            f"{path} is not a STAR file that can be read: {place}{reason}"
        ) from error


def quote(word: str) -> str:
    """Return a word in quotes; those end where a blank or # follows, or the line.

    Raises
    ------
    ValueError
        If it holds both kinds of quotes before blanks or #.
    """
    kinds = [kind for kind in "\"'" if not re.search(rf"{kind}[ \t#]", word)]
    if not kinds:
        raise ValueError("holds both kinds of quotes before blanks or #")
    # Rather one that it does not hold at all, or not at its end, for simple readers.
    kind = min(kinds, key=lambda kind: (kind in word) + word.endswith(kind))
    return f"{kind}{word}{kind}"
