"""Read cryoDRGN's files, which are pickles, without running anything in them.

A pickle is a program: as a rule, who reads one runs it. Here its instructions are
looked at first, and arrays of numbers are made by stand-ins of this module; what a file
asks for besides is refused by name. The size of an array is that of its bytes in the
file.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.files import read_bytes

_PARAMETERS = 9
"""Columns of ``ctf.pkl``."""

_CODE = re.compile(r"[<>|=]?[iufb][1-8]")
"""Types of numbers, as NumPy writes them; none of Python objects."""

_MOST_ARRAYS = 64
"""Pickles that a file may hold, one after another."""

_NO_ROTATION = 1e-3
"""How far from 1 the product of a rotation with its transpose is at most."""


@dataclass(frozen=True)
class CryodrgnPoses:
    """What ``poses.pkl`` holds of n particles.

    Attributes
    ----------
    rotation : array of float64, shape (n, 3, 3)
        Reference to image.
    translation : array of float64, shape (n, 2)
        Along x and y, as a fraction of the box; how to move the *image* onto the
        reference. Zero where the file has none.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]


@dataclass(frozen=True)
class CryodrgnLatents:
    """What ``z.pkl`` holds of n particles.

    Attributes
    ----------
    mean : array of float64, shape (n, q)
    sd : array of float64, shape (n, q), or None
        Of files that hold the logarithm of the variance as well, as those of a
        variational autoencoder.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64] | None


def read_poses(path: Path) -> CryodrgnPoses:
    """Read rotations, and translations if there are any.

    Parameters
    ----------
    path : Path
        A pickle of ``(rotation, translation)``, of ``(rotation,)``, or of rotations.

    Raises
    ------
    MissingFileError, InputError
        If it is absent, damaged, asks for anything but numbers, or holds others.
    """
    found = _only(path)
    parts = found if isinstance(found, tuple) else (found,)
    if len(parts) not in (1, 2) or not all(
        isinstance(one, np.ndarray) for one in parts
    ):
        raise InputError(
            f"{path} holds no poses of cryoDRGN: expected an array of rotations, and "
            "one of translations"
        )
    rotation = _numbers(path, parts[0], "rotations", (3, 3))
    translation = np.zeros((len(rotation), 2))
    if len(parts) == 2:
        translation = _numbers(path, parts[1], "translations", (2,))
    if len(translation) != len(rotation):
        raise InputError(
            f"{path} holds {len(rotation):,} rotations and {len(translation):,} "
            "translations: expected as many of both"
        )
    square = rotation @ rotation.transpose(0, 2, 1)
    off = np.abs(square - np.eye(3)).max(axis=(1, 2)) > _NO_ROTATION
    _refuse(path, off | (np.linalg.det(rotation) < 0), "no rotation matrix")
    # Of old files, which the program itself refuses.
    far = np.abs(translation).max(axis=1) > 1
    _refuse(path, far, "a translation beyond the box, which fractions of it are not")
    return CryodrgnPoses(rotation, translation)


def read_ctf(path: Path) -> NDArray[np.float64]:
    """Read the parameters of CTFs, shape (n, 9).

    The columns are image size (pixels), pixel size (A), defocus U and V (A), angle of U
    (degrees), voltage (kV), Cs (mm), amplitude contrast and phase shift (degrees).

    Raises
    ------
    MissingFileError, InputError
        As :func:`read_poses`.
    """
    return _numbers(path, _only(path), "CTF parameters", (_PARAMETERS,))


def read_latents(path: Path) -> CryodrgnLatents:
    """Read z of all particles.

    Parameters
    ----------
    path : Path
        One or two pickles one after another: means, and the logarithms of variances.

    Raises
    ------
    MissingFileError, InputError
        As :func:`read_poses`.
    """
    found = read_pickles(path)
    mean = _numbers(path, found[0], "z", (None,))
    if len(found) == 1:
        return CryodrgnLatents(mean, None)
    log_variance = _numbers(path, found[1], "log variances of z", (None,))
    if log_variance.shape != mean.shape:
        raise InputError(
            f"{path} holds z of the shape {mean.shape} and variances of the shape "
            f"{log_variance.shape}: expected the same"
        )
    with np.errstate(over="ignore"):
        return CryodrgnLatents(mean, np.exp(0.5 * log_variance))


def read_indices(path: Path) -> NDArray[np.int64]:
    """Read numbers of particles, from 0, as cryoDRGN's ``--ind`` takes them.

    Raises
    ------
    MissingFileError, InputError
        As :func:`read_poses`.
    """
    found = _only(path)
    if isinstance(found, list) and all(type(one) in (int, np.int64) for one in found):
        try:
            found = np.array(found, dtype=np.int64)
        except OverflowError:
            found = None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
        raise InputError(f"{path} holds no numbers of particles")
    return found.reshape(-1).astype(np.int64)


def read_pickles(path: Path) -> list[Any]:
    """Return what the pickles of a file hold that has only numbers and arrays of them.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If it is no pickle, is cut short, or asks for anything else.
    """
    data = read_bytes(path)
    found: list[Any] = []
    end = 0
    try:
        while end < len(data) and len(found) < _MOST_ARRAYS:
            start, end = end, _end_of_pickle(path, data, end)
            found.append(_plain(_Reader(path, data[start:end]).load()))
    except InputError:
        raise
    except Exception as error:  # pickle has no end of errors for what is damaged
        raise InputError(
            f"{path} is no pickle of arrays, or is damaged: {str(error)[:200]}"
        ) from error
    if not found:
        raise InputError(f"{path} is empty: expected a pickle of arrays")
    return found


def _end_of_pickle(path: Path, data: bytes, start: int) -> int:
    """Return where a pickle ends, all instructions of which are of plain values.

    Nothing is made yet: a length that the file does not have is refused here, before
    memory is taken for it, and so is a place in the memo beyond all instructions.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    for code, argument, _ in pickletools.genops(stream):
        if code.name not in _CODES:
            raise InputError(
                f"{path} asks for {code.name}, which no array of numbers needs: it is "
                "refused, and nothing in it was run. Write it again with NumPy arrays "
                "of numbers alone"
            )
        if code.name in _PUTS and int(argument or 0) > len(data):
            raise InputError(f"{path} is damaged: it asks for more than it holds")
    return stream.tell()


class _Reader(pickle.Unpickler):
    """Makes arrays of numbers by stand-ins, and refuses all else."""

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of what arrays are made with, for every version."""
        maker = _MAKERS.get((module.replace("numpy._core", "numpy.core"), name))
        if maker is None:
            raise InputError(
                f"{self.path} asks for {module[:100]}.{name[:100]}, which no array of "
                "numbers needs: it is refused, and nothing in it was run. Write it "
                "again with NumPy arrays of numbers alone"
            )
        return _Maker(maker)

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what stands outside of the file."""
        raise InputError(f"{self.path} refers to something outside of the file")


class _Maker:
    """What a pickle may call, and nothing else can be done with."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a state is given to what has none")


class _Type:
    """A type of numbers, whose byte order comes after it."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise ValueError(
                f"it holds values of the type {str(code)[:20]!r}, expected numbers"
            )
        self.dtype: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order, parts = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in parts):
            raise ValueError("it holds records, expected numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array, which is filled once its bytes are there."""

    __slots__ = ("values",)

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        shape, kind, by_columns, data = state[-4:]
        self.values = _filled(data, kind, shape, "F" if by_columns else "C")


def _filled(data: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Return bytes as an array, which has as many as its shape takes."""
    if isinstance(data, str):  # of Python 2
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not isinstance(kind, _Type):
        raise ValueError("an array without bytes, or without a type of numbers")
    sides = [shape] if isinstance(shape, int) else list(shape)
    count = len(data) // kind.dtype.itemsize
    held = 1
    for side in sides:
        if type(side) is not int or side < 0:
            raise ValueError("an array whose shape is none")
        held *= side
    if held != count or count * kind.dtype.itemsize != len(data):
        raise ValueError(f"an array of {held} numbers with the bytes of {count}")
    values = np.frombuffer(bytes(data), dtype=kind.dtype)
    return values.reshape(sides, order="F" if order == "F" else "C")


def _array_of_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.values = _filled(data, kind, shape, order)
    return made


def _scalar(kind: Any, data: Any) -> Any:
    return _filled(data, kind, (), "C")[()]


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an encoding that NumPy does not write")
    return text.encode("latin1")


_CORE = "numpy.core.multiarray"
_MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    (_CORE, "_reconstruct"): _Array,
    (_CORE, "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encoded,
}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_CODES = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK DUP GLOBAL STACK_GLOBAL REDUCE BUILD "
    "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET "
    "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS".split()
)
"""Instructions of plain values and of calls, of which the reader has the last word."""


def _plain(found: Any) -> Any:
    """Return arrays for stand-ins, alone or in a tuple or list of them."""
    if isinstance(found, tuple | list):
        return type(found)(_values(one) for one in found)
    return _values(found)


def _values(found: Any) -> Any:
    if isinstance(found, _Array):
        if found.values is None:
            raise ValueError("an array without bytes")
        return found.values
    return found


def _only(path: Path) -> Any:
    found = read_pickles(path)
    if len(found) > 1:
        raise InputError(f"{path} holds {len(found)} pickles, expected one")
    return found[0]


def _numbers(
    path: Path, found: Any, what: str, shape: tuple[int | None, ...]
) -> NDArray[np.float64]:
    """Return finite numbers, of a particle each row; None stands for any width."""
    if not isinstance(found, np.ndarray) or found.ndim != len(shape) + 1:
        raise InputError(f"{path} holds no {what}: expected an array of them")
    pairs = zip(found.shape[1:], shape, strict=True)
    if len(found) == 0 or any(x != y if y else x == 0 for x, y in pairs):
        expected = " x ".join("any" if side is None else str(side) for side in shape)
        raise InputError(
            f"{path} holds no {what}: expected {expected} numbers per particle, found "
            f"an array of the shape {found.shape}"
        )
    values = found.astype(np.float64)
    bad: NDArray[np.bool_] = ~np.isfinite(values).reshape(len(values), -1)
    _refuse(path, np.asarray(bad.any(axis=1)), "no number")
    return values


def _refuse(path: Path, bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        raise InputError(
            f"{path}: row {bad.argmax() + 1} holds {what} ({bad.sum():,} such rows)"
        )
