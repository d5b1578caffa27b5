"""Read the frames of a molecular dynamics trajectory."""

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.atoms import KeptAtoms, read_models

_ANGSTROM_PER_NANOMETRE = 10.0
_CHUNK = 100  # frames that are held with all their atoms
_MOST_BYTES = 4 << 30  # of the atoms that are kept
_PROMISED = struct.Struct("4si")  # of a DCD file, behind the length of the first record


def read_frames(path: Path | str, kept: KeptAtoms) -> NDArray[np.float32]:
    """Read where the atoms of a structure are in every frame.

    Parameters
    ----------
    path : path
        Ending in ``.dcd`` (CHARMM, NAMD) or ``.xtc`` (GROMACS), or an mmCIF or PDB
        file whose models are the frames, plain or gzipped.
    kept : KeptAtoms
        Atoms of the structure that the trajectory is of.

    Returns
    -------
    ndarray of float32, shape (f, a, 3)
        (x, y, z) in angstrom, of the kept atoms.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent, cannot be read, is of another number of atoms, holds
        fewer frames than it promises or more than memory.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"No such trajectory: {path}")
    kind = path.suffix.lower()
    if kind in (".dcd", ".xtc"):
        chunks = _binary_chunks(path, kind)
    else:
        chunks = _models(path)
    frames, size = [], 0
    for chunk in chunks:
        if chunk.shape[1] != kept.of:
            raise InputError(
                f"{path} has {chunk.shape[1]:,} atoms a frame, the structure "
                f"{kept.of:,}: expected the trajectory of that very file, hydrogens "
                "and waters included, in its order of atoms"
            )
        frames.append(chunk[:, kept.rows])
        size += frames[-1].nbytes
        if size > _MOST_BYTES:
            raise InputError(
                f"the frames of {path} take more than {_MOST_BYTES / 2**30:.0f} GiB: "
                "thin the trajectory out (mdconvert --stride, gmx trjconv -skip)"
            )
    if not frames:
        raise InputError(f"{path} holds no frames")
    found = np.concatenate(frames)
    finite = np.isfinite(found).all((1, 2))
    if not finite.all():
        raise InputError(
            f"frame {int(finite.argmin()) + 1} of {path} holds coordinates that are "
            "not finite: leave it out"
        )
    return found


def _binary_chunks(path: Path, kind: str) -> Iterator[NDArray[np.float32]]:
    """Yield frames of a DCD or XTC file, in angstrom, some at a time."""
    # Loads for a quarter of a second, which only trajectories are to wait for.
    from mdtraj.formats import DCDTrajectoryFile, XTCTrajectoryFile

    reader, scale = DCDTrajectoryFile, 1.0
    if kind == ".xtc":
        reader, scale = XTCTrajectoryFile, _ANGSTROM_PER_NANOMETRE
    try:
        with contextlib.ExitStack() as stack:
            with _silent():
                file = stack.enter_context(reader(str(path)))
            if kind == ".dcd":
                _require_promised(path, len(file))
            while True:
                with _silent():
                    chunk = file.read(n_frames=_CHUNK)[0]
                if not len(chunk):
                    return
                yield np.asarray(chunk, dtype=np.float32) * np.float32(scale)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a {kind[1:].upper()} trajectory, or is cut "
            f"short: {error}"
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the C code of a reader from printing what it thinks of a file."""
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(nowhere)


def _require_promised(path: Path, held: int) -> None:
    """Refuse a DCD file that holds fewer frames than its header says.

    The reader would return those that are there.
    """
    with path.open("rb") as raw:
        head = raw.read(4 + _PROMISED.size)
    order = "<" if head[:4] == struct.pack("<i", 84) else ">"
    promised = struct.unpack_from(order + _PROMISED.format, head, 4)[1]
    if held < promised:
        raise InputError(
            f"the header of {path} promises {promised:,} frames, the file holds "
            f"{held:,}: it is cut short; copy it again, or write it anew"
        )


def _models(path: Path) -> Iterator[NDArray[np.float32]]:
    """Yield the models of a coordinate file as frames."""
    first = 0
    for number, model in enumerate(read_models(path), 1):
        places = [cra.atom.pos.tolist() for cra in model.all()]
        first = first or len(places)
        if len(places) != first:
            raise InputError(
                f"model {number} of {path} has {len(places):,} atoms, the first "
                f"{first:,}: expected the same atoms in all"
            )
        yield np.array(places, dtype=np.float32).reshape(1, -1, 3)
