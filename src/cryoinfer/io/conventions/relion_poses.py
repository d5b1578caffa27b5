"""Poses as RELION's STAR files have them: Euler angles and origins of either unit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.io.conventions.poses import (
    euler_degrees_to_rotation,
    rotation_to_euler_degrees,
)
from cryoinfer.io.conventions.relion_rows import as_tensor
from cryoinfer.io.conventions.table import LARGEST_SHIFT_ANGSTROM, require_within
from cryoinfer.io.star import StarBlock, text_column
from cryoinfer.records import Pose

_LARGEST_DEGREES = 1e5
_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGIN_ANGSTROM = ("rlnOriginXAngst", "rlnOriginYAngst")
ORIGIN_PIXELS = ("rlnOriginX", "rlnOriginY")


@dataclass(frozen=True)
class RelionPoses:
    """Where a block of n particles has their poses, or will have them.

    Attributes
    ----------
    particles : StarBlock
    has_optics : bool
        Whether the file is of version 3.1 and later, whose origins are in angstrom.
    """

    particles: StarBlock
    has_optics: bool

    @property
    def _origins(self) -> tuple[str, str]:
        """The columns of origins that count, of which the file may lack one or both.

        Those in pixels count where none is in angstrom.
        """
        in_angstrom = any(label in self.particles for label in _ORIGIN_ANGSTROM)
        return _ORIGIN_ANGSTROM if in_angstrom else ORIGIN_PIXELS

    def read(self, pixel_size_angstrom: NDArray[np.float64]) -> Pose | None:
        """Return the poses, None where there are no angles.

        Parameters
        ----------
        pixel_size_angstrom : array, shape (n,)

        Raises
        ------
        InputError
            If they hold values that are no numbers, or beyond all measure.
        """
        block, n = self.particles, len(self.particles)
        if any(label not in block for label in _ANGLES):
            return None
        euler = np.stack([block.numbers(label) for label in _ANGLES], axis=1)
        labels, origin = self._origins, np.zeros((n, 2))
        unit = pixel_size_angstrom if labels == ORIGIN_PIXELS else np.ones(n)
        for axis, label in enumerate(labels):
            if label in block:
                origin[:, axis] = block.numbers(label) * unit
        require_within(", ".join(_ANGLES), euler, _LARGEST_DEGREES)
        require_within(", ".join(labels), origin, LARGEST_SHIFT_ANGSTROM)
        # 0 - origin instead of -origin: no negative zeros.
        return Pose(
            euler_degrees_to_rotation(as_tensor(euler)), as_tensor(0.0 - origin)
        )

    def columns(self, pose: Pose, pixel_size_angstrom: Tensor) -> dict[str, Any]:
        """Return poses as columns of text, the origins in every unit of the file.

        Parameters
        ----------
        pose : Pose, of length n
        pixel_size_angstrom : Tensor, shape (n,)
        """
        in_angstrom = self.has_optics or self._origins == _ORIGIN_ANGSTROM
        in_pixels = any(label in self.particles for label in ORIGIN_PIXELS)
        columns = _angle_columns(pose)
        if in_angstrom:
            one = torch.ones_like(pixel_size_angstrom)
            columns |= _origin_columns(pose, _ORIGIN_ANGSTROM, one)
        if in_pixels or not in_angstrom:
            columns |= _origin_columns(pose, ORIGIN_PIXELS, pixel_size_angstrom)
        return columns


def _angle_columns(pose: Pose) -> dict[str, NDArray[Any]]:
    euler = rotation_to_euler_degrees(pose.rotation).numpy()
    return {label: text_column(euler[:, i], "%.6f") for i, label in enumerate(_ANGLES)}


def _origin_columns(
    pose: Pose, labels: tuple[str, str], unit_angstrom: Tensor
) -> dict[str, NDArray[Any]]:
    """Return the origins, the negative of the shifts, in units of shape (n,)."""
    # 0 - shift instead of -shift: no negative zeros.
    origin = (0.0 - pose.shift_angstrom / unit_angstrom[:, None]).numpy()
    return {label: text_column(origin[:, i], "%.6f") for i, label in enumerate(labels)}
