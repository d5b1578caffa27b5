"""Read and write MRC maps and image stacks.

Stacks are read image by image and never held as a whole. Axes are (z, y, x) for maps
and (image, y, x) for stacks.
"""

import itertools
import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer import __version__
from cryoinfer.errors import (
    InputError,
    OutputError,
    VoxelSizeError,
)
from cryoinfer.io.files import require_file
from cryoinfer.io.mrc_header import DTYPES, HEADER_BYTES, MrcHeader
from cryoinfer.io.mrc_volume import read_volume
from cryoinfer.io.pixel_sizes import PIXEL_SIZE_RANGE_ANGSTROM, is_plausible_pixel_size

_ROUNDING_OF_MASKS = 1e-3
"""What a mask may leave its range by: twice the last digit of a float16 at 1."""


@dataclass(frozen=True)
class MapFile:
    """A density map.

    Attributes
    ----------
    density : array of float32, shape (n, n, n)
        Axes (z, y, x).
    pixel_size_angstrom : float
    origin_angstrom : tuple of float
        Where the header puts the first voxel, along x, y and z; nothing here uses it
        but what compares maps.
    """

    density: NDArray[np.float32]
    pixel_size_angstrom: float
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class StackFile:
    """Where the images of a stack lie in its file; small and picklable.

    Attributes
    ----------
    path : Path
    shape : tuple of int
        (images, height, width).
    dtype : str
        NumPy's name, with the byte order.
    offset_bytes : int
        Of the first image.
    pixel_size_angstrom : float or None
        Of the header; None where that is absent or absurd.
    added : float
        What the program that wrote it adds to every stored value.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: str
    offset_bytes: int
    pixel_size_angstrom: float | None
    added: float = 0.0

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a copy of some images as their program means them.

        Neighbours are read in one piece. Nothing is mapped: pages of a mapping come one
        by one, which takes twice as long from a disk, and as long again from memory.

        Raises
        ------
        InputError
            If the file has become shorter since it was opened.
        """
        stored = np.empty((len(rows), *self.shape[1:]), self.dtype)
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        with self.path.open("rb", buffering=0) as file:
            for start, stop in itertools.pairwise((0, *ends.tolist(), len(rows))):
                self._read_into(stored[start:stop], int(rows[start]), file)
        if stored.dtype == np.float16:
            # The same numbers as NumPy's, at seven times its speed.
            return torch.from_numpy(stored).float().numpy()
        images = stored.astype(np.float32, copy=False)
        if self.added:
            images += np.float32(self.added)
        return images

    def _read_into(self, images: NDArray[Any], first: int, file: FileIO) -> None:
        """Fill ``images`` with as many of the file's, from number ``first`` on."""
        missing = images.reshape(-1).view(np.uint8).data
        file.seek(self.offset_bytes + first * images[0].nbytes)
        while len(missing) and (read := file.readinto(missing)):
            missing = missing[read:]
        if len(missing):
            raise InputError(
                f"{self.path} was cut off while it was in use: image "
                f"{first + len(images)} is not there any more. Copy it again."
            )

    @classmethod
    def of(cls, path: Path | str) -> Self:
        """Read the header of a stack.

        Raises
        ------
        MissingFileError
            If there is no such file.
        InputError
            If it cannot be read, is no MRC file, has an unknown mode or axis order,
            or is shorter than its header says.
        """
        path = Path(path)
        require_file(path, "MRC file")
        try:
            with path.open("rb") as file:
                header = MrcHeader.of(file.read(HEADER_BYTES), path)
                found = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise InputError(
                f"Cannot read {path}: {error.strerror}. May it be read, and is its "
                "disk whole?"
            ) from error
        if not header.dtype:
            raise InputError(
                f"{path} is not an MRC stack of real images: expected one of the modes "
                f"{sorted(DTYPES)}, found mode {header.mode} and (n, y, x) = "
                f"{header.shape}"
            )
        if header.order != (1, 2, 3):
            raise InputError(
                f"{path}: images must be stored with x fastest (axis order 1, 2, 3), "
                f"found {header.order}. Rewrite the stack with mrcfile or RELION."
            )
        if found < header.file_bytes and not header.is_marked:
            raise InputError(
                f"{path} is not an MRC file: it lacks the word MAP and is shorter than "
                "its first bytes, read as a header, would have it"
            )
        if found < header.file_bytes:
            raise InputError(
                f"{path} is cut off: its header promises {header.shape[0]} images and "
                f"{header.file_bytes} bytes, found {found} bytes. Copy or extract it "
                "again."
            )
        return cls(
            path,
            header.shape,
            header.dtype,
            header.offset_bytes,
            header.pixel_size_of_images(),
            header.added,
        )


class StackWriter:
    """Write a stack of images piece by piece.

    Use as a context manager, and write exactly ``n`` images.

    Parameters
    ----------
    path : path
        Should end in ``.mrcs``, which RELION demands.
    n : int
        Number of images.
    box : int
        Their size in pixels.
    pixel_size_angstrom : float
    dtype : torch.float32 or torch.float16
        Of what is stored; float16 is mode 12.
    label : str
        Further label of the header, at most 80 characters.
    """

    def __init__(
        self,
        path: Path | str,
        n: int,
        box: int,
        pixel_size_angstrom: float,
        *,
        dtype: torch.dtype = torch.float32,
        label: str = "",
    ) -> None:
        self._path = Path(path)
        self._box = box
        self._missing = n
        self._dtype = dtype
        try:
            with mrcfile.new(self._path, overwrite=True) as mrc:
                mrc.set_data(torch.zeros(1, box, box, dtype=dtype).numpy())
                mrc.set_image_stack()
                mrc.voxel_size = pixel_size_angstrom
                mrc.header.nz = n
                mrc.reset_header_stats()
                _label(mrc)
                if label:
                    mrc.header.label[1] = label
                    mrc.header.nlabl = 2
            self._file = self._path.open("r+b")
            self._file.truncate(HEADER_BYTES)
            self._file.seek(HEADER_BYTES)
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror}") from error

    def write(self, images: Tensor) -> None:
        """Append images of shape (b, box, box)."""
        if images.shape[1:] != (self._box, self._box) or len(images) > self._missing:
            raise ValueError(
                f"expected at most {self._missing} images of {self._box} pixels, "
                f"got {tuple(images.shape)}"
            )
        try:
            stored = images.detach().cpu().to(self._dtype).numpy()
            little = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<"))
            self._file.write(little.data)
        except OSError as error:
            raise OutputError(f"Cannot write {self._path}: {error.strerror}") from error
        self._missing -= len(images)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if error is None and self._missing:
            raise ValueError(f"{self._missing} images of {self._path} are missing")


def read_map(path: Path | str, pixel_size_angstrom: float | None = None) -> MapFile:
    """Read a cubic map, plain or compressed, whatever its axis order.

    The centre is the voxel ``n // 2``, wherever the header's start and origin put it.

    Parameters
    ----------
    path : path
    pixel_size_angstrom : float, optional
        Used instead of the header's.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent, no map, not cubic, holds values that are not finite or
        the same value throughout.
    VoxelSizeError
        If neither the caller nor the header says how large a voxel is.
    """
    found = read_cube(Path(path), pixel_size_angstrom)
    lowest, highest = found.density.min(), found.density.max()
    if lowest == highest:
        raise InputError(
            f"{path}: expected a map with contrast, found {lowest:g} in all "
            f"{found.density.size:,} voxels. Is it the file that was meant?"
        )
    return found


def read_mask(path: Path | str, pixel_size_angstrom: float | None = None) -> MapFile:
    """Read a mask as :func:`read_map` reads maps; it may be 1 throughout.

    Raises
    ------
    MissingFileError, InputError, VoxelSizeError
        As for a map, and if it leaves the range from 0 to 1 or is 0 everywhere.
    """
    found = read_cube(Path(path), pixel_size_angstrom)
    lowest, highest = float(found.density.min()), float(found.density.max())
    if lowest < -_ROUNDING_OF_MASKS or highest > 1 + _ROUNDING_OF_MASKS:
        cure = f"Divide it by {highest:g}, or is" if lowest >= 0 else "Is"
        raise InputError(
            f"{path}: expected a mask from 0 to 1, found values from {lowest:.4g} to "
            f"{highest:.4g}. {cure} it a map?"
        )
    if lowest == highest != 1:
        raise InputError(
            f"{path}: expected a mask that is 1 where the particle is and 0 elsewhere, "
            f"found {lowest:g} in all {found.density.size:,} voxels"
        )
    return found


_LARGEST = 1e15
"""Of a voxel: sums of squares over a map must fit into single precision."""


def read_cube(path: Path, pixel_size_angstrom: float | None = None) -> MapFile:
    """Read a map whose values are finite, whatever else they are."""
    header, data = read_volume(path)
    if sorted(header.order) != [1, 2, 3]:
        raise InputError(
            f"{path}: expected an order of the axes 1, 2, 3, found {header.order}"
        )
    # The array's axes (section, row, column) hold the space axes (maps, mapr, mapc).
    stored = [header.order[::-1].index(space) for space in (3, 2, 1)]
    density = np.transpose(data, stored)
    if len(set(density.shape)) != 1:
        raise InputError(
            f"{path}: expected a cubic map, found (z, y, x) = {density.shape}. "
            "Pad or crop it to a cube, or is this a stack of images?"
        )
    bad = int(density.size - np.isfinite(density).sum())
    if bad:
        raise InputError(
            f"{path}: expected finite values, found {bad:,} of {density.size:,} voxels "
            "that are NaN or infinite. Rewrite the map, or set them to 0"
        )
    if float(np.abs(density).max(initial=0.0)) > _LARGEST:
        raise InputError(
            f"{path}: expected values up to {_LARGEST:g}, whose squares single "
            f"precision holds, found {float(np.abs(density).max()):g}. Scale the map"
        )
    voxel = header.voxel_size() if pixel_size_angstrom is None else pixel_size_angstrom
    low, high = PIXEL_SIZE_RANGE_ANGSTROM
    if voxel is None:
        raise VoxelSizeError(
            f"{path}: expected one voxel size between {low} and {high} A along x, y "
            f"and z, found {header.told_voxel_size()} in the header"
        )
    if not is_plausible_pixel_size(voxel):
        raise InputError(
            f"expected a voxel size between {low} and {high} A for {path}, found "
            f"{voxel:g}"
        )
    origin = header.first_voxel_angstrom(voxel, path)
    return MapFile(np.ascontiguousarray(density, dtype="=f4"), voxel, origin)


def write_map(
    path: Path | str, density: Tensor | NDArray[Any], pixel_size_angstrom: float
) -> None:
    """Write a map (z, y, x) as float32 with its voxel size, start and origin 0."""
    if isinstance(density, Tensor):
        density = density.detach().cpu().numpy()
    try:
        with mrcfile.new(Path(path), overwrite=True) as mrc:
            mrc.set_data(np.ascontiguousarray(density, dtype=np.float32))
            mrc.set_volume()
            mrc.voxel_size = pixel_size_angstrom
            _label(mrc)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}") from error


def _label(mrc: Any) -> None:
    """Say who has written a file, and not when: the same seed gives the same bytes."""
    mrc.header.label[0] = f"Created by cryoinfer {__version__}"
