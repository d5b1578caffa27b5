"""What is read must be a file, and one that can be read."""

import hashlib
import os
from itertools import islice
from pathlib import Path

from cryoinfer.errors import InputError, MissingFileError

_MOST_NAMES = 5000
"""Of a folder, that are compared with one that is not there."""


def require_file(path: Path, kind: str = "file") -> None:
    """Refuse a path that leads to nothing, or to something that is no file.

    What leads to nothing may be mistyped: a file beside it of a like name is offered.

    Parameters
    ----------
    path : Path
    kind : str
        What is expected, such as ``"STAR file"``.

    Raises
    ------
    MissingFileError
        If nothing is there.
    InputError
        If it is a folder, a pipe or a device, or cannot be looked at.
    """
    try:
        if path.is_file():
            return
        if path.is_dir():
            raise InputError(f"{path} is a folder: expected a {kind}")
        if path.exists():
            raise InputError(
                f"{path} is a pipe or a device: expected a {kind} on a disk"
            )
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"Cannot read {_shown(path)}: {reason}") from error
    like = _like_name(path)
    meant = f" (did you mean {like}?)" if like else ""
    raise MissingFileError(f"No such {kind}: {_shown(path)}{meant}")


def read_bytes(path: Path) -> bytes:
    """Return all that a file holds.

    Raises
    ------
    MissingFileError, InputError
    """
    require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error


def content_sha256(path: Path, offset: int = 0) -> str:
    """Return the SHA-256 of a file from some byte on, in hexadecimal digits."""
    with path.open("rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _like_name(path: Path) -> str | None:
    """Return what a path may have meant in its folder, if a name is like its own."""
    from difflib import get_close_matches

    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, _MOST_NAMES)]
    except OSError:
        return None
    return next(iter(get_close_matches(path.name, names, n=1, cutoff=0.8)), None)
