"""Read the frames of a molecular dynamics trajectory."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io import trajectory_child
from cryoinfer.io.atom_columns import Cell
from cryoinfer.io.atom_files import read_atom_file
from cryoinfer.io.atoms import KeptAtoms
from cryoinfer.io.files import require_file
from cryoinfer.io.places import FARTHEST_ANGSTROM
from cryoinfer.io.whole_files import require_whole_dcd, require_whole_xtc

_ANGSTROM_PER_NANOMETRE = 10.0
_MOST_BYTES = 4 << 30  # of the atoms that are kept
_OF_MODELS = (".pdb", ".ent", ".cif", ".mmcif", ".gz", ".bz2")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Frames:
    """Where atoms are in every frame of a trajectory.

    Attributes
    ----------
    coordinates_angstrom : ndarray of float32, shape (f, a, 3)
        (x, y, z).
    vectors_angstrom : ndarray of float64, shape (f, 3, 3), or None
        Of each frame's periodic cell, a row each; None where the file has none.
    """

    coordinates_angstrom: Floats
    vectors_angstrom: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.coordinates_angstrom)


Chunk = tuple[Floats, list[Cell | None]]


def read_frames(path: Path | str, kept: KeptAtoms) -> Frames:
    """Read where the atoms of a structure are in every frame.

    Parameters
    ----------
    path : path
        Ending in ``.dcd`` (CHARMM, NAMD) or ``.xtc`` (GROMACS), or an mmCIF or PDB
        file whose models are the frames, plain or gzipped.
    kept : KeptAtoms
        Atoms of the structure that the trajectory is of.

    Raises
    ------
    MissingFileError, InputError
        If the file is absent, cannot be read, is of another number of atoms, is cut
        short, holds coordinates that no atom can have, or more than memory.
    """
    path = Path(path)
    require_file(path, "trajectory")
    kind = path.suffix.lower()
    if kind in (".dcd", ".xtc"):
        chunks = _binary_chunks(path, kind)
    else:
        chunks = _models(path)
    frames: list[Floats] = []
    cells: list[Cell | None] = []
    size = 0
    for chunk, boxes in chunks:
        if chunk.shape[1] != kept.of:
            raise InputError(
                f"{path} has {chunk.shape[1]:,} atoms a frame, the structure "
                f"{kept.of:,}: expected the trajectory of that very file, hydrogens "
                "and waters included, in its order of atoms"
            )
        frames.append(chunk[:, kept.rows])
        cells += boxes
        size += frames[-1].nbytes
        if size > _MOST_BYTES:
            raise InputError(
                f"the frames of {path} take more than {_MOST_BYTES / 2**30:.0f} GiB: "
                "thin the trajectory out (mdconvert --stride, gmx trjconv -skip)"
            )
    if not frames:
        raise InputError(f"{path} holds no frames")
    found = np.concatenate(frames)
    placed = (np.abs(found) < FARTHEST_ANGSTROM).all((1, 2))
    if not placed.all():
        raise InputError(
            f"frame {int(placed.argmin()) + 1} of {path} holds coordinates that are "
            f"not finite, or farther than {FARTHEST_ANGSTROM:g} A from the origin: "
            "leave it out"
        )
    known = [cell.vectors_angstrom for cell in cells if cell is not None]
    return Frames(found, np.stack(known) if len(known) == len(found) else None)


def _binary_chunks(path: Path, kind: str) -> Iterator[Chunk]:
    """Yield frames of a DCD or XTC file, in angstrom, some at a time.

    Raises
    ------
    InputError
        If the file is cut short, or the process that reads it fails or dies.
    """
    try:
        (require_whole_xtc if kind == ".xtc" else require_whole_dcd)(path)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
    command = [sys.executable, "-P", trajectory_child.__file__, kind, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            yield from _received(child.stdout, kind)
        except ValueError as error:
            raise InputError(
                f"{path} cannot be read as a {kind[1:].upper()} trajectory, or is cut "
                f"short or damaged: {error}"
            ) from error
        finally:
            child.kill()


def _received(pipe: IO[bytes], kind: str) -> Iterator[Chunk]:
    """Yield what :mod:`cryoinfer.io.trajectory_child` sends.

    Raises
    ------
    ValueError
        If it failed or died.
    """
    while True:
        frames, atoms, numbers = trajectory_child.HEAD.unpack(
            _exactly(pipe, trajectory_child.HEAD.size)
        )
        if frames == trajectory_child.END:
            return
        if frames == trajectory_child.FAILED:
            raise ValueError(_exactly(pipe, atoms).decode("utf-8", "replace"))
        places = np.frombuffer(_exactly(pipe, 12 * frames * atoms), "<f4")
        places = places.reshape(frames, atoms, 3).astype(np.float32)
        cells = np.frombuffer(_exactly(pipe, 8 * frames * numbers), "<f8")
        cells = cells.reshape(frames, numbers)
        if kind == ".xtc":
            places *= np.float32(_ANGSTROM_PER_NANOMETRE)
        yield places, [_cell(row) for row in cells] if numbers else []


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    found = pipe.read(count)
    if len(found) < count:
        raise ValueError("its reader broke off")
    return found


def _cell(numbers: NDArray[np.float64]) -> Cell | None:
    """Return the cell of a frame: lengths and angles, or vectors in nanometres."""
    if len(numbers) == 6:
        return Cell.of_lengths(tuple(numbers.tolist()), "")
    return Cell.of_vectors(numbers.reshape(3, 3) * _ANGSTROM_PER_NANOMETRE)


def _models(path: Path) -> Iterator[Chunk]:
    """Yield the models of a coordinate file as frames."""
    try:
        file = read_atom_file(path)
    except InputError as error:
        if path.suffix.lower() in _OF_MODELS:
            raise
        raise InputError(
            f"{path}: expected a trajectory as .dcd or .xtc, or an mmCIF or PDB file "
            f"of several models, found {path.suffix or 'no ending'} and neither of "
            "these inside. Convert it (mdconvert -o x.dcd, gmx trjconv -o x.xtc)"
        ) from error
    first = len(file.coordinates_angstrom[0])
    cell = file.cell if file.cell is not None and file.cell.alone else None
    for number, places in enumerate(file.coordinates_angstrom, 1):
        if len(places) != first:
            raise InputError(
                f"model {number} of {path} has {len(places):,} atoms, the first "
                f"{first:,}: expected the same atoms in all. Is the file cut short?"
            )
        yield places.astype(np.float32)[None], [cell]
