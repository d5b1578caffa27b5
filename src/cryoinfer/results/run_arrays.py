"""Arrays in the folder of a run, read from a file that may have been cut short."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from cryoinfer.errors import CryoinferError, InputError


@contextmanager
def run_arrays(path: Path) -> Iterator[NpzFile]:
    """Open an ``.npz`` file of a run, for a body that makes a record of what it holds.

    Raises
    ------
    InputError
        If the file is damaged, or anything that the body asks for is missing or not of
        the shape expected.
    """
    try:
        # Of a broken file that it has opened itself, numpy leaves it open.
        with path.open("rb") as file, np.load(file) as arrays:
            yield arrays
    except (CryoinferError, OSError):
        raise
    except Exception as error:  # zip and numpy have errors of many kinds
        raise InputError(
            f"{path} is damaged, or of another version of cryoinfer. Copy it again, "
            "or repeat the run."
        ) from error
