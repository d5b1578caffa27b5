"""Atoms that move along the normal modes of an elastic network."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.beads import GaussianBeads
from cryoinfer.records import Pose


@dataclass(frozen=True)
class MovingAtoms:
    """Atoms or beads, and the ways in which they move.

    A :class:`cryoinfer.interfaces.MovingStructure`. Displacements are straight: beyond
    a few angstrom they stretch bonds, which maps of some angstrom do not show.

    Attributes
    ----------
    atoms : GaussianAtoms or GaussianBeads
        At rest.
    direction : Tensor, shape (k, a, 3)
        Displacement of every atom for an amplitude of 1 angstrom.
    """

    atoms: GaussianAtoms | GaussianBeads
    direction: Tensor

    @property
    def coordinates(self) -> Tensor:
        """Of the atoms at rest, in angstrom, shape (a, 3)."""
        return self.atoms.coordinates_angstrom

    def scaled(self, gain: float) -> "MovingAtoms":
        """Return atoms that scatter as many times as strongly."""
        return replace(self, atoms=self.atoms.scaled(gain))

    def at(self, conformation: Tensor) -> GaussianAtoms | GaussianBeads:
        """Return the atoms elsewhere, differentiably in how far.

        Parameters
        ----------
        conformation : Tensor, shape (k,), or (n, k) for one conformation an image
            Amplitude along each mode: root mean square displacement in angstrom.
        """
        direction = self.direction.to(self.atoms.coordinates_angstrom)
        moved = torch.einsum("...k,kac->...ac", conformation.to(direction), direction)
        return replace(
            self.atoms, coordinates_angstrom=self.atoms.coordinates_angstrom + moved
        )

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return the images of the atoms at rest; see :meth:`GaussianAtoms.project`."""
        return self.atoms.project(pose, box, pixel_size_angstrom)
