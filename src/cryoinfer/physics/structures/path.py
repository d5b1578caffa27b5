"""Atoms that move along a path of known conformations."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Pose


@dataclass(frozen=True)
class AtomsOnPath:
    """Atoms, and where they are in every frame of a trajectory.

    A :class:`cryoinfer.interfaces.MovingStructure`.

    Attributes
    ----------
    atoms : GaussianAtoms
        At rest.
    frames : Tensor, shape (f, a, 3)
        In angstrom, in the frame of reference of the atoms at rest.
    """

    atoms: GaussianAtoms
    frames: Tensor

    def at(self, conformation: Tensor) -> GaussianAtoms:
        """Return the atoms elsewhere on the path.

        Parameters
        ----------
        conformation : Tensor, shape (1,), or (n, 1) for one conformation an image
            Number of a frame, 0 to f - 1; between two, atoms are on the straight
            line from the one to the other.
        """
        last = len(self.frames) - 1
        place = conformation[..., 0].clamp(0, last)
        before = place.long().clamp(max=max(last - 1, 0))
        after = (before + 1).clamp(max=last)
        share = (place - before).to(self.frames)[..., None, None]
        moved = torch.lerp(self.frames[before], self.frames[after], share)
        return replace(self.atoms, coordinates_angstrom=moved)

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return the images of the atoms at rest; see :meth:`GaussianAtoms.project`."""
        return self.atoms.project(pose, box, pixel_size_angstrom)
