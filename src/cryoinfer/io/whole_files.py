"""Trajectories that are cut short: readers return the frames that are there."""

import struct
from pathlib import Path
from typing import BinaryIO

from cryoinfer.errors import InputError

_FIRST_RECORD = 84  # bytes of a DCD file's
_HEAD = "4s20i"  # in it: the word CORD, and numbers of which these are known
_FRAMES, _FIXED, _CELL, _FOURTH = 0, 8, 10, 11
_XTC_HEAD = struct.Struct(">3i10fi")
"""Magic number, atoms, step, time, box; and atoms again."""

_XTC_MAGIC = {1995: ">i", 2023: ">q"}  # and how the number of bytes is written
_XTC_UNPACKED = 9  # atoms, up to which coordinates are plain
_XTC_PACKING = 32  # bytes of what packed coordinates are read by


def require_whole_dcd(path: Path, held: int) -> None:
    """Refuse a DCD file of fewer frames than its header says, or with half a frame.

    Parameters
    ----------
    path : Path
    held : int
        Frames that a reader finds.

    Raises
    ------
    InputError
    """
    with path.open("rb") as raw:
        first = raw.read(4 + _FIRST_RECORD)
        order = "<" if first[:4] == struct.pack("<i", _FIRST_RECORD) else ">"
        _, *numbers = struct.unpack_from(order + _HEAD, first, 4)
        if held < numbers[_FRAMES]:
            raise InputError(
                f"the header of {path} promises {numbers[_FRAMES]:,} frames, the file "
                f"holds {held:,}: it is cut short; copy it again, or write it anew"
            )
        if struct.unpack(order + "i", first[:4])[0] != _FIRST_RECORD:
            return  # with lengths of eight bytes
        records = _whole_records(raw, order, path.stat().st_size)
    of_head = 3 + (numbers[_FIXED] != 0)
    of_frame = 3 + (numbers[_CELL] != 0) + (numbers[_FOURTH] == 1)
    if records is None or (records - of_head) % of_frame:
        raise InputError(
            f"{path} is cut short in frame {held + 1:,}; {held:,} are whole. Copy it "
            "again, or write it anew"
        )


def _whole_records(raw: BinaryIO, order: str, size: int) -> int | None:
    """Return how many records, as Fortran writes them, a file has.

    None where the last one is not whole.
    """
    length, at, found = struct.Struct(order + "i"), 0, 0
    while at < size:
        raw.seek(at)
        word = raw.read(length.size)
        own = length.unpack(word)[0] if len(word) == length.size else -1
        at += own + 2 * length.size
        if own < 0 or at > size:
            return None
        found += 1
    return found


def require_whole_xtc(path: Path) -> None:
    """Refuse an XTC file that ends within a frame.

    The format does not say how many frames there should be: a file that is cut between
    two frames looks whole.

    Raises
    ------
    InputError
    """
    size, at, whole = path.stat().st_size, 0, 0
    with path.open("rb") as raw:
        while at < size:
            raw.seek(at)
            length = _xtc_frame(raw)
            if length is None and not at:
                return  # of another format, which its reader will say
            at += length or size + 1
            if at > size:
                raise InputError(
                    f"{path} is cut short, or damaged, in frame {whole + 1:,}; "
                    f"{whole:,} are whole. Copy it again, or write it anew"
                )
            whole += 1


def _xtc_frame(raw: BinaryIO) -> int | None:
    """Return how many bytes a frame should have, None where that cannot be read."""
    head = raw.read(_XTC_HEAD.size)
    if len(head) < _XTC_HEAD.size:
        return None
    values = _XTC_HEAD.unpack(head)
    magic, atoms = values[0], values[-1]
    if magic not in _XTC_MAGIC or atoms < 0:
        return None
    if atoms <= _XTC_UNPACKED:
        return _XTC_HEAD.size + 12 * atoms
    count = struct.Struct(_XTC_MAGIC[magic])
    tail = raw.read(_XTC_PACKING + count.size)
    if len(tail) < _XTC_PACKING + count.size:
        return None
    packed = count.unpack_from(tail, _XTC_PACKING)[0]
    return _XTC_HEAD.size + len(tail) + (packed + 3) // 4 * 4
