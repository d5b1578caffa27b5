"""Files that take their place when they are whole, and not before."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryoinfer.errors import OutputError

_PARTIAL = ".partial-"


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside it, then rename it.

    Raises
    ------
    OutputError
        If it cannot be written; the file that was there stays.
    """
    # A device would be replaced too.
    if path.is_dir() or (path.exists() and not path.is_file()) or not path.name:
        kind = "a folder" if path.is_dir() else "no file"
        raise OutputError(f"Cannot write {path}: it is {kind}. Give another name.")
    partial = path.with_name(_PARTIAL + path.name)
    try:
        with named_as(path, partial):
            write(partial)
        # Renaming may reach the disk before the content does.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        cause = error.strerror or str(error)
        raise OutputError(f"Cannot write {path}: {cause}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def clear_partials(folder: Path) -> None:
    """Remove what a process that was killed was writing."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        if partial.is_dir() and not partial.is_symlink():  # of a simulation
            shutil.rmtree(partial)
        else:
            partial.unlink()


@contextmanager
def named_as(path: Path, partial: Path) -> Iterator[None]:
    """Let errors name what a user has asked for, not what is written meanwhile.

    Parameters
    ----------
    path : Path
        A file or folder.
    partial : Path
        What is renamed to it, or moved into it, when it is whole.
    """
    try:
        yield
    except OutputError as error:
        told = str(error).replace(str(partial), str(path))
        raise OutputError(told) from error
    except OSError as error:
        if error.filename is not None:
            error.filename = os.fsdecode(error.filename).replace(
                str(partial), str(path)
            )
        raise
