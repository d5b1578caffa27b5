"""How the C library hands out memory, where it can be told."""

import ctypes
import sys

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
    if not sys.platform.startswith("linux"):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        set_option(_TRIM_THRESHOLD, _KEPT_BYTES)
