"""Read and write cryoSPARC's ``.cs`` tables: NumPy structured arrays with a uid."""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError, OutputError, is_out_of_memory
from cryoinfer.io.files import require_file
from cryoinfer.io.number_words import are_whole
from cryoinfer.io.raw_text import decode, encode
from cryoinfer.io.star_text import STRING

# NumPy guards against crafted headers of text files; a .cs with hundreds of fields
# has an honest header beyond the default of 10,000 characters.
_MAX_HEADER_CHARACTERS = 1_000_000

_ODD = np.uint64(0x9E3779B97F4A7C15)


def read_cs(path: Path | str, passthrough: Sequence[Path | str] = ()) -> NDArray[Any]:
    """Read a ``.cs`` table with the fields of its passthrough tables.

    Parameters
    ----------
    path : path
    passthrough : sequence of paths
        Tables that carry further fields of the same particles. Without any, the
        files ``*passthrough_particles*.cs`` beside ``path`` that hold every one of
        its particles are taken; those that cannot be read are passed over.

    Returns
    -------
    structured array, shape (n,)
        Rows in the order of ``path``; a field that it has itself is never replaced.

    Raises
    ------
    MissingFileError, InputError
        If a file is absent, is not a ``.cs`` table, or a passthrough named by the
        caller lacks a particle.
    """
    return read_with_tables(Path(path), passthrough)[0]


def read_with_tables(
    path: Path, passthrough: Sequence[Path | str] = ()
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Read as :func:`read_cs` does; return also what to tell of the tables beside.

    Nobody has asked for those, so that one that is damaged stops nothing.

    Raises
    ------
    MissingFileError, InputError
        As :func:`read_cs`.
    """
    table = _load(path)
    if passthrough:
        for other_path in map(Path, passthrough):
            table = _merge(table, _load(other_path), other_path)
        return table, ()
    remarks = []
    for other_path in tables_beside(path):
        try:
            other = _load(other_path)
        except InputError as error:
            remarks.append(
                f"{error}. It is in the folder of {path.name}, and is skipped: give "
                "the right passthrough tables with --passthrough."
            )
            continue
        covers = _has_uids(other) and _has_uids(table)
        if covers and np.isin(table["uid"], other["uid"]).all():
            table = _merge(table, other, other_path)
    return table, tuple(remarks)


def tables_beside(path: Path) -> list[Path]:
    """Return the passthrough tables that lie beside a table, whether of it or not."""
    found = sorted(path.parent.glob("*passthrough_particles*.cs"))
    return [other for other in found if other.is_file() and other != path]


def write_cs(path: Path | str, table: NDArray[Any]) -> None:
    """Write a ``.cs`` table."""
    try:
        with Path(path).open("wb") as file:
            np.save(file, table, allow_pickle=False)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}") from error


def with_fields(
    table: NDArray[Any], fields: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Return the table with fields replaced, whatever their type was, or added."""
    columns = {name: table[name] for name in field_names(table)} | dict(fields)
    dtype = np.dtype([(k, v.dtype, v.shape[1:]) for k, v in columns.items()])
    result = np.empty(len(table), dtype=dtype)
    for name, values in columns.items():
        result[name] = values
    return result


def native_field(
    table: NDArray[Any], name: str, shape: tuple[int, ...] = ()
) -> NDArray[Any]:
    """Return a field of numbers, NaN among them, in their own type.

    An array by itself, in the byte order of the machine: PyTorch takes neither the rows
    of a table, which lie apart in memory, nor another byte order.

    Raises
    ------
    InputError
        If its type or shape is another one.
    """
    values = table[name]
    if values.dtype.kind not in "iufb" or values.shape[1:] != shape:
        expected = f"{math.prod(shape)} numbers" if shape else "a number"
        raise InputError(
            f"{name} must hold {expected} per particle, found {values.dtype.name} of "
            f"shape {values.shape[1:]}. Is it a table of particles?"
        )
    return np.array(values, dtype=values.dtype.newbyteorder("="), order="C")


def number_field(
    table: NDArray[Any], name: str, shape: tuple[int, ...] = ()
) -> NDArray[np.float64]:
    """Return a field as finite numbers, each row of one shape.

    Raises
    ------
    InputError
        If its type or shape is another one, or a value is not finite.
    """
    values = native_field(table, name, shape).astype(np.float64)
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise InputError(
            f"{name} must hold finite numbers, but row {bad[0] + 1} holds "
            f"{values[bad[0]]} ({len(bad)} such rows). Remove or correct these rows."
        )
    return values


def integer_field(table: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return a field as integers; see :func:`number_field`."""
    values = number_field(table, name)
    bad = np.flatnonzero(~are_whole(values))
    if len(bad):
        raise InputError(
            f"{name} must hold whole numbers, but row {bad[0] + 1} holds "
            f"{values[bad[0]]:g} ({len(bad)} such rows). Remove or correct these rows."
        )
    return values.astype(np.int64)


def text_field(table: NDArray[Any], name: str) -> NDArray[Any]:
    """Return a field as text, whatever bytes it holds.

    Raises
    ------
    InputError
        If it holds something else.
    """
    values = table[name]
    if values.dtype.kind not in "SU" or values.ndim != 1:
        raise InputError(
            f"{name} must hold one text per particle, found {values.dtype.name} of "
            f"shape {values.shape[1:]}. Is it a table of particles?"
        )
    words, inverse = np.unique(values, return_inverse=True)
    text = [
        decode(w if isinstance(w, bytes) else w.encode("utf-8", "surrogatepass"))
        for w in words.tolist()
    ]
    return np.array(text, dtype=STRING)[inverse.reshape(-1)]


def bytes_of_text(words: NDArray[Any]) -> NDArray[np.bytes_]:
    """Return text as cryoSPARC stores it."""
    return np.array([encode(str(word)) for word in words.tolist()], dtype=np.bytes_)


def make_uids(
    paths: Sequence[str], path_index: NDArray[np.int64], row: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return numbers that tell images apart, made from their names.

    Parameters
    ----------
    paths : sequence of str
    path_index : array, shape (n,)
        Into ``paths``.
    row : array, shape (n,)
        Image of the file.
    """
    seeds = [
        int.from_bytes(hashlib.blake2b(encode(path), digest_size=8).digest(), "little")
        for path in paths
    ]
    # An odd multiplier permutes the 64-bit integers: no two rows of a file collide.
    uids = np.array(seeds, dtype=np.uint64)[path_index]
    uids = uids + row.astype(np.uint64) * _ODD
    while len(np.unique(uids)) < len(uids):
        order = np.argsort(uids, kind="stable")
        repeated = order[1:][uids[order[1:]] == uids[order[:-1]]]
        uids[repeated] += np.uint64(1)
    return uids


def field_names(table: NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the fields, none for a plain array."""
    return table.dtype.names or ()


def _load(path: Path) -> NDArray[Any]:
    require_file(path, "cryoSPARC file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of headers of old versions
            # Mapped first: what a damaged header promises is compared with the file.
            table = np.array(
                np.lib.format.open_memmap(
                    path, mode="r", max_header_size=_MAX_HEADER_CHARACTERS
                )
            )
    except Exception as error:  # whatever NumPy, Python's parser among it, makes of it
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{path} is not a cryoSPARC .cs table: {str(error)[:200]}"
        ) from error
    if table.dtype.names is None or table.ndim != 1:
        raise InputError(
            f"{path} is not a cryoSPARC .cs table: it has no fields, or no rows of them"
        )
    return table


def _has_uids(table: NDArray[Any]) -> bool:
    if "uid" not in field_names(table):
        return False
    return table["uid"].dtype.kind in "iu" and table["uid"].ndim == 1


def _merge(table: NDArray[Any], other: NDArray[Any], path: Path) -> NDArray[Any]:
    """Add the fields that only ``other`` has, matching rows by uid."""
    if not (_has_uids(table) and _has_uids(other)):
        raise InputError(f"Cannot merge {path}: one of the tables has no uid")
    order = np.argsort(other["uid"], kind="stable")
    found = np.searchsorted(other["uid"], table["uid"], sorter=order)
    row = order[np.minimum(found, len(order) - 1)] if len(order) else found
    if len(order) == 0 or not np.array_equal(other["uid"][row], table["uid"]):
        raise InputError(
            f"The passthrough {path} does not hold every particle. "
            "Give the one of the same job and output group with --passthrough."
        )
    new = [name for name in field_names(other) if name not in field_names(table)]
    return with_fields(table, {name: other[name][row] for name in new})
