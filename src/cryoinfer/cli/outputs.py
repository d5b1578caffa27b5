"""Files that a command writes: never what it reads, and known to be free beforehand."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cryoinfer.errors import OutputError
from cryoinfer.io.replacing import replace_file


def require_free_file(out: Path, *inputs: Path, overwrite: bool) -> None:
    """Refuse to write a file over a folder, over an input or over what is there.

    Called before the work begins; an input is never written over, whatever is asked.

    Parameters
    ----------
    out : Path
    *inputs : Path
        What the command reads, by whichever name.
    overwrite : bool
        Whether another file may be replaced.

    Raises
    ------
    OutputError
    """
    if out.is_dir():
        raise OutputError(f"{out} is a folder: expected the name of a file to write.")
    for path in inputs:
        if is_same_file(out, path):
            raise OutputError(f"{out} is what is read: give another name.")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists: give another name, or --overwrite.")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise OutputError(f"Cannot write {out}: {above} is not a folder.")


def require_free_folder(out: Path, names: Sequence[str], overwrite: bool) -> None:
    """Refuse a folder for files that lie in it already, and what is no folder.

    Called before the work begins.

    Parameters
    ----------
    out : Path
        Need not exist.
    names : sequence of str
        Of what is to be written.
    overwrite : bool
        Whether it may be replaced.

    Raises
    ------
    OutputError
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: give another output folder.")
    held = [name for name in names if (out / name).exists()]
    if held and not overwrite:
        raise OutputError(
            f"{out} already holds {held[0]}: give another folder, or --overwrite."
        )


def is_same_file(first: Path, second: Path) -> bool:
    """Tell whether two names are of one file, through links as well."""
    if first.exists() and second.exists():
        return first.samefile(second)
    # Not Path.resolve, which fails where links go in a circle.
    return os.path.realpath(first) == os.path.realpath(second)


def write_file(out: Path, write: Callable[[Path], object]) -> None:
    """Write a file, all of it or nothing, and the folder that it is to lie in.

    Raises
    ------
    OutputError
        If one of them cannot be written.
    """
    make_folder(out.parent)
    replace_file(out, write)


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    OutputError
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make {path}: {error.strerror}.") from error
