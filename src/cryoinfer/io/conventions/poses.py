"""Rotations and shifts as the programs write them, and as this library holds them.

The library's rotation is RELION's Euler matrix A(rot, tilt, psi), reference to
image: the transpose of the intrinsic ZYZ rotation matrix of the same angles.
cryoSPARC stores the rotation vector of the transpose of A.
"""

import roma
import torch
from torch import Tensor

from cryoinfer.records import Pose


def euler_degrees_to_rotation(euler_degrees: Tensor) -> Tensor:
    """Return A for RELION's angles.

    Parameters
    ----------
    euler_degrees : Tensor, shape (..., 3)
        ``rlnAngleRot``, ``rlnAngleTilt``, ``rlnAnglePsi``.

    Returns
    -------
    Tensor, shape (..., 3, 3)
    """
    return roma.euler_to_rotmat("ZYZ", euler_degrees, degrees=True).mT


def rotation_to_euler_degrees(rotation: Tensor) -> Tensor:
    """Return RELION's angles (rot, tilt, psi), shape (..., 3), of A.

    Tilt lies in [0, 180], rot and psi in (-180, 180]. Where tilt is 0 or 180 only
    a combination of rot and psi is defined, and psi is 0.
    """
    angles = roma.rotmat_to_euler("ZYZ", rotation.mT, degrees=True)
    rot, tilt, psi = angles.unbind(-1)
    # (rot, -tilt, psi) and (rot + 180, tilt, psi + 180) are the same rotation.
    turn = torch.where(tilt < 0, 180.0, 0.0).to(angles)
    return torch.stack([_wrap(rot + turn), tilt.abs(), _wrap(psi + turn)], dim=-1)


def axis_angle_to_rotation(axis_angle_radian: Tensor) -> Tensor:
    """Return A, shape (..., 3, 3), for cryoSPARC's ``alignments3D/pose``."""
    return roma.rotvec_to_rotmat(axis_angle_radian).mT


def rotation_to_axis_angle(rotation: Tensor) -> Tensor:
    """Return cryoSPARC's ``alignments3D/pose``, shape (..., 3), of A."""
    return roma.rotmat_to_rotvec(rotation.mT)


def flip_hand(pose: Pose) -> Pose:
    """Return the poses that fit the mirrored map as the given ones fit the map.

    With S = diag(1, 1, -1) the mirrored map is V'(r) = V(S r): a blob at p moves to
    S p. The pose R' = S R S puts it at S R S S p = S (R p), whose x and y are those
    of R p, so every projection and shift stays as it was.
    """
    mirror = torch.diag(pose.rotation.new_tensor([1.0, 1.0, -1.0]))
    return Pose(mirror @ pose.rotation @ mirror, pose.shift_angstrom)


def _wrap(degrees: Tensor) -> Tensor:
    return 180.0 - torch.remainder(180.0 - degrees, 360.0)
