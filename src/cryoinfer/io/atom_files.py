"""Read coordinate files, whichever of the two formats they are in."""

import codecs
import io
import zlib
from pathlib import Path

import gemmi

from cryoinfer.errors import InputError
from cryoinfer.io import mmcif_atoms, pdb_atoms
from cryoinfer.io.atom_columns import AtomFile
from cryoinfer.io.compressed import opened
from cryoinfer.io.files import require_file


def read_atom_file(path: Path | str) -> AtomFile:
    """Read an mmCIF or PDB file, plain or compressed.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent, cannot be read, holds no atoms or a coordinate that is
        no number.
    """
    path = Path(path)
    require_file(path, "model")
    content = _content(path)
    start = _first_words(content)
    try:
        if start.startswith(b"{"):
            document = gemmi.cif.read_mmjson_string(content)
            return mmcif_atoms.read(document)
        if start.lower().startswith(b"data_"):
            return mmcif_atoms.read(gemmi.cif.read_string(content))
        return pdb_atoms.read(content)
    except (InputError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} is not an mmCIF or PDB model, or damaged: {error}"
        ) from error


def _first_words(content: bytes) -> bytes:
    """Return the first line that is neither empty nor a comment of mmCIF."""
    lines = (line.strip() for line in io.BytesIO(content))
    return next((line for line in lines if line and not line.startswith(b"#")), b"")


def _content(path: Path) -> bytes:
    """Return what a file holds, without the mark of UTF-8 that some editors write."""
    try:
        with opened(path) as file:
            return file.read().removeprefix(codecs.BOM_UTF8)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read, or is cut short: {error}. Copy it again."
        ) from error
