"""Read coordinate files, whichever of the two formats they are in."""

import gzip
import zlib
from pathlib import Path

import gemmi

from cryoinfer.errors import InputError
from cryoinfer.io import mmcif_atoms, pdb_atoms
from cryoinfer.io.atom_columns import AtomFile
from cryoinfer.io.files import require_file

_GZIP = b"\x1f\x8b"


def read_atom_file(path: Path | str) -> AtomFile:
    """Read an mmCIF or PDB file, plain or gzipped.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent, cannot be read, holds no atoms or a coordinate that is
        no number.
    """
    path = Path(path)
    require_file(path, "model")
    content = _content(path)
    start = content[:2000].lstrip()
    try:
        if start.startswith(b"{"):
            document = gemmi.cif.read_mmjson_string(content)
            return mmcif_atoms.read(document)
        words = [line for line in start.splitlines() if not line.startswith(b"#")]
        if words and words[0].lower().startswith(b"data_"):
            return mmcif_atoms.read(gemmi.cif.read_string(content))
        return pdb_atoms.read(content)
    except (InputError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} is not an mmCIF or PDB model, or damaged: {error}"
        ) from error


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read, or is cut short: {error}. Copy it again."
        ) from error
