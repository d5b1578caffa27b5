"""How the C library hands out memory, where it can be told."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the settings in glibc's ``malloc.h``."""

_KEPT_BYTES = 1 << 30
_OWN_MAPPING_BYTES = 1 << 26
"""What is larger, as maps of 256 voxels are, goes back at once: of a run at that box
2 GB of 7 were of such blocks, freed and kept. What is computed of a batch of images
is smaller (``data/chunks.py``)."""


def keep_freed_memory() -> None:
    """Let the process use again what it has freed, up to a gigabyte.

    By default glibc returns every larger block to the system at once, and a batch of
    images asks for dozens of such blocks: the system clears each again, page by page,
    which took a sixth of the time of a run. Does nothing where the C library is
    another.
    """
    set_option = _function("mallopt")
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        set_option(_TRIM_THRESHOLD, _KEPT_BYTES)


def return_freed_memory() -> None:
    """Give the system what is freed, also what lies between blocks in use.

    Between stages that need blocks of other sizes: at a box of 256 some 2 GB were
    left over from batches of images where maps were made.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Callable[..., Any] | None:
    """Return a function of glibc, None where there is none of the name."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)
