"""What simulated particles show: a structure, still, along modes or along a path."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.examples import named_atoms, named_atoms_kept
from cryoinfer.data.motions import Motion, farthest_reach, moving_atoms
from cryoinfer.io.trajectories import read_frames
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.physics.structures.path import AtomsOnPath

FRAME = "cryoinferFrame"
"""Column of the frame that a particle shows, from 1."""


@dataclass(frozen=True)
class Shown:
    """A structure to simulate, centred on the mean of its atoms.

    Attributes
    ----------
    structure : GaussianAtoms, MovingAtoms or AtomsOnPath
    motions : tuple of Motion
        Of :class:`MovingAtoms`.
    reach_angstrom : float
        How far from the centre any atom comes.
    """

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
    ) -> "Shown":
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
        model = named_atoms(name)
        coordinates = torch.from_numpy(model.coordinates_angstrom)
        coordinates = coordinates - coordinates.mean(0)
        atoms = GaussianAtoms.from_elements(
            coordinates.float(), model.elements, b_factor_angstrom2
        )
        if trajectory is not None:
            frames = read_frames(trajectory, named_atoms_kept(name))
            placed = superposed(torch.from_numpy(frames), coordinates).float()
            reach = float(placed.norm(dim=2).max())
            return cls(AtomsOnPath(atoms, placed), (), reach)
        if motions:
            moving = moving_atoms(model, atoms, motions)
            return cls(moving, tuple(motions), farthest_reach(moving, motions))
        return cls(atoms, (), float(coordinates.norm(dim=1).max()))

    @property
    def at_rest(self) -> GaussianAtoms:
        """The structure as it was given."""
        if isinstance(self.structure, GaussianAtoms):
            return self.structure
        atoms = self.structure.atoms
        assert isinstance(atoms, GaussianAtoms)
        return atoms

    def draw(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Draw conformations of n particles, shape (n, c).

        Amplitudes of the modes, or numbers of frames, all alike likely.
        """
        if isinstance(self.structure, AtomsOnPath):
            count = len(self.structure.frames)
            return torch.randint(count, (n, 1), generator=generator).double()
        if not self.motions:
            return None
        return torch.stack([one.draw(n, generator) for one in self.motions], 1)

    def columns(self, conformation: Tensor | None) -> dict[str, NDArray[np.generic]]:
        """Return conformations in columns of a particle file."""
        if conformation is None:
            return {}
        if isinstance(self.structure, AtomsOnPath):
            return {FRAME: conformation[:, 0].long().numpy() + 1}
        return {
            f"cryoinferMode{motion.mode}Angst": conformation[:, column].numpy()
            for column, motion in enumerate(self.motions)
        }


def superposed(frames: Tensor, coordinates: Tensor) -> Tensor:
    """Return frames turned and moved to lie on a structure, float64, (f, a, 3).

    By least squares over all atoms, so that poses mean the same in every frame.

    Parameters
    ----------
    frames : Tensor, shape (f, a, 3)
    coordinates : Tensor, shape (a, 3)
    """
    onto = coordinates.double()
    found = []
    for frame in frames.double():
        rotation, translation = roma.rigid_points_registration(frame, onto)
        found.append(frame @ rotation.mT + translation)
    return torch.stack(found)
