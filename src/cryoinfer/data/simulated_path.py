"""Paths that simulated particles lie on: frames, and how far along each one is."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.examples import named_structure
from cryoinfer.data.frames import frames_of, superposed
from cryoinfer.data.given_structure import GivenStructure
from cryoinfer.data.path_density import PathDensity
from cryoinfer.data.turns import Turn
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel

FRAME = "cryoinferFrame"
"""Column of the frame that a particle shows, from 1."""

PATH = "cryoinferPath"
"""Column of how far along a path a particle is, from 0 to 1."""

TURN = "cryoinferTurnDegrees"
"""Column of how far a part has turned."""


@dataclass(frozen=True)
class PathSource:
    """Where the frames of a path come from: one of three.

    Attributes
    ----------
    trajectory : str or None
        Path of what :func:`cryoinfer.io.trajectories.read_frames` reads.
    to : str or None
        Another structure of the same atoms, to which these go straight.
    turn : Turn or None
    along : PathDensity or None
        How particles are distributed along it; None for all frames alike, or, where
        there is a way between frames, all places alike.
    """

    trajectory: str | None = None
    to: str | None = None
    turn: Turn | None = None
    along: PathDensity | None = None

    def read(self, given: GivenStructure, name: str) -> "SimulatedPath":
        """Return the path of a structure.

        Parameters
        ----------
        given : GivenStructure
        name : str
            Of the structure, for messages.

        Raises
        ------
        InputError
            If there is no such path.
        """
        model = given.model
        if self.trajectory is not None:
            frames = frames_of(self.trajectory, given.kept, model)
            return SimulatedPath(frames, FRAME, self.along is None, self.along)
        if self.to is not None:
            ends = np.stack([model.coordinates_angstrom, _end(model, self.to, name)])
            return SimulatedPath(ends, PATH, False, self.along)
        assert self.turn is not None
        frames = self.turn.frames(model, name)
        stepped = self.turn.conformations is not None
        angle = self.turn.angles_degrees()
        return SimulatedPath(frames, TURN, stepped, self.along, float(angle[-1]))


@dataclass(frozen=True)
class SimulatedPath:
    """Frames, and how particles are distributed over them.

    Attributes
    ----------
    frames : ndarray, shape (f, a, 3)
        In angstrom.
    column : str
        Of a particle file, in which places are told.
    stepped : bool
        Whether particles show frames and nothing between them.
    along : PathDensity or None
    degrees : float
        Angle of the last frame, of a turn.
    """

    frames: NDArray[np.float64]
    column: str
    stepped: bool
    along: PathDensity | None
    degrees: float = 0.0

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw numbers of frames of n particles, float64, and the terms of the density.

        Returns
        -------
        Tensor, shape (n, 1)
            From 0; between two frames no whole numbers.
        Tensor of int64, shape (n,), or None
            Which term of the density each is of, if there are several.
        """
        count = len(self.frames)
        if self.stepped:
            return torch.randint(count, (n, 1), generator=generator).double(), None
        if self.along is None:
            place = torch.rand(n, generator=generator, dtype=torch.float64)
            return place[:, None] * (count - 1), None
        place, term = self.along.draw(n, generator)
        several = len(self.along.terms) > 1
        return place[:, None] * (count - 1), term if several else None

    def told(self, frame: Tensor) -> dict[str, NDArray[np.generic]]:
        """Return places (n,) in a column of a particle file."""
        last = max(len(self.frames) - 1, 1)
        if self.column == TURN:
            return {TURN: (frame * (self.degrees / last)).numpy()}
        if self.column == PATH or not self.stepped:
            return {PATH: (frame / last).numpy()}
        return {FRAME: frame.long().numpy() + 1}


def same_atoms(one: AtomicModel, other: AtomicModel) -> bool:
    """Tell whether two models are of the same atoms, in one order."""
    return (
        one.atom_names == other.atom_names
        and one.residue_names == other.residue_names
        and one.residue_numbers == other.residue_numbers
    )


def laid_on(model: AtomicModel, onto: AtomicModel) -> NDArray[np.float64]:
    """Return where the atoms of a model are, superposed on the same ones of another."""
    frame = torch.from_numpy(model.coordinates_angstrom)[None]
    return superposed(frame, torch.from_numpy(onto.coordinates_angstrom))[0].numpy()


def _end(model: AtomicModel, to: str, name: str) -> NDArray[np.float64]:
    other = named_structure(to).model
    if not same_atoms(model, other):
        raise InputError(
            f"a path goes between two models of the same atoms in the same order: "
            f"{name} has {len(model):,} atoms, {to} {len(other):,}"
            + _first_difference(model, other)
        )
    return laid_on(other, model)


def _first_difference(model: AtomicModel, other: AtomicModel) -> str:
    labels = [
        [
            f"{name} of {residue} {number}"
            for name, residue, number in zip(
                one.atom_names, one.residue_names, one.residue_numbers, strict=True
            )
        ]
        for one in (model, other)
    ]
    for row, (first, second) in enumerate(zip(*labels, strict=False), 1):
        if first != second:
            return f", and atom {row:,} is {first} in the one, {second} in the other"
    return ""
