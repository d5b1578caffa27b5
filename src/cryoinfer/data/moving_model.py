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
from cryoinfer.physics.structures.deformation import carried, chain_network, restrained
from cryoinfer.physics.structures.elastic import ElasticNetwork, NormalModes
from cryoinfer.physics.structures.moving import MovingAtoms

_MOST_ATOMS = 30_000
"""Above it beads stand for the atoms throughout: slopes of an image would take a second
of a core."""

_RESTRAINT = 0.01
"""Towards straight displacements, over the stiffness of the chain: they are believed in
the large, and springs in what is near."""

_SYMMETRIC_ANGSTROM = 1.9
"""Half the distance between neighbours of a chain: nodes of a mate that are farther off
than that lie at random places of the model."""

_PIXELS_ACROSS = 4.0  # of a structure that is to move


@dataclass(frozen=True)
class MovingModel:
    """A model, centred on the mean of its atoms, and how it moves.

    Attributes
    ----------
    model : AtomicModel
        At rest, where the file has it.
    nodes : Nodes
    modes : NormalModes
        Of its elastic network, or learned.
    moving : MovingAtoms
        Single precision, centred.
    amplitude_sd_angstrom : tuple of float
        Spread of each amplitude before any image is seen.
    chain : ElasticNetwork
        Of neighbours along the chains, at rest in the file's structure.
    """

    model: AtomicModel
    nodes: Nodes
    modes: NormalModes
    moving: MovingAtoms
    amplitude_sd_angstrom: tuple[float, ...]
    chain: ElasticNetwork

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
        places = nodes.coordinates_angstrom(model)
        found = ElasticNetwork.between(places, cutoff_angstrom).normal_modes(modes)
        sd = found.amplitude_sd_angstrom(first_sd_angstrom)
        return cls(
            model,
            nodes,
            found,
            _moving(model, nodes, found),
            tuple(sd.tolist()),
            chain_network(
                places,
                [model.chain_names[row] for row in nodes.atom],
                [model.residue_numbers[row] for row in nodes.atom],
            ),
        )

    def learned(
        self,
        node_coordinates_angstrom: Tensor,
        direction: Tensor,
        amplitude_sd_angstrom: tuple[float, ...],
    ) -> Self:
        """Return a model at rest elsewhere, that moves otherwise.

        Parameters
        ----------
        node_coordinates_angstrom : Tensor of float64, shape (n, 3)
            Where the file has the model. Atoms ride on the nodes.
        direction : Tensor of float64, shape (k, n, 3)
            Displacement of the nodes along each mode, of unit length.
        amplitude_sd_angstrom : tuple of float
            Of each.
        """
        model = self._at_nodes(node_coordinates_angstrom)
        sd = torch.tensor(amplitude_sd_angstrom, dtype=torch.float64)
        # As stiff as thermal motions of that spread are.
        modes = NormalModes(1 / sd.square(), direction)
        return replace(
            self,
            model=model,
            modes=modes,
            moving=_moving(model, self.nodes, modes),
            amplitude_sd_angstrom=amplitude_sd_angstrom,
        )

    @property
    def reach_angstrom(self) -> float:
        """How far from the centre any atom is, at rest."""
        return float(self.moving.coordinates.norm(dim=1).max())

    def beads(self, resolution_angstrom: float) -> MovingAtoms:
        """Return a bead a residue, alike up to a resolution."""
        beads = GaussianBeads.fitted(
            self._atoms,
            torch.from_numpy(self.nodes.of_atom),
            resolution_angstrom,
            torch.Generator().manual_seed(0),
        )
        return self._along_modes(beads)

    def with_beads_of(self, others: MovingAtoms) -> MovingAtoms:
        """Return the beads of another conformation of the model in this one's places.

        That saves the seconds of a fit.
        """
        assert isinstance(others.atoms, GaussianBeads)
        of_atom = torch.from_numpy(self.nodes.of_atom)
        return self._along_modes(others.atoms.in_the_middle_of(self._atoms, of_atom))

    @property
    def _atoms(self) -> GaussianAtoms:
        atoms = self.moving.atoms
        assert isinstance(atoms, GaussianAtoms)
        return atoms

    def _along_modes(self, beads: GaussianBeads) -> MovingAtoms:
        # A bead lies in the middle of its atoms, and moves as they do.
        of_atom = torch.from_numpy(self.nodes.of_atom)
        return MovingAtoms(beads, averaged(self.moving.direction, of_atom))

    def finest(self, resolution_angstrom: float) -> MovingAtoms:
        """Return the atoms, or beads where there are too many."""
        few = len(self.model) <= _MOST_ATOMS
        return self.moving if few else self.beads(resolution_angstrom)

    @property
    def node_coordinates_angstrom(self) -> Tensor:
        """Of the model at rest, where the file has it, float64, shape (n, 3)."""
        return torch.from_numpy(self.nodes.coordinates_angstrom(self.model))

    def at(self, conformation: Tensor) -> AtomicModel:
        """Return the model in a conformation (k,), where the file has it.

        With chains whole: what images are compared with is stretched along straight
        lines, and of low resolution.
        """
        moved = self.modes.displacement_angstrom(conformation.double())
        target = self.node_coordinates_angstrom + moved
        return self._at_nodes(restrained(self.chain, target, _RESTRAINT))

    def departure_angstrom(self, other: "MovingModel") -> float:
        """Return the RMSD of the nodes to those of another model at rest."""
        away = self.node_coordinates_angstrom - other.node_coordinates_angstrom
        return float(away.square().sum(1).mean().sqrt())

    def _at_nodes(self, node_coordinates_angstrom: Tensor) -> AtomicModel:
        """Return the model with its atoms carried by the nodes."""
        coordinates = carried(
            torch.from_numpy(self.model.coordinates_angstrom),
            torch.from_numpy(self.nodes.of_atom),
            self.node_coordinates_angstrom,
            node_coordinates_angstrom,
        )
        return replace(self.model, coordinates_angstrom=coordinates.numpy())

    def require_symmetric(self, symmetry: str, rotations: Tensor) -> None:
        """Refuse a point group that the model at rest does not have.

        Parameters
        ----------
        symmetry : str
            Name of the group.
        rotations : Tensor, shape (s, 3, 3)

        Raises
        ------
        InputError
            If some mate of the nodes is far from all nodes.
        """
        places = self.node_coordinates_angstrom
        centred = places - places.mean(0)
        apart = max(
            float(torch.cdist(centred @ mate.double().mT, centred).amin(1).median())
            for mate in rotations
        )
        if apart > _SYMMETRIC_ANGSTROM:
            raise InputError(
                f"expected a model of the point group {symmetry} about the axes "
                "of its file (the highest along z), found residues that are "
                f"{apart:.1f} A "
                "(median) from those of a mate: give the symmetry of the model, or "
                "turn the model"
            )

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


def _moving(model: AtomicModel, nodes: Nodes, modes: NormalModes) -> MovingAtoms:
    """Return the atoms with the modes, centred."""
    coordinates = torch.from_numpy(model.coordinates_angstrom)
    coordinates = (coordinates - coordinates.mean(0)).float()
    atoms = GaussianAtoms.from_elements(coordinates, model.elements)
    direction = nodes.extended(modes.per_angstrom(), model)
    return MovingAtoms(atoms, direction.float())


def averaged(values: Tensor, of_atom: Tensor) -> Tensor:
    """Return the means (k, n, 3) over the atoms of every node of values (k, a, 3)."""
    count = int(of_atom.max()) + 1
    total = values.new_zeros(len(values), count, 3).index_add_(1, of_atom, values)
    members = torch.bincount(of_atom, minlength=count).to(values)
    return total / members[:, None]
