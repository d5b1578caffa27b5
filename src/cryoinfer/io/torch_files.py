"""Tensors, numbers and strings in one file, which tells when it was damaged.

PyTorch's files are zip archives with a checksum of every tensor, which it does not
look at when it reads them: a bit that has turned would be a wrong number, unsaid.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cryoinfer.errors import InputError, is_out_of_memory


def write_values(path: Path, values: Mapping[str, object]) -> None:
    """Write values under their names.

    Raises
    ------
    OSError
        If they cannot be written, such as on a full disk.
    """
    file = _Remembering(path)
    try:
        with file:
            torch.save(dict(values), file)
    except RuntimeError:
        # All that PyTorch says of a full disk is where it stood.
        if file.error is None:
            raise
        raise file.error from None


def read_values(path: Path) -> dict[str, Any]:
    """Read what :func:`write_values` has written.

    Raises
    ------
    OSError
        If the file cannot be reached.
    InputError
        If it is none of these, is cut short or damaged.
    """
    try:
        with path.open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise InputError(f"{path} is damaged")
            file.seek(0)
            values = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, InputError):
        raise
    except Exception as error:  # zip, pickle and torch have errors of their own
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path} is damaged, or cut short") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no values under names")
    return values


class _Remembering(io.FileIO):
    """A file that remembers why it could not be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it: the system may take less than that at once."""
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while left:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
            raise
        return count
