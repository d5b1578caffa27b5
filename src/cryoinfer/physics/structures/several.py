"""Several structures in one set: what an image shows is one of them, or no particle."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.interfaces import MovingStructure, Structure
from cryoinfer.records import Pose


@dataclass(frozen=True)
class SeveralStructures:
    """Structures of which each image shows one.

    A :class:`cryoinfer.interfaces.MovingStructure`.

    Attributes
    ----------
    members : tuple of Structure or MovingStructure
    """

    members: tuple[Structure | MovingStructure, ...]

    def at(self, conformation: Tensor) -> "ChosenStructures":
        """Return what n images show.

        Parameters
        ----------
        conformation : Tensor, shape (n, 1 + c)
            Number of the member, from 0, and the conformation of members that have one.
        """
        return ChosenStructures(
            self.members, conformation[:, 0].long(), conformation[:, 1:]
        )

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return images of the first of them."""
        return self.members[0].project(pose, box, pixel_size_angstrom)


@dataclass(frozen=True)
class ChosenStructures:
    """What each of n images shows: a :class:`cryoinfer.interfaces.Structure`.

    Attributes
    ----------
    members : tuple of Structure or MovingStructure
    number : Tensor of int64, shape (n,)
        Of the member, from 0.
    conformation : Tensor, shape (n, c)
        Of members that have one.
    """

    members: tuple[Structure | MovingStructure, ...]
    number: Tensor
    conformation: Tensor

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return the images without CTF, shape (n, box, box)."""
        parts, rows = [], []
        for number in self.number.unique().tolist():
            chosen = torch.nonzero(self.number == number).squeeze(1)
            shown = self.members[number]
            if self.conformation.shape[1] and hasattr(shown, "at"):
                shown = shown.at(self.conformation[chosen])
            parts.append(shown.project(pose[chosen], box, pixel_size_angstrom))
            rows.append(chosen)
        return torch.cat(parts)[torch.argsort(torch.cat(rows))]


class EmptyIce:
    """No particle at all: a :class:`cryoinfer.interfaces.Structure`."""

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return images of nothing, shape (n, box, box)."""
        return torch.zeros(len(pose), box, box)


@dataclass(frozen=True)
class FilmEdge:
    """The straight edge of a support film, a :class:`cryoinfer.interfaces.Structure`.

    Which way it runs is the in-plane turn of the pose, and how far it is from the
    centre, up to a third of the box, its tilt: both are as random as the pose.

    Attributes
    ----------
    density : float
        Projected scattering length density of the film, in 1/angstrom.
    """

    density: float

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return the images without CTF, shape (n, box, box)."""
        line = torch.arange(box) - box // 2
        y, x = torch.meshgrid(line, line, indexing="ij")
        rotation = pose.rotation.float()
        angle = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])[:, None, None]
        away = rotation[:, 2, 2][:, None, None] * box / 3
        # A ramp of two pixels: no sharper than the grid can hold.
        inside = x * angle.cos() + y * angle.sin() - away
        return self.density * (0.5 + inside / 2).clamp(0, 1)
