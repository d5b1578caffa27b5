"""A process that reads a trajectory for another: the readers are C, and trust files.

A damaged XTC file makes its reader write where it may not, which ends a process in any
way or in none. The parent, :mod:`cryoinfer.io.trajectories`, then hears nothing more.
"""

import os
import struct
import sys
from typing import BinaryIO

import numpy as np

HEAD = struct.Struct("<iii")
"""Before each chunk: frames, atoms, and how many numbers of a cell a frame has (none,
six of lengths and angles, nine of vectors)."""

END, FAILED = 0, -1  # in the place of a number of frames

_CHUNK = 100  # frames


def read(kind: str, path: str, out: BinaryIO) -> None:
    """Write the frames of a DCD or XTC file to a pipe, in the format's own units."""
    from mdtraj.formats import DCDTrajectoryFile, XTCTrajectoryFile

    reader = XTCTrajectoryFile if kind == ".xtc" else DCDTrajectoryFile
    with reader(path) as file:
        while True:
            places, *others = file.read(n_frames=_CHUNK)
            if not len(places):
                break
            cells = _cells(kind, others)
            out.write(HEAD.pack(*places.shape[:2], cells.shape[1]))
            out.write(np.ascontiguousarray(places, dtype="<f4").tobytes())
            out.write(np.ascontiguousarray(cells, dtype="<f8").tobytes())
    out.write(HEAD.pack(END, 0, 0))


def _cells(kind: str, others: list[np.ndarray | None]) -> np.ndarray:
    """Return the numbers of each frame's cell; of no columns where there is none."""
    if kind == ".xtc":
        box = others[2]
        return np.zeros((0, 0)) if box is None else box.reshape(len(box), 9)
    lengths, angles = others
    if lengths is None or angles is None:
        return np.zeros((0, 0))
    return np.concatenate([lengths, angles], 1)


def main() -> None:
    """Read what the command line names; what C prints is thrown away."""
    kind, path = sys.argv[1:]
    with os.fdopen(os.dup(1), "wb") as out:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        try:
            read(kind, path, out)
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            said = str(error).encode()
            out.write(HEAD.pack(FAILED, len(said), 0) + said)


if __name__ == "__main__":
    main()
