"""Rotations as matrices: drawn at random, compared, and moved in tangent space."""

import math

import torch
from torch import Tensor


def random_rotations(n: int, generator: torch.Generator) -> Tensor:
    """Draw rotations from the uniform (Haar) distribution.

    Parameters
    ----------
    n : int
    generator : torch.Generator

    Returns
    -------
    Tensor of float64, shape (n, 3, 3)
    """
    import roma

    quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return roma.unitquat_to_rotmat(torch.nn.functional.normalize(quaternions, dim=1))


def random_turns_in_plane(n: int, generator: torch.Generator) -> Tensor:
    """Draw rotations about the optical axis, all angles alike.

    Parameters
    ----------
    n : int
    generator : torch.Generator

    Returns
    -------
    Tensor of float64, shape (n, 3, 3)
    """
    turn = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    return turns_in_plane(turn)


def turns_in_plane(angle: Tensor) -> Tensor:
    """Return rotations about the optical axis, shape (..., 3, 3), by angles in radian.

    Parameters
    ----------
    angle : Tensor, shape (...)
    """
    import roma

    zero = torch.zeros_like(angle)
    return roma.rotvec_to_rotmat(torch.stack([zero, zero, angle], -1))


def rotate_in_image_frame(rotation: Tensor, rotation_vector: Tensor) -> Tensor:
    """Return ``exp(rotation_vector) @ rotation``.

    The vector is given in the frame of the image: x and y tilt the view, z turns
    the image in its plane.

    Parameters
    ----------
    rotation : Tensor, shape (..., 3, 3)
    rotation_vector : Tensor, shape (..., 3)
        Radians.

    Returns
    -------
    Tensor, shape (..., 3, 3)
    """
    import roma

    return roma.rotvec_to_rotmat(rotation_vector) @ rotation


def rotation_vector(rotation: Tensor) -> Tensor:
    """Return the axis times the angle in radians, shape (..., 3), of a rotation.

    Parameters
    ----------
    rotation : Tensor, shape (..., 3, 3)
    """
    import roma

    return roma.rotmat_to_rotvec(rotation)


def left_jacobian(rotation_vector: Tensor) -> Tensor:
    """Return how rotations turn as their vectors change, shape (..., 3, 3).

    The J of ``exp(v + d) = exp(J d) exp(v)``, to the first order in d (Chirikjian,
    Stochastic Models, Information Theory, and Lie Groups 2, 2012, section 10.3).

    Parameters
    ----------
    rotation_vector : Tensor of float64, shape (..., 3)
        Radians.
    """
    # Below that both factors are constant to 1e-9, while their differences cancel.
    angle = rotation_vector.norm(dim=-1).clamp(min=1e-4)[..., None, None]
    x, y, z = rotation_vector.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    skew = skew.unflatten(-1, (3, 3))
    once, twice = (1 - angle.cos()) / angle**2, (angle - angle.sin()) / angle**3
    identity = torch.eye(3).to(skew)
    return identity + once * skew + twice * skew @ skew


def geodesic_angle(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle in radians, shape (...), of the rotation between two.

    Parameters
    ----------
    first, second : Tensor, shape (..., 3, 3)
    """
    # asin of the chord is accurate for small angles, where acos of the trace is not.
    chord = torch.linalg.matrix_norm(first - second)
    return 2 * torch.asin((chord / math.sqrt(8)).clamp(max=1.0))


def least_turn(start: Tensor, end: Tensor) -> Tensor:
    """Return the rotations by the least angle that take directions to others.

    Parameters
    ----------
    start, end : Tensor, shape (..., 3)
        Unit vectors. Of opposite ones, which no least turn connects, the identity.

    Returns
    -------
    Tensor, shape (..., 3, 3)
    """
    import roma

    cross = torch.linalg.cross(start, end)
    sine = cross.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, (start * end).sum(-1, keepdim=True))
    return roma.rotvec_to_rotmat(cross * (angle / sine.clamp(min=1e-12)))


def nearest_rotation(matrix: Tensor) -> Tensor:
    """Return the rotation nearest in the Frobenius norm: the chordal mean of a sum.

    Parameters
    ----------
    matrix : Tensor, shape (..., 3, 3)
    """
    import roma

    return roma.special_procrustes(matrix)
