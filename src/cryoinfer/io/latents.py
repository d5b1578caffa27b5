"""Tables of numbers, a row a particle: parquet files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray


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
