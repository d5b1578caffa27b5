"""Motions of simulated particles along the normal modes of their structure."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from cryoinfer.data.nodes import Nodes
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.elastic import ElasticNetwork
from cryoinfer.physics.structures.moving import MovingAtoms

_NUMBER = r"\s*(-?\d+(?:\.\d*)?|-?\.\d+)\s*"
_SPELLING = re.compile(rf"\s*(\d+)\s*:\s*([NU])\({_NUMBER},{_NUMBER}\)\s*")
_WIDEST_SDS = 3.0


@dataclass(frozen=True)
class Motion:
    """How the amplitudes along one mode are distributed.

    Attributes
    ----------
    mode : int
        From 1, the softest.
    law : "normal" or "uniform"
    first_angstrom, second_angstrom : float
        Mean and standard deviation, or the ends of the interval: root mean square
        displacement of the nodes.
    """

    mode: int
    law: Literal["normal", "uniform"]
    first_angstrom: float
    second_angstrom: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a motion such as ``1:N(0,2)`` or ``2:U(-3,3)``.

        Raises
        ------
        InputError
            If it is spelled otherwise, or the spread is negative.
        """
        found = _SPELLING.fullmatch(text)
        if found is None:
            raise InputError(
                f"expected a motion such as 1:N(0,2), mode 1 with mean 0 and sd 2 A, "
                f"or 2:U(-3,3), mode 2 evenly from -3 to 3 A; found {text!r}"
            )
        mode, letter, first, second = found.groups()
        motion = cls(
            int(mode),
            "normal" if letter == "N" else "uniform",
            float(first),
            float(second),
        )
        if motion.mode < 1:
            raise InputError(f"modes are numbered from 1, found {text!r}")
        if motion.law == "normal" and motion.second_angstrom < 0:
            raise InputError(f"a standard deviation is 0 or more, found {text!r}")
        if motion.law == "uniform" and motion.second_angstrom < motion.first_angstrom:
            raise InputError(f"the ends of an interval ascend, found {text!r}")
        return motion

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return amplitudes in angstrom, shape (count,)."""
        if self.law == "normal":
            normal = torch.randn(count, generator=generator, dtype=torch.float64)
            return self.first_angstrom + self.second_angstrom * normal
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        width = self.second_angstrom - self.first_angstrom
        return self.first_angstrom + width * uniform

    def ends_angstrom(self) -> tuple[float, float]:
        """Return amplitudes that few or none lie beyond."""
        if self.law == "normal":
            wide = _WIDEST_SDS * self.second_angstrom
            return self.first_angstrom - wide, self.first_angstrom + wide
        return self.first_angstrom, self.second_angstrom


def moving_atoms(
    model: AtomicModel, atoms: GaussianAtoms, motions: Sequence[Motion]
) -> MovingAtoms:
    """Return the atoms of a model with the modes that some motions name.

    Residues move with their nodes, in the elastic network of the default cutoff.

    Parameters
    ----------
    model : AtomicModel
    atoms : GaussianAtoms
        The same atoms.
    motions : sequence of Motion
        One a mode.

    Raises
    ------
    InputError
        If a mode is named twice, or the structure has no such modes.
    """
    numbers = [motion.mode for motion in motions]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"expected one motion a mode, found modes {numbers}")
    nodes = Nodes.of_model(model)
    network = ElasticNetwork.between(nodes.coordinates_angstrom(model))
    modes = network.normal_modes(max(numbers))
    chosen = torch.tensor(numbers) - 1
    direction = nodes.extended(modes.per_angstrom()[chosen], model)
    return MovingAtoms(atoms, direction)


def farthest_reach(moving: MovingAtoms, motions: Sequence[Motion]) -> float:
    """Return how far from the origin any atom comes, in angstrom.

    With all modes at one end or the other of their motions.
    """
    farthest = 0.0
    for ends in itertools.product(*(motion.ends_angstrom() for motion in motions)):
        moved = moving.at(torch.tensor(ends)).coordinates_angstrom
        farthest = max(farthest, float(moved.norm(dim=1).max()))
    return farthest
