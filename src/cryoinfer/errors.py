"""Every error that a user can cause, in one tree.

::

    CryoinferError
    |-- InputError        a file, column or value that cannot be used
    |   |-- MissingFileError
    |   |-- VoxelSizeError     a map does not say how large its voxels are
    |   `-- UnsupportedError   understood, but not honoured by this program
    |-- NothingFoundError  the particles show no structure
    |-- OutputError       the run folder is taken, the disk is full
    `-- ResourceError     memory or time that the machine does not have

Messages say what was expected, what was found and what to do. The command line
prints them without a traceback and ends with exit code 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class CryoinferError(Exception):
    """Base of all errors that a user can cause and mend."""


class InputError(CryoinferError):
    """A file, column or value that cannot be used."""


class MissingFileError(InputError):
    """A file that the input names does not exist."""


class VoxelSizeError(InputError):
    """A map does not say how large its voxels are; a command has an option for it."""


class UnsupportedError(InputError):
    """The input asks for physics that the program does not model."""


class NothingFoundError(CryoinferError):
    """The particles show no structure that the work could go on with."""


class OutputError(CryoinferError):
    """The output cannot be written where it was asked for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the machine has lacked memory, by whichever name.

    PyTorch has one error of its own for GPUs, and for CPUs one that its words tell:
    known by these, so that it need not be imported.
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "DefaultCPUAllocator" in str(error)


@contextmanager
def state_of_this_version() -> Iterator[None]:
    """Run a body that takes the state apart that a run has kept.

    Raises
    ------
    InputError
        If something is missing in the state, or of another kind or shape.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(
            "the checkpoint is of another version of cryoinfer: start again "
            "with --overwrite, or resume with that version"
        ) from error


class ResourceError(CryoinferError):
    """The machine lacks the memory, disk or device that the work needs."""
