"""Where a model lies in the frame of the poses of a run."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import geodesic_angle


@dataclass(frozen=True)
class ModelFrame:
    """Where the centred model lies: at ``rotation @ r + offset_angstrom``.

    Attributes
    ----------
    rotation : Tensor of float64, shape (3, 3)
    offset_angstrom : Tensor of float64, shape (3,)
        Of the mean of its atoms from the middle of the box.
    """

    rotation: Tensor
    offset_angstrom: Tensor

    @classmethod
    def in_the_middle(cls) -> Self:
        """Return the frame of a model that poses were found for."""
        eye = torch.eye(3, dtype=torch.float64)
        return cls(eye, torch.zeros(3, dtype=torch.float64))

    def placed(self, centred_angstrom: Tensor) -> Tensor:
        """Return coordinates (..., 3) of the centred model in this frame."""
        return centred_angstrom @ self.rotation.mT + self.offset_angstrom

    @property
    def turned_degrees(self) -> float:
        """By which the model is turned from where its file has it."""
        eye = torch.eye(3, dtype=torch.float64)
        return float(torch.rad2deg(geodesic_angle(self.rotation, eye)))

    def told(self) -> str:
        """Say where the model lies."""
        x, y, z = self.offset_angstrom.tolist()
        turned = self.turned_degrees
        return (
            f"In the frame of the given poses the model's centre lies at ({x:.2f}, "
            f"{y:.2f}, {z:.2f}) A from the middle of the box"
            + (f", turned by {turned:.2f} degrees" if turned > 0 else "")
            + ": poses and models are written in that frame."
        )

    def shown_at(self, rotation: Tensor) -> Tensor:
        """Return where the offset appears in images, shape (n, 2)."""
        return (rotation.double() @ self.offset_angstrom)[:, :2]
