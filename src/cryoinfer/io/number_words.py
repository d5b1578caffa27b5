"""Words that are numbers in files, and which numbers are whole.

Python takes more for a number than other programs do: underscores between digits
(``1_000``), and digits of every script. Such words are none here.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_INTEGER = 2**53
"""Beyond it not every integer is a number in double precision."""

_WORDS_AT_ONCE = 10_000


def number_of(word: str) -> float | None:
    """Return what a word says, which may be NaN or infinite; None if no number."""
    with suppress(ValueError):
        return float(word) if _is_plain(word) else None
    return None


def integer_of(word: str) -> int | None:
    """Return the whole number that a word is, None if it is none."""
    with suppress(ValueError):
        return int(word) if _is_plain(word) else None
    return None


def numbers_or_nan(words: NDArray[Any]) -> NDArray[np.float64]:
    """Return an array of text as numbers, NaN where a word is none."""
    if all(map(_is_plain, _joined(words))):
        with suppress(ValueError):
            return words.astype(np.float64)
    found = (number_of(str(word)) for word in words)
    return np.array([np.nan if x is None else x for x in found], dtype=np.float64)


def are_whole(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which numbers are integers, exactly."""
    return (values == np.rint(values)) & (np.abs(values) <= _LARGEST_INTEGER)


def _is_plain(text: str) -> bool:
    return text.isascii() and "_" not in text


def _joined(words: NDArray[Any]) -> Iterator[str]:
    """Yield the text of some words at a time, to look at all of it quickly."""
    for first in range(0, len(words), _WORDS_AT_ONCE):
        yield "".join(words[first : first + _WORDS_AT_ONCE].tolist())
