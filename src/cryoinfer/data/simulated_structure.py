"""What simulated particles show: a structure, still, along modes or along a path."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.examples import named_structure
from cryoinfer.data.motions import Motion, farthest_reach, moving_atoms
from cryoinfer.data.simulated_path import PathSource, SimulatedPath
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.physics.structures.path import AtomsOnPath


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
    path : SimulatedPath, optional
        Of :class:`AtomsOnPath`.
    """

    model: AtomicModel
    structure: GaussianAtoms | MovingAtoms | AtomsOnPath
    motions: tuple[Motion, ...]
    reach_angstrom: float
    path: SimulatedPath | None = None

    @classmethod
    def of(
        cls,
        name: str,
        b_factor_angstrom2: float,
        motions: Sequence[Motion] = (),
        path: PathSource | None = None,
    ) -> "SimulatedStructure":
        """Return what a simulation is asked to show.

        Parameters
        ----------
        name : str
            What :func:`cryoinfer.data.examples.named_atoms` takes.
        b_factor_angstrom2 : float
        motions : sequence of Motion
            Along normal modes.
        path : PathSource, optional
            In the place of ``motions``.

        Raises
        ------
        InputError
            If structure or path cannot be used.
        """
        given = named_structure(name)
        model = given.model
        coordinates = torch.from_numpy(model.coordinates_angstrom)
        centre = coordinates.mean(0)
        coordinates = coordinates - centre
        atoms = GaussianAtoms.from_elements(
            coordinates.float(), model.elements, b_factor_angstrom2
        )
        if path is not None:
            found = path.read(given, name)
            placed = (torch.from_numpy(found.frames) - centre).float()
            reach = float(placed.norm(dim=2).max())
            return cls(model, AtomsOnPath(atoms, placed), (), reach, found)
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

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw conformations of n particles.

        Returns
        -------
        Tensor, shape (n, c)
            Amplitudes of the modes, or the place on the path.
        Tensor of int64, shape (n,), or None
            Which term of the path's density each is of, if there are several.
        """
        if self.path is not None:
            return self.path.draw(n, generator)
        if not self.motions:
            return torch.zeros(n, 0, dtype=torch.float64), None
        return torch.stack([one.draw(n, generator) for one in self.motions], 1), None

    def columns(self, conformation: Tensor) -> dict[str, NDArray[np.generic]]:
        """Return conformations in columns of a particle file."""
        if self.path is not None:
            return self.path.told(conformation[:, 0])
        return {
            f"cryoinferMode{motion.mode}Angst": conformation[:, column].numpy()
            for column, motion in enumerate(self.motions)
        }
