"""Files that may be compressed, told by how they begin, whatever they are called."""

import bz2
import gzip
from pathlib import Path
from typing import IO, cast

_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"


def opened(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked if it is compressed by gzip or bzip2.

    Reading may raise ``OSError``, ``EOFError`` or ``zlib.error``.
    """
    with path.open("rb") as file:
        start = file.read(3)
    if start.startswith(_GZIP):
        return cast(IO[bytes], gzip.open(path))
    return bz2.open(path) if start == _BZIP2 else path.open("rb")
