"""A part of a model that turns about a hinge, as the Fab of an antibody does."""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
import roma
import torch
from numpy.typing import NDArray

from cryoinfer.data.model_parts import ModelParts
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel

_SPELLING = re.compile(
    r"(.+?)\s+about\s+(\S+)\s+(\S+)\s+by\s+(-?\d+(?:\.\d+)?)(?:\s+in\s+(\d+))?"
)
_STEP_DEGREES = 2.0
"""Between frames of a turn without steps: a chord is 0.015 % shorter than its arc."""

_WHOLE = 360.0
_MOST_CONFORMATIONS = 10_000
_LEAST_APART_ANGSTROM = 1.0


@dataclass(frozen=True)
class Turn:
    """Which part turns about which axis, and how far.

    Attributes
    ----------
    parts : ModelParts
        That turn.
    hinge : tuple of two ModelParts
        The axis goes from the middle of the one to the middle of the other.
    degrees : float
        How far, right-handed along the axis.
    conformations : int or None
        Of which particles show one each, evenly apart; None for any angle.
    """

    parts: ModelParts
    hinge: tuple[ModelParts, ModelParts]
    degrees: float
    conformations: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a turn such as ``A:1-230, B about A:230 A:240 by 360 in 100``.

        Raises
        ------
        InputError
            If it is spelled otherwise, or says nothing that can turn.
        """
        found = _SPELLING.fullmatch(text.strip())
        if found is None:
            raise InputError(
                'expected a turn such as "A:1-230, B about A:230 A:240 by 360 in 100": '
                "what turns, two residues on the axis, degrees, and, where there are "
                f"to be steps, how many conformations; found {text!r}"
            )
        parts, one, other, degrees, count = found.groups()
        turn = cls(
            ModelParts.parse(parts),
            (ModelParts.parse(one), ModelParts.parse(other)),
            float(degrees),
            None if count is None else int(count),
        )
        if not 0 < abs(turn.degrees) <= _WHOLE:
            raise InputError(f"a turn is up to 360 degrees and not 0, found {text!r}")
        if turn.conformations is not None and not (
            2 <= turn.conformations <= _MOST_CONFORMATIONS
        ):
            raise InputError(
                f"a turn has 2 to {_MOST_CONFORMATIONS:,} conformations, found {text!r}"
            )
        return turn

    def angles_degrees(self) -> NDArray[np.float64]:
        """Return the angle of every frame, from 0.

        Both ends are among them, but for steps of a whole turn, whose ends are one.
        """
        if self.conformations is None:
            steps = int(np.ceil(abs(self.degrees) / _STEP_DEGREES))
            return np.linspace(0, self.degrees, steps + 1)
        is_whole = abs(self.degrees) == _WHOLE
        return np.linspace(0, self.degrees, self.conformations, endpoint=not is_whole)

    def frames(self, model: AtomicModel, name: str) -> NDArray[np.float64]:
        """Return where the atoms of a model are in every frame, shape (f, a, 3).

        Parameters
        ----------
        model : AtomicModel
        name : str
            Of the model, for messages.

        Raises
        ------
        InputError
            If the model lacks something of it, or the hinge is a point.
        """
        at = model.coordinates_angstrom
        turning = self.parts.rows(model, name)
        start, end = (at[one.rows(model, name)].mean(0) for one in self.hinge)
        length = float(np.linalg.norm(end - start))
        if length < _LEAST_APART_ANGSTROM:
            raise InputError(
                f"an axis goes through two residues, found {self.hinge[0]} and "
                f"{self.hinge[1]}, {length:.1f} A apart in {name}"
            )
        if turning.all():
            raise InputError(
                f"all of {name} would turn ({self.parts}), which is a pose and no "
                "conformation: name a part of it"
            )
        axis = (end - start) / length
        vectors = np.radians(self.angles_degrees())[:, None] * axis
        rotation = roma.rotvec_to_rotmat(torch.from_numpy(vectors)).numpy()
        frames = np.repeat(at[None], len(rotation), 0)
        frames[:, turning] = (at[turning] - start) @ rotation.transpose(0, 2, 1) + start
        return frames
