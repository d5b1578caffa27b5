"""The values of a volume in an MRC file, plain or compressed, as they are stored."""

import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.compressed import opened
from cryoinfer.io.files import require_file
from cryoinfer.io.mrc_header import DTYPES, HEADER_BYTES, MrcHeader

_VOLUME_STACK = 401
_TRAILING_BYTES = 1024  # some programs fill up a block
_PIECE_BYTES = 2**24


def read_volume(path: Path) -> tuple[MrcHeader, NDArray[np.float32]]:
    """Return header and values, shape (sections, rows, columns), of one volume.

    Raises
    ------
    MissingFileError, InputError
        If it is absent, cut off, too long, or no single volume of real values.
    """
    require_file(path, "MRC file")
    try:
        with opened(path) as file:
            header = MrcHeader.of(file.read(HEADER_BYTES), path)
            if not header.dtype:
                raise InputError(
                    f"{path} is not a map of real values: expected one of the modes "
                    f"{sorted(DTYPES)}, found mode {header.mode}"
                )
            file.seek(header.offset_bytes)
            content = _read_at_most(file, header.file_bytes - header.offset_bytes)
            behind = len(_read_at_most(file, _TRAILING_BYTES + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is not an MRC map that can be read: {error}"
        ) from error
    missing = header.file_bytes - header.offset_bytes - len(content)
    if missing or behind > _TRAILING_BYTES:
        length = (
            f"{missing:,} bytes less" if missing else f"{behind:,} bytes more and on"
        )
        raise InputError(
            f"{path}: its header promises (z, y, x) = {header.shape} voxels in "
            f"{header.file_bytes:,} bytes, found {length}. Copy it again, or is it no "
            "map?"
        )
    if header.space_group >= _VOLUME_STACK and header.samples[2] not in (
        header.shape[0],
        0,
    ):
        raise InputError(
            f"{path}: expected one map, found a stack of volumes, {header.samples[2]} "
            f"of {header.shape[0]} sections in each. Write one of them as a map"
        )
    stored = np.frombuffer(content, header.dtype).reshape(header.shape)
    values = stored.astype(np.float32)
    if header.added:
        values += np.float32(header.added)
    return header, values


def _read_at_most(file: IO[bytes], count: int) -> bytes:
    """Read piece by piece: what a header promises must not be taken from the memory."""
    pieces: list[bytes] = []
    while count > 0 and (piece := file.read(min(count, _PIECE_BYTES))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
