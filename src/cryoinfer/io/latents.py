"""Tables of numbers, a row a particle: parquet files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.files import require_file


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
    """Read a table of columns.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to array
        Columns of one length, in the order of the file; numbers that are missing are
        NaN.

    Raises
    ------
    MissingFileError, InputError
        If there is no such file, or it is damaged.
    """
    require_file(Path(path), "parquet file")
    try:
        table = pyarrow.parquet.read_table(path)
        return {
            name: table[name].to_numpy(zero_copy_only=False)
            for name in table.column_names
        }
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged, or no parquet file: expected a table, a row a "
            "particle. Copy it again, or make the run anew"
        ) from error
