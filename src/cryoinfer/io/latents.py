"""Tables of numbers, a row a particle: parquet files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.files import require_file
from cryoinfer.io.star_text import STRING


def write_columns(
    path: Path | str,
    columns: Mapping[str, NDArray[Any] | list[str]],
    notes: Mapping[str, str],
) -> None:
    """Write columns of one length, with notes in the file's metadata.

    Parameters
    ----------
    path : path
    columns : mapping of str to array or list of str
    notes : mapping of str to str
        What the columns are, by name.
    """
    table = pyarrow.table({name: pyarrow.array(one) for name, one in columns.items()})
    table = table.replace_schema_metadata(dict(notes))
    pyarrow.parquet.write_table(table, path)


def read_columns(path: Path | str) -> dict[str, NDArray[Any]]:
    """Read a table of numbers and names.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to array, shape (n,)
        Numbers in double precision, NaN where one is missing; names as text. Columns of
        other things are left out.

    Raises
    ------
    MissingFileError, InputError
        If it is absent, or is damaged.
    """
    require_file(Path(path), "table of latents")
    try:
        table = pyarrow.parquet.read_table(path)
        return {
            name: _array(column)
            for name, column in zip(table.column_names, table.columns, strict=True)
            if _is_number(column.type) or pyarrow.types.is_string(column.type)
        }
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged, or no parquet file: expected a table, a row a "
            "particle. Copy it again, or repeat the run"
        ) from error


def _is_number(kind: pyarrow.DataType) -> bool:
    kinds = pyarrow.types
    return bool(
        kinds.is_floating(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind)
    )


def _array(column: pyarrow.ChunkedArray) -> NDArray[Any]:
    if pyarrow.types.is_string(column.type):
        return np.array(column.fill_null("").to_pylist(), dtype=STRING)
    numbers = column.cast(pyarrow.float64())
    return np.asarray(numbers.fill_null(float("nan")).to_numpy())
