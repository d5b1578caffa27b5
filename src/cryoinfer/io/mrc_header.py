"""What the header of an MRC file says, and what the program that wrote it meant.

Byte order, axes, voxel sizes and bytes are taken as other programs write them: mx, my
and mz that were never set, volumes written as stacks, and the bytes of IMOD
(https://bio3d.colorado.edu/imod/doc/mrc_format.txt).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from cryoinfer.errors import InputError
from cryoinfer.io.pixel_sizes import is_plausible_pixel_size
from cryoinfer.io.places import FARTHEST_ANGSTROM

HEADER_BYTES = 1024
DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
"""NumPy's name of the real values of each mode that is read."""

ByteOrder = Literal["<", ">"]
Place = tuple[float, float, float]

_STAMPS: dict[bytes, ByteOrder] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
_KNOWN_MODES = (*DTYPES, 3, 4, 101)

_IMOD_STAMP, _IMOD_STAMP_BYTE = 1146047817, 152
_SIGNED_BYTES, _HALF_BYTES = 1, 16
_UNSIGNED_BY_STATISTICS = (127.0, 255.0)

_SAME_SIZE = 0.01
_LARGEST_OF_ONE_SAMPLE_ANGSTROM = 10.0
_SMALLEST_OF_ONE_SAMPLE_ANGSTROM = 0.3
"""A cell of one sample is a voxel up to 10 A, and the whole map if its voxels then have
0.3 A and more; what could be both says nothing."""


@dataclass(frozen=True)
class MrcHeader:
    """The header of an MRC file, in its own order of axes.

    Attributes
    ----------
    shape : tuple of int
        (sections, rows, columns).
    mode : int
    dtype : str
        NumPy's name with the byte order; empty for a mode that is not read.
    added : float
        What the writing program adds to each stored value.
    order : tuple of int
        Which of x (1), y (2) and z (3) columns, rows and sections run along.
    samples, cell_angstrom : tuple
        Intervals and lengths of the cell along x, y and z.
    angles_degrees : tuple of float
        Of the cell.
    origin_angstrom, start : tuple
        Where the map lies, in angstrom or in voxels; programs use one or the other.
    space_group : int
        0 for a stack of images, 401 for one of volumes.
    extended_bytes : int
        Between the header and the values.
    is_marked : bool
        Whether it has the word MAP; old files have none.
    """

    shape: tuple[int, int, int]
    mode: int
    dtype: str
    added: float
    order: tuple[int, int, int]
    samples: tuple[int, int, int]
    cell_angstrom: tuple[float, float, float]
    angles_degrees: tuple[float, float, float]
    origin_angstrom: Place
    start: tuple[int, int, int]
    space_group: int
    extended_bytes: int
    is_marked: bool

    @classmethod
    def of(cls, content: bytes, path: Path) -> Self:
        """Read a header from the first bytes of a file.

        Raises
        ------
        InputError
            If they are too few, or say what no file can hold.
        """
        if len(content) < HEADER_BYTES:
            raise InputError(
                f"{path} is not an MRC file: expected a header of {HEADER_BYTES} "
                f"bytes, found {len(content)}"
            )
        fields, byte_order = _fields(content[:HEADER_BYTES])
        shape = _three(fields, "nz", "ny", "nx")
        mode, extended = int(fields["mode"]), int(fields["nsymbt"])
        if mode not in _KNOWN_MODES or min(shape) < 1 or extended < 0:
            raise InputError(
                f"{path} is not an MRC file: expected one of the modes "
                f"{', '.join(map(str, DTYPES))} and sizes of 1 and more, found mode "
                f"{mode}, (z, y, x) = {shape} and {extended} bytes behind the header"
            )
        dtype, added = _values(fields, mode, content, byte_order, path)
        order = _three(fields, "mapc", "mapr", "maps")
        return cls(
            shape=shape,
            mode=mode,
            dtype=dtype,
            added=added,
            order=(1, 2, 3) if order == (0, 0, 0) else order,
            samples=_three(fields, "mx", "my", "mz"),
            cell_angstrom=fields["cella"].item(),
            angles_degrees=fields["cellb"].item(),
            origin_angstrom=fields["origin"].item(),
            start=_three(fields, "nxstart", "nystart", "nzstart"),
            space_group=int(fields["ispg"]),
            extended_bytes=extended,
            is_marked=bytes(fields["map"])[:3] == b"MAP",
        )

    @property
    def offset_bytes(self) -> int:
        """Where the values begin."""
        return HEADER_BYTES + self.extended_bytes

    @property
    def file_bytes(self) -> int:
        """Return the length of a file that holds all values."""
        size = np.dtype(self.dtype).itemsize if self.dtype else 1
        return self.offset_bytes + math.prod(self.shape) * size

    def pixel_size_of_images(self) -> float | None:
        """Return the pixel size of a stack, None where the header has no usable one."""
        return self._shared_size(2)

    def voxel_size(self) -> float | None:
        """Return the one voxel size of a map, None where there is none."""
        right = all(angle in (0.0, 90.0) for angle in self.angles_degrees)
        return self._shared_size(3) if right else None

    def first_voxel_angstrom(self, voxel_angstrom: float, path: Path) -> Place:
        """Return where the first voxel lies, along x, y and z.

        Raises
        ------
        InputError
            If nothing can lie there.
        """
        place = self.origin_angstrom
        if not any(place):
            i, j, k = self.start
            place = (voxel_angstrom * i, voxel_angstrom * j, voxel_angstrom * k)
        x, y, z = place
        if not all(abs(axis) <= FARTHEST_ANGSTROM for axis in place):
            raise InputError(
                f"{path}: expected the first voxel within {FARTHEST_ANGSTROM:g} A of "
                f"0, found it at ({x:g}, {y:g}, {z:g}) in the header. Set its origin "
                "and start to 0, for example with the Python package mrcfile"
            )
        return place

    def told_voxel_size(self) -> str:
        """Return what the header says of the voxel size, for a message."""
        cell = ", ".join(f"{length:.4g}" for length in self.cell_angstrom)
        samples = ", ".join(map(str, self.samples))
        angles = ", ".join(f"{angle:g}" for angle in self.angles_degrees)
        return f"a cell of {cell} A with {samples} intervals and angles of {angles}"

    def _shared_size(self, axes: int) -> float | None:
        """Return the size that the first axes (x, y, z) share."""
        count = dict(zip(self.order, self.shape[::-1], strict=True))
        choices = [
            _sizes(self.cell_angstrom[axis], self.samples[axis], count.get(axis + 1, 0))
            for axis in range(axes)
        ]
        shared = [
            size
            for size in choices[0]
            if all(any(_is_same(size, s) for s in other) for other in choices[1:])
        ]
        if len(shared) == 2:  # every axis has one sample
            of_sample, of_map = shared
            if of_sample > _LARGEST_OF_ONE_SAMPLE_ANGSTROM:
                return of_map
            return of_sample if of_map < _SMALLEST_OF_ONE_SAMPLE_ANGSTROM else None
        return shared[0] if shared else None


def _fields(content: bytes) -> tuple[np.void, ByteOrder]:
    """Return the fields by mrcfile's names, and the byte order.

    Where the stamp is missing or wrong, in the order that makes sense of the mode.
    """
    stamped = _STAMPS.get(content[212:214], "<")
    other: ByteOrder = ">" if stamped == "<" else "<"
    for order in (stamped, other):
        fields = np.frombuffer(content, HEADER_DTYPE.newbyteorder(order))[0]
        sizes = [int(fields[name]) for name in ("nx", "ny", "nz")]
        if int(fields["mode"]) in _KNOWN_MODES and min(sizes) > 0:
            return fields, order
    return np.frombuffer(content, HEADER_DTYPE.newbyteorder(stamped))[0], stamped


def _three(fields: np.void, *names: str) -> Any:
    return tuple(int(fields[name]) for name in names)


def _values(
    fields: np.void, mode: int, content: bytes, byte_order: ByteOrder, path: Path
) -> tuple[str, float]:
    """Return the type of the values, and what is added to each of them."""
    if mode != 0:
        name = DTYPES.get(mode)
        return (
            "" if name is None else np.dtype(name).newbyteorder(byte_order).str
        ), 0.0
    low, high = float(fields["dmin"]), float(fields["dmax"])
    stamp, flags = np.frombuffer(content, byte_order + "i4", 2, _IMOD_STAMP_BYTE)
    if int(stamp) != _IMOD_STAMP:
        # MRC2014 has signed bytes; older programs wrote others, as their maxima tell.
        at_least, at_most = _UNSIGNED_BY_STATISTICS
        return ("u1" if low >= 0 and at_least < high <= at_most else "i1"), 0.0
    if int(flags) & _HALF_BYTES:
        raise InputError(
            f"{path}: expected a value a byte, found two (IMOD's 4-bit values). "
            "Rewrite it with newstack -mode 2"
        )
    if int(flags) & _SIGNED_BYTES:
        return "i1", 128.0  # IMOD's bytes mean 0 to 255, however they are stored
    return ("i1" if low < 0 else "u1"), 0.0


def _sizes(length: float, samples: int, count: int) -> list[float]:
    """Return the voxel sizes that an axis can mean, the literal one first."""
    meant = [length / samples] if samples > 0 else []
    if samples <= 1 and count > 1:  # never set, or a volume written as a stack
        meant.append(length / count)
    return [size for size in meant if is_plausible_pixel_size(size)]


def _is_same(first: float, second: float) -> bool:
    return abs(first - second) <= _SAME_SIZE * first
