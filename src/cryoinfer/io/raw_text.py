"""Text that keeps every byte of a file, whether the file is UTF-8 or not.

RELION and cryoSPARC take names as bytes. A byte that is not UTF-8 becomes one of the
characters U+F780 to U+F7FF here, and that byte again where text is written or names a
file; NumPy's strings cannot hold the surrogates that Python uses for the purpose. Such
a character that is in a file itself is taken for its bytes, so that none are confused.
"""

import os
from pathlib import Path

_PRIVATE, _SURROGATE = 0xF700, 0xDC00
_BYTES = range(0x80, 0x100)


def _spelled(code: int) -> str:
    return "".join(chr(_PRIVATE + byte) for byte in chr(code).encode())


_KEPT: dict[int, int | str] = {
    **{_SURROGATE + byte: _PRIVATE + byte for byte in _BYTES},
    **{_PRIVATE + byte: _spelled(_PRIVATE + byte) for byte in _BYTES},
}
_RELEASED = {_PRIVATE + byte: _SURROGATE + byte for byte in _BYTES}


def kept(text: str) -> str:
    """Return what Python has decoded with ``errors="surrogateescape"`` as such text."""
    return text if text.isascii() else text.translate(_KEPT)


def released(text: str) -> str:
    """Return what is to be encoded with ``errors="surrogateescape"``."""
    return text if text.isascii() else text.translate(_RELEASED)


def decode(raw: bytes) -> str:
    """Return the text of any bytes."""
    return kept(raw.decode("utf-8", "surrogateescape"))


def encode(text: str) -> bytes:
    """Return the bytes that :func:`decode` was given."""
    return released(text).encode("utf-8", "surrogateescape")


def file_name(text: str) -> str:
    """Return how Python calls the file that a text names."""
    return os.fsdecode(encode(text))


def text_of_name(name: str | Path) -> str:
    """Return the text that names a file."""
    return decode(os.fsencode(name))
