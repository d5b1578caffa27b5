"""Atoms that move along the normal modes of an elastic network."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Pose


@dataclass(frozen=True)
class MovingAtoms:
    """Atoms, and the ways in which they move.

    A :class:`cryoinfer.interfaces.MovingStructure`. Displacements are straight: beyond
    a few angstrom they stretch bonds, which maps of some angstrom do not show.

    Attributes
    ----------
    atoms : GaussianAtoms
        At rest.
    direction : Tensor, shape (k, a, 3)
        Displacement of every atom for an amplitude of 1 angstrom.
    """

    atoms: GaussianAtoms
    direction: Tensor

    def at(self, conformation: Tensor) -> GaussianAtoms:
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
