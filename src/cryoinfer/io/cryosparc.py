"""Read and write cryoSPARC's ``.cs`` tables: NumPy structured arrays with a uid."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError, MissingFileError, OutputError

# NumPy guards against crafted headers of text files; a .cs with hundreds of fields
# has an honest header beyond the default of 10,000 characters.
_MAX_HEADER_CHARACTERS = 1_000_000


def read_cs(path: Path | str, passthrough: Sequence[Path | str] = ()) -> NDArray[Any]:
    """Read a ``.cs`` table with the fields of its passthrough tables.

    Parameters
    ----------
    path : path
    passthrough : sequence of paths
        Tables that carry further fields of the same particles. Without any, the
        files ``*passthrough_particles*.cs`` beside ``path`` that hold every one of
        its particles are taken.

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
    table = _load(Path(path))
    if passthrough:
        for other_path in passthrough:
            table = _merge(table, _load(Path(other_path)), Path(other_path))
        return table
    for other_path in sorted(Path(path).parent.glob("*passthrough_particles*.cs")):
        other = _load(other_path)
        covers = "uid" in field_names(other) and "uid" in field_names(table)
        if covers and np.isin(table["uid"], other["uid"]).all():
            table = _merge(table, other, other_path)
    return table


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


def field_names(table: NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the fields, none for a plain array."""
    return table.dtype.names or ()


def _load(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise MissingFileError(f"No such cryoSPARC file: {path}")
    try:
        table = np.load(path, max_header_size=_MAX_HEADER_CHARACTERS)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a cryoSPARC .cs table: {error}") from error
    if not isinstance(table, np.ndarray) or table.dtype.names is None:
        raise InputError(f"{path} is not a cryoSPARC .cs table: it has no fields")
    return table


def _merge(table: NDArray[Any], other: NDArray[Any], path: Path) -> NDArray[Any]:
    """Add the fields that only ``other`` has, matching rows by uid."""
    for candidate in (table, other):
        if "uid" not in field_names(candidate):
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
