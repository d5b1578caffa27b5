"""Read and write MRC maps and image stacks.

Stacks are memory-mapped and never held as a whole. Axes are (z, y, x) for maps
and (image, y, x) for stacks.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mrcfile
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError, MissingFileError, OutputError
from cryoinfer.io.pixel_sizes import PIXEL_SIZE_RANGE_ANGSTROM, is_plausible_pixel_size

_HEADER_BYTES = 1024
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


@dataclass(frozen=True)
class MapFile:
    """A density map.

    Attributes
    ----------
    density : array of float32, shape (n, n, n)
        Axes (z, y, x).
    pixel_size_angstrom : float
    """

    density: NDArray[np.float32]
    pixel_size_angstrom: float


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
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: str
    offset_bytes: int
    pixel_size_angstrom: float | None

    def __len__(self) -> int:
        return self.shape[0]

    def view(self) -> NDArray[Any]:
        """Return the images, shape (images, height, width), memory-mapped."""
        return np.memmap(
            self.path, self.dtype, "r", offset=self.offset_bytes, shape=self.shape
        )

    @classmethod
    def of(cls, path: Path | str) -> Self:
        """Read the header of a stack.

        Raises
        ------
        MissingFileError
            If there is no such file.
        InputError
            If it is no MRC file, has an unknown mode or axis order, or is shorter
            than its header says.
        """
        path = Path(path)
        header = _read_header(path)
        mode = int(header.mode)
        shape = (int(header.nz), int(header.ny), int(header.nx))
        if mode not in _DTYPES or min(shape) < 1:
            raise InputError(
                f"{path} is not an MRC stack of real images: expected one of the modes "
                f"{sorted(_DTYPES)}, found mode {mode} and (n, y, x) = {shape}"
            )
        axes = (int(header.mapc), int(header.mapr), int(header.maps))
        if axes not in ((1, 2, 3), (0, 0, 0)):
            raise InputError(
                f"{path}: images must be stored with x fastest (axis order 1, 2, 3), "
                f"found {axes}. Write the stack anew with mrcfile or RELION."
            )
        dtype = np.dtype(_DTYPES[mode]).newbyteorder(header.mode.dtype.byteorder)
        offset = _HEADER_BYTES + int(header.nsymbt)
        expected = offset + math.prod(shape) * dtype.itemsize
        found = path.stat().st_size
        if found < expected and bytes(header.map)[:3] != b"MAP":
            raise InputError(
                f"{path} is not an MRC file: it lacks the word MAP and is shorter than "
                "its first bytes, read as a header, would have it"
            )
        if found < expected:
            raise InputError(
                f"{path} is cut off: its header promises {shape[0]} images and "
                f"{expected} bytes, found {found} bytes. Copy or extract it again."
            )
        return cls(path, shape, dtype.str, offset, _image_pixel_size(header))


class StackWriter:
    """Write a stack of float32 images piece by piece.

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
    """

    def __init__(
        self, path: Path | str, n: int, box: int, pixel_size_angstrom: float
    ) -> None:
        self._path = Path(path)
        self._box = box
        self._missing = n
        try:
            with mrcfile.new(self._path, overwrite=True) as mrc:
                mrc.set_data(np.zeros((1, box, box), dtype=np.float32))
                mrc.set_image_stack()
                mrc.voxel_size = pixel_size_angstrom
                mrc.header.nz = n
                mrc.reset_header_stats()
            self._file = self._path.open("r+b")
            self._file.truncate(_HEADER_BYTES)
            self._file.seek(_HEADER_BYTES)
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
            self._file.write(images.detach().cpu().numpy().astype("<f4").tobytes())
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


def open_stack(path: Path | str) -> NDArray[Any]:
    """Return the images of a stack, shape (n, y, x), memory-mapped and read-only."""
    return StackFile.of(path).view()


def read_map(path: Path | str, pixel_size_angstrom: float | None = None) -> MapFile:
    """Read a cubic map, plain or compressed, whatever its axis order.

    The header's start and origin are ignored: the centre is the voxel ``n // 2``.

    Parameters
    ----------
    path : path
    pixel_size_angstrom : float, optional
        Used instead of the header's.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent, no map, not cubic or without a usable voxel size.
    """
    path = Path(path)
    _require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with mrcfile.open(path, permissive=True) as mrc:
                header, data = mrc.header.copy(), mrc.data
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} is not an MRC map: {error}") from error
    if data is None or data.ndim != 3 or np.iscomplexobj(data):
        raise InputError(f"{path} is not a three-dimensional real MRC map")
    axes = (int(header.mapc), int(header.mapr), int(header.maps))
    if axes == (0, 0, 0):
        axes = (1, 2, 3)
    if sorted(axes) != [1, 2, 3]:
        raise InputError(f"{path}: expected an order of the axes 1, 2, 3, found {axes}")
    # The array's axes (section, row, column) hold the space axes (maps, mapr, mapc).
    density = np.transpose(data, [axes[::-1].index(space) for space in (3, 2, 1)])
    if len(set(density.shape)) != 1:
        raise InputError(
            f"{path}: expected a cubic map, found (z, y, x) = {density.shape}. "
            "Pad or crop it to a cube, or is this a stack of images?"
        )
    if pixel_size_angstrom is None:
        pixel_size_angstrom = _voxel_size(header, path)
    return MapFile(np.ascontiguousarray(density, dtype="=f4"), pixel_size_angstrom)


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
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise MissingFileError(f"No such MRC file: {path}")


def _read_header(path: Path) -> np.recarray:
    _require_file(path)
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            # Old programs leave the stamp or the map word empty; what matters, the
            # mode and the size, is tested by the caller.
            warnings.simplefilter("ignore", RuntimeWarning)
            header = mrcfile.mrcinterpreter.MrcInterpreter(
                file, permissive=True, header_only=True
            ).header.copy()
    except ValueError as error:
        raise InputError(f"{path} is not an MRC file: {error}") from error
    return header


def _image_pixel_size(header: np.recarray) -> float | None:
    """Return the pixel size of an image header if x and y agree on a usable one."""
    samples = np.array([header.mx, header.my], dtype=np.float64)
    lengths = np.array([header.cella.x, header.cella.y], dtype=np.float64)
    if (samples < 1).any():
        return None
    sizes = lengths / samples
    same = abs(sizes[0] - sizes[1]) <= 0.01 * sizes[0]
    return float(sizes[0]) if same and is_plausible_pixel_size(sizes[0]) else None


def _voxel_size(header: np.recarray, path: Path) -> float:
    samples = np.array([header.mx, header.my, header.mz], dtype=np.float64)
    cell = header.cella
    lengths = np.array([cell.x, cell.y, cell.z], dtype=np.float64)
    sizes = lengths / np.maximum(samples, 1)
    if np.ptp(sizes) > 0.01 * sizes.max() or not is_plausible_pixel_size(sizes[0]):
        raise InputError(
            f"{path}: expected one voxel size between {PIXEL_SIZE_RANGE_ANGSTROM[0]} "
            f"and {PIXEL_SIZE_RANGE_ANGSTROM[1]} A in the header, found (x, y, z) = "
            f"{tuple(round(float(s), 4) for s in sizes)}. Give --pixel-size."
        )
    return float(sizes[0])
