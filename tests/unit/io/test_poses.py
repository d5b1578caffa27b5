import numpy as np
import pytest
import roma
import torch
from scipy.spatial.transform import Rotation

from cryoinfer.io.conventions.poses import (
    axis_angle_to_rotation,
    euler_degrees_to_rotation,
    rotation_to_axis_angle,
    rotation_to_euler_degrees,
)


@pytest.fixture
def rotations():
    generator = torch.Generator().manual_seed(0)
    quaternion = torch.randn(500, 4, dtype=torch.float64, generator=generator)
    return roma.unitquat_to_rotmat(roma.quat_normalize(quaternion))


def relion_euler_matrix(rot, tilt, psi):
    """Return Euler_angles2matrix of RELION's euler.cpp, term by term."""
    a, b, g = np.deg2rad([rot, tilt, psi])
    ca, cb, cg = np.cos([a, b, g])
    sa, sb, sg = np.sin([a, b, g])
    cc, cs, sc, ss = cb * ca, cb * sa, sb * ca, sb * sa
    return np.array(
        [
            [cg * cc - sg * sa, cg * cs + sg * ca, -cg * sb],
            [-sg * cc - cg * sa, -sg * cs + cg * ca, sg * sb],
            [sc, ss, cb],
        ]
    )


def test_euler_matrix_is_that_of_relion():
    angles = [[10.0, 20.0, 30.0], [-170.0, 95.0, 3.0], [0.0, 180.0, 45.0]]
    got = euler_degrees_to_rotation(torch.tensor(angles, dtype=torch.float64)).numpy()
    want = np.stack([relion_euler_matrix(*a) for a in angles])
    # Sums of three products of numbers below 1 in double precision.
    np.testing.assert_allclose(got, want, atol=1e-15)


def test_euler_matrix_is_the_transpose_of_scipys():
    angles = np.random.default_rng(0).uniform(-180, 180, (100, 3))
    got = euler_degrees_to_rotation(torch.from_numpy(angles)).numpy()
    want = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    np.testing.assert_allclose(got, want.transpose(0, 2, 1), atol=1e-15)


def test_euler_angles_invert(rotations):
    euler = rotation_to_euler_degrees(rotations)
    # Double precision, through one arccosine.
    torch.testing.assert_close(
        euler_degrees_to_rotation(euler), rotations, atol=1e-13, rtol=0
    )
    rot, tilt, psi = euler.unbind(-1)
    assert ((tilt >= 0) & (tilt <= 180)).all()
    assert (torch.stack([rot, psi]).abs() <= 180).all()


@pytest.mark.parametrize("tilt", [0.0, 1e-6, 180.0 - 1e-6, 180.0, -30.0])
def test_euler_angles_invert_where_they_are_singular(tilt):
    angles = torch.tensor([[25.0, tilt, -40.0]], dtype=torch.float64)
    rotation = euler_degrees_to_rotation(angles)
    back = euler_degrees_to_rotation(rotation_to_euler_degrees(rotation))
    # Near the pole an angle of eps radians is known to sqrt(machine epsilon) = 1.5e-8.
    torch.testing.assert_close(back, rotation, atol=3e-8, rtol=0)


def test_axis_angle_is_the_transpose_of_relions_matrix():
    # A turn of the particle by 90 degrees about z in cryoSPARC's terms.
    pose = torch.tensor([[0.0, 0.0, torch.pi / 2]], dtype=torch.float64)
    want = Rotation.from_rotvec(pose.numpy()).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(axis_angle_to_rotation(pose).numpy(), want, atol=1e-15)


def test_axis_angle_inverts(rotations):
    back = axis_angle_to_rotation(rotation_to_axis_angle(rotations))
    torch.testing.assert_close(back, rotations, atol=1e-13, rtol=0)
