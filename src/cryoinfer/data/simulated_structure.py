"""What simulated particles show: a structure, still, along modes or along a path."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.examples import named_structure
from cryoinfer.data.frames import frames_of
from cryoinfer.data.motions import Motion, farthest_reach, moving_atoms
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.physics.structures.path import AtomsOnPath

FRAME = "cryoinferFrame"
"""Column of the frame that a particle shows, from 1."""


@dataclass(frozen=True)
class SimulatedStructure:
    """A structure to simulate, centred on the mean of its atoms.

    Attributes
    ----------
    model : AtomicModel
        As its file has it.
    structure : GaussianAtoms, MovingAtoms or AtomsOnPath
    motions : tuple of Motion
        Of :class:`MovingAtoms`.
    reach_angstrom : float
        How far from the centre any atom comes.
    """

    model: AtomicModel
    structure: GaussianAtoms | MovingAtoms | AtomsOnPath
    motions: tuple[Motion, ...]
    reach_angstrom: float

    @classmethod
    def of(
        cls,
        name: str,
        b_factor_angstrom2: float,
        motions: Sequence[Motion] = (),
        trajectory: str | None = None,
    ) -> "SimulatedStructure":
        """Return what a simulation is asked to show.

        Parameters
        ----------
        name : str
            What :func:`cryoinfer.data.examples.named_atoms` takes.
        b_factor_angstrom2 : float
        motions : sequence of Motion
            Along normal modes.
        trajectory : str, optional
            Path of what :func:`cryoinfer.io.trajectories.read_frames` reads, in the
            place of ``motions``.

        Raises
        ------
        InputError
            If structure or trajectory cannot be used.
        """
        given = named_structure(name)
        model = given.model
        coordinates = torch.from_numpy(model.coordinates_angstrom)
        centre = coordinates.mean(0)
        coordinates = coordinates - centre
        atoms = GaussianAtoms.from_elements(
            coordinates.float(), model.elements, b_factor_angstrom2
        )
        if trajectory is not None:
            frames = torch.from_numpy(frames_of(trajectory, given.kept, model))
            placed = (frames - centre).float()
            reach = float(placed.norm(dim=2).max())
            return cls(model, AtomsOnPath(atoms, placed), (), reach)
        if motions:
            moving = moving_atoms(model, atoms, motions)
            return cls(model, moving, tuple(motions), farthest_reach(moving, motions))
        return cls(model, atoms, (), float(coordinates.norm(dim=1).max()))

    @property
    def at_rest(self) -> GaussianAtoms:
        """The structure as it was given."""
        if isinstance(self.structure, GaussianAtoms):
            return self.structure
        atoms = self.structure.atoms
        assert isinstance(atoms, GaussianAtoms)
        return atoms

    @property
    def frames(self) -> int:
        """How many frames of a trajectory there are; 1 without one."""
        if not isinstance(self.structure, AtomsOnPath):
            return 1
        return len(self.structure.frames)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw conformations of n particles, shape (n, c).

        Amplitudes of the modes, or numbers of frames, all alike likely.
        """
        if isinstance(self.structure, AtomsOnPath):
            count = len(self.structure.frames)
            return torch.randint(count, (n, 1), generator=generator).double()
        if not self.motions:
            return torch.zeros(n, 0, dtype=torch.float64)
        return torch.stack([one.draw(n, generator) for one in self.motions], 1)

    def columns(self, conformation: Tensor) -> dict[str, NDArray[np.generic]]:
        """Return conformations in columns of a particle file."""
        if isinstance(self.structure, AtomsOnPath):
            return {FRAME: conformation[:, 0].long().numpy() + 1}
        return {
            f"cryoinferMode{motion.mode}Angst": conformation[:, column].numpy()
            for column, motion in enumerate(self.motions)
        }
