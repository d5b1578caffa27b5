"""Fields of cryoSPARC's tables that the program can do without, as far as they go."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import (
    bytes_of_text,
    field_names,
    native_field,
    text_field,
)

RESULT_GROUP = "cryoinfer/"
"""Before the names of results that this program has written."""


def result_fields(fields: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the results of a table by their names, those with one value a particle."""
    names = [name for name in field_names(fields) if name.startswith(RESULT_GROUP)]
    found = {name: _result(fields, name) for name in names}
    return {
        name.removeprefix(RESULT_GROUP): values
        for name, values in found.items()
        if values is not None
    }


def _result(fields: NDArray[Any], name: str) -> NDArray[Any] | None:
    values = understood(native_field, fields, name)
    return understood(text_field, fields, name) if values is None else values


def understood(
    read: Callable[[NDArray[Any], str], NDArray[Any]], fields: NDArray[Any], name: str
) -> NDArray[Any] | None:
    """Return a field, None where it is absent or holds something else."""
    try:
        return read(fields, name) if name in field_names(fields) else None
    except InputError:
        return None


def storable(values: NDArray[Any]) -> NDArray[Any]:
    """Return a column as a table stores it."""
    return bytes_of_text(values) if values.dtype.kind in "OTU" else values
