"""Trajectories that are cut short: readers return the frames that are there."""

import struct
from pathlib import Path
from typing import BinaryIO

from cryoinfer.errors import InputError

_FIRST_RECORD = 84  # bytes of a DCD file's
_HEAD = "4s20i"  # in it: the word CORD, and numbers; these are known
_FRAMES, _FIXED, _CELL, _FOURTH, _CHARMM = 0, 8, 10, 11, 19
"""Where among the numbers stand: of frames and fixed atoms how many, whether frames
have cells and fourth coordinates, and CHARMM's version. It is 0 in files of X-PLOR,
whose step of time, of eight bytes, reaches into the place of the cells."""

_XTC_HEAD = struct.Struct(">3i10fi")
"""Magic number, atoms, step, time, box; and atoms again."""

_XTC_MAGIC = {1995: ">i", 2023: ">q"}  # and how the number of bytes is written
_XTC_UNPACKED = 9  # atoms, up to which coordinates are plain
_XTC_PACKING = struct.Struct(">f7i")
"""What packed coordinates are read by: precision, least and largest values, and a row
of the decoder's table."""

_XTC_ROWS = range(9, 73)
_XTC_MOST_BYTES = 16  # an atom


def require_whole_dcd(path: Path) -> None:
    """Refuse a DCD file of fewer frames than its header says, or with half a frame.

    Raises
    ------
    InputError
    """
    with path.open("rb") as raw:
        first = raw.read(4 + _FIRST_RECORD)
        order = "<" if first[:4] == struct.pack("<i", _FIRST_RECORD) else ">"
        if first[:4] != struct.pack(order + "i", _FIRST_RECORD):
            return  # of another format, or with lengths of eight bytes
        if len(first) < 4 + _FIRST_RECORD:
            raise _cut_short(path, 0)
        _, *numbers = struct.unpack_from(order + _HEAD, first, 4)
        records, whole = _records(raw, order, path.stat().st_size)
    of_head = 3 + (numbers[_FIXED] != 0)
    more_of_frame = (numbers[_CELL] != 0) + (numbers[_FOURTH] == 1)
    of_frame = 3 + (more_of_frame if numbers[_CHARMM] else 0)
    held, more = divmod(max(0, records - of_head), of_frame)
    if held < numbers[_FRAMES]:
        raise InputError(
            f"the header of {path} promises {numbers[_FRAMES]:,} frames, the file "
            f"holds {held:,}: it is cut short; copy it again, or write it again"
        )
    if more or not whole:
        raise _cut_short(path, held)


def _cut_short(path: Path, whole: int) -> InputError:
    return InputError(
        f"{path} is cut short, or damaged, in frame {whole + 1:,}; {whole:,} are "
        "whole. Copy it again, or write it again"
    )


def _records(raw: BinaryIO, order: str, size: int) -> tuple[int, bool]:
    """Return how many whole records, as Fortran writes them, a file has.

    And whether it ends with one: each begins and ends with its length.
    """
    length, at, found = struct.Struct(order + "i"), 0, 0
    while at < size:
        raw.seek(at)
        own = _integer(raw, length)
        at += own + 2 * length.size
        if own < 0 or at > size:
            return found, False
        raw.seek(at - length.size)
        if _integer(raw, length) != own:
            return found, False
        found += 1
    return found, True


def _integer(raw: BinaryIO, length: struct.Struct) -> int:
    word = raw.read(length.size)
    return int(length.unpack(word)[0]) if len(word) == length.size else -1


def require_whole_xtc(path: Path) -> None:
    """Refuse an XTC file that ends within a frame, or whose frames are damaged.

    The format does not say how many frames there should be: a file that is cut between
    two frames looks whole. Readers trust what heads say of the data behind.

    Raises
    ------
    InputError
    """
    size, at, whole = path.stat().st_size, 0, 0
    with path.open("rb") as raw:
        if struct.unpack(">i", raw.read(4).rjust(4, b"\0"))[0] not in _XTC_MAGIC:
            return  # of another format, which its reader will say
        atoms = struct.unpack(">i", raw.read(4).rjust(4, b"\0"))[0]
        while at < size:
            raw.seek(at)
            at += _xtc_frame(raw, atoms) or size + 1
            if at > size:
                raise _cut_short(path, whole)
            whole += 1


def _xtc_frame(raw: BinaryIO, atoms: int) -> int | None:
    """Return how many bytes a frame has, None where its head cannot be true."""
    head = raw.read(_XTC_HEAD.size)
    if len(head) < _XTC_HEAD.size:
        return None
    magic, first, *_, again = _XTC_HEAD.unpack(head)
    if magic not in _XTC_MAGIC or not 0 < atoms == first == again:
        return None
    if atoms <= _XTC_UNPACKED:
        return _XTC_HEAD.size + 12 * atoms
    count = struct.Struct(_XTC_MAGIC[magic])
    tail = raw.read(_XTC_PACKING.size + count.size)
    if len(tail) < _XTC_PACKING.size + count.size:
        return None
    precision, *limits, row = _XTC_PACKING.unpack_from(tail)
    ascending = all(a <= b for a, b in zip(limits[:3], limits[3:], strict=True))
    packed = count.unpack_from(tail, _XTC_PACKING.size)[0]
    possible = 0 < packed <= _XTC_MOST_BYTES * atoms and precision > 0
    if not (ascending and possible and row in _XTC_ROWS):
        return None
    return _XTC_HEAD.size + len(tail) + (packed + 3) // 4 * 4
