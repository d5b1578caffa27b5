"""An atomic model that moves: its atoms, the beads that stand for them, its modes."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cryoinfer.data.nodes import Nodes
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.beads import GaussianBeads
from cryoinfer.physics.structures.elastic import ElasticNetwork, NormalModes
from cryoinfer.physics.structures.moving import MovingAtoms

_MOST_ATOMS = 30_000
"""Above it beads stand for the atoms throughout: slopes of an image would take a second
of a core."""

_PIXELS_ACROSS = 4.0  # of a structure that is to move


@dataclass(frozen=True)
class MovingModel:
    """A model, centred on the mean of its atoms, and how it moves.

    Attributes
    ----------
    model : AtomicModel
        Its coordinates are those of the file.
    nodes : Nodes
    modes : NormalModes
        Of its elastic network.
    moving : MovingAtoms
        Single precision, centred.
    amplitude_sd_angstrom : tuple of float
        Spread of each amplitude before any image is seen.
    """

    model: AtomicModel
    nodes: Nodes
    modes: NormalModes
    moving: MovingAtoms
    amplitude_sd_angstrom: tuple[float, ...]

    @classmethod
    def of(
        cls,
        model: AtomicModel,
        modes: int,
        first_sd_angstrom: float,
        cutoff_angstrom: float = 15.0,
    ) -> Self:
        """Return a model with the softest modes of its network.

        Parameters
        ----------
        model : AtomicModel
        modes : int
        first_sd_angstrom : float
            Spread of the softest mode's amplitude; those of others go with the inverse
            root of their stiffness.
        cutoff_angstrom : float
            Length of the longest spring.

        Raises
        ------
        InputError
            If the model has no nodes, or its network no such modes.
        """
        nodes = Nodes.of_model(model)
        network = ElasticNetwork.between(
            nodes.coordinates_angstrom(model), cutoff_angstrom
        )
        found = network.normal_modes(modes)
        coordinates = torch.from_numpy(model.coordinates_angstrom)
        coordinates = (coordinates - coordinates.mean(0)).float()
        atoms = GaussianAtoms.from_elements(coordinates, model.elements)
        unit = found.displacement_angstrom(torch.eye(modes, dtype=torch.float64))
        moving = MovingAtoms(atoms, nodes.extended(unit).float())
        sd = found.amplitude_sd_angstrom(first_sd_angstrom)
        return cls(model, nodes, found, moving, tuple(sd.tolist()))

    @property
    def reach_angstrom(self) -> float:
        """How far from the centre any atom is, at rest."""
        return float(self.moving.coordinates.norm(dim=1).max())

    def beads(self, resolution_angstrom: float) -> MovingAtoms:
        """Return a bead a residue, alike up to a resolution."""
        atoms = self.moving.atoms
        assert isinstance(atoms, GaussianAtoms)
        beads = GaussianBeads.fitted(
            atoms,
            torch.from_numpy(self.nodes.of_atom),
            resolution_angstrom,
            torch.Generator().manual_seed(0),
        )
        rows = torch.from_numpy(self.nodes.atom)
        return MovingAtoms(beads, self.moving.direction[:, rows])

    def finest(self, resolution_angstrom: float) -> MovingAtoms:
        """Return the atoms, or beads where there are too many."""
        few = len(self.model) <= _MOST_ATOMS
        return self.moving if few else self.beads(resolution_angstrom)

    def at(self, conformation: Tensor) -> AtomicModel:
        """Return the model in a conformation (k,), where the file has it."""
        direction = self.moving.direction.double()
        moved = torch.einsum("k,kac->ac", conformation.double(), direction)
        coordinates = self.model.coordinates_angstrom + moved.numpy()
        return replace(self.model, coordinates_angstrom=coordinates)

    def require_imaged(self, box: int, pixel_size_angstrom: float) -> None:
        """Refuse images that the structure does not fit into, or is a dot in.

        Raises
        ------
        InputError
        """
        reach, side = self.reach_angstrom, box * pixel_size_angstrom
        if reach > side / 2:
            raise InputError(
                f"the structure reaches {reach:.1f} A from its centre, images of {box} "
                f"pixels of {pixel_size_angstrom:g} A only {side / 2:.1f} A: expected "
                "particles in a larger box, or a part of the structure"
            )
        spread = float(np.linalg.norm(self.moving.coordinates.std(0).numpy()))
        if 2 * spread < _PIXELS_ACROSS * pixel_size_angstrom:
            raise InputError(
                f"the structure is {2 * spread:.1f} A across, pixels are "
                f"{pixel_size_angstrom:g} A: expected {_PIXELS_ACROSS:g} pixels or "
                "more across it. Check the pixel size of the particles"
            )
