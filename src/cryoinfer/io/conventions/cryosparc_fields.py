"""Fields of cryoSPARC's tables that the program can do without, as far as they go."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.io.conventions.table import Halves, is_result
from cryoinfer.io.cryosparc import (
    bytes_of_text,
    field_names,
    integer_field,
    native_field,
    number_field,
    text_field,
)

SPLIT, CLASS = "alignments3D/split", "alignments3D/class"
RESULT_GROUP = "cryoinfer/"
"""Before the names of results that this program has written."""


def result_fields(fields: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the results of a table by their names, those with one value a particle.

    Others of the group stay in the table: a column of STAR files that is none of a
    result, such as the name of the image, must not take the place of the real one.
    """
    found = {}
    for name in field_names(fields):
        label = name.removeprefix(RESULT_GROUP)
        if label == name or not is_result(label):
            continue
        values = understood(native_field, fields, name)
        if values is None:
            values = understood(text_field, fields, name)
        if values is not None:
            found[label] = values
    return found


def split_halves(fields: NDArray[Any]) -> Halves:
    """Return the halves of the data, none where a table does not tell them."""
    # Until a refinement splits the data every particle is in half 0.
    if SPLIT not in field_names(fields) or not np.any(fields[SPLIT]):
        return Halves()
    try:
        return Halves.of(SPLIT, number_field(fields, SPLIT), 0)
    except InputError as error:
        return Halves(remark=f"{error} Halves are drawn at random instead.")


def class_numbers(fields: NDArray[Any]) -> Tensor | None:
    """Return classes from 1, None where they cannot be understood."""
    label = understood(integer_field, fields, CLASS)
    return None if label is None or label.min() < 0 else torch.from_numpy(label + 1)


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
