"""Rotations and shifts as the programs write them, and as this library holds them.

The library's rotation is RELION's Euler matrix A(rot, tilt, psi), reference to
image: the transpose of the intrinsic ZYZ rotation matrix of the same angles.
cryoSPARC stores the rotation vector of the transpose of A.
"""

import torch
from torch import Tensor

_POLE = 1e-8
"""Sine of the tilt below which rot and psi are one turn."""


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
    # By hand: roma imports PyTorch's compiler, which takes longer than all the rest of
    # what reads or checks particles.
    rot, tilt, psi = torch.deg2rad(euler_degrees).unbind(-1)
    return _turn_about_z(psi) @ _turn_about_y(tilt) @ _turn_about_z(rot)


def rotation_to_euler_degrees(rotation: Tensor) -> Tensor:
    """Return RELION's angles (rot, tilt, psi), shape (..., 3), of A.

    Tilt lies in [0, 180], rot and psi in (-180, 180]. Where tilt is 0 or 180 only
    a combination of rot and psi is defined, and psi is 0.
    """
    x, y, z = rotation[..., 2, :].unbind(-1)
    sine = torch.hypot(x, y)
    tilt = torch.atan2(sine, z)
    first, second = rotation[..., :2, :2].unbind(-2)
    # At the pole the view says nothing of rot: all of the turn in the plane is rot's.
    turn = torch.atan2(-second[..., 0], second[..., 1])
    rot = torch.where(sine < _POLE, turn, torch.atan2(y, x))
    # What is left without rot is known also where the view says little of it.
    sin, cos = rot.sin(), rot.cos()
    psi = torch.atan2(
        first[..., 1] * cos - first[..., 0] * sin,
        second[..., 1] * cos - second[..., 0] * sin,
    )
    psi = torch.where(sine < _POLE, torch.zeros_like(psi), psi)
    angles = torch.rad2deg(torch.stack([rot, tilt, psi], dim=-1))
    return torch.where(angles <= -180, 180.0, angles)


def axis_angle_to_rotation(axis_angle_radian: Tensor) -> Tensor:
    """Return A, shape (..., 3, 3), for cryoSPARC's ``alignments3D/pose``."""
    import roma

    return roma.rotvec_to_rotmat(axis_angle_radian).mT


def rotation_to_axis_angle(rotation: Tensor) -> Tensor:
    """Return cryoSPARC's ``alignments3D/pose``, shape (..., 3), of A."""
    import roma

    return roma.rotmat_to_rotvec(rotation.mT)


def _turn_about_z(angle: Tensor) -> Tensor:
    """Return what turns the axes: points turn the other way."""
    sin, cos, zero, one = _entries(angle)
    rows = [cos, sin, zero, -sin, cos, zero, zero, zero, one]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _turn_about_y(angle: Tensor) -> Tensor:
    sin, cos, zero, one = _entries(angle)
    rows = [cos, zero, -sin, zero, one, zero, sin, zero, cos]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _entries(angle: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return angle.sin(), angle.cos(), torch.zeros_like(angle), torch.ones_like(angle)
