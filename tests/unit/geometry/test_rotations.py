"""Rotations against closed forms: the Haar measure, angles, tangent vectors."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.geometry.rotations import (
    geodesic_angle,
    left_jacobian,
    nearest_rotation,
    random_rotations,
    rotate_in_image_frame,
)

# A few operations on numbers of order one, in double precision.
ROUNDING = 1e-12


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def about_z(angle: float) -> Tensor:
    """Return the rotation about z, written out."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)


def naive_exponential(vector: Tensor) -> Tensor:
    """Return exp of the cross-product matrix as its power series."""
    x, y, z = vector.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    total = term = torch.eye(3, dtype=torch.float64)
    for k in range(1, 40):
        term = term @ cross / k
        total = total + term
    return total


def test_random_rotations_are_rotations_and_repeat_with_their_seed() -> None:
    first = random_rotations(50, seeded())
    identity = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(first @ first.mT, identity, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(
        torch.linalg.det(first), torch.ones(50).double(), rtol=0, atol=ROUNDING
    )
    assert torch.equal(first, random_rotations(50, seeded()))
    assert not torch.equal(first, random_rotations(50, seeded(1)))


def test_random_rotations_follow_the_haar_measure() -> None:
    n = 20_000
    rotation = random_rotations(n, seeded())
    # Every entry has the mean 0 and the variance 1/3: five standard errors.
    assert rotation.mean(0).abs().max() < 5 * math.sqrt(1 / 3 / n)
    # The angle has the density (1 - cos t) / pi on [0, pi]; compare the quantiles
    # by the largest difference of the distributions, which exceeds 1.95 / sqrt(n)
    # once in a thousand draws.
    angle = geodesic_angle(rotation, torch.eye(3).double()).sort().values
    expected = (angle - torch.sin(angle)) / math.pi
    empirical = (torch.arange(n) + 0.5) / n
    assert (expected - empirical).abs().max() < 1.95 / math.sqrt(n)


@pytest.mark.parametrize("angle", [1e-9, 1e-4, 0.3, math.pi / 2, 3.0])
def test_geodesic_angle_of_turns_about_z(angle: float) -> None:
    first = about_z(0.7)
    found = geodesic_angle(first, about_z(angle) @ first)
    # The entries are rounded to 1e-16, and so is the angle, relative to one radian.
    assert found.item() == pytest.approx(angle, rel=1e-12, abs=1e-15)


def test_geodesic_angle_of_half_turns_and_of_equal_rotations() -> None:
    rotation = random_rotations(20, seeded())
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0])).double()
    # The angle ends in a square root there: rounding 1e-16 becomes 1e-8.
    torch.testing.assert_close(
        geodesic_angle(rotation, half_turn @ rotation),
        torch.full((20,), math.pi, dtype=torch.float64),
        rtol=0,
        atol=1e-7,
    )
    assert torch.equal(geodesic_angle(rotation, rotation), torch.zeros(20).double())


def test_geodesic_angle_agrees_with_the_trace() -> None:
    first, second = random_rotations(200, seeded()).chunk(2)
    trace = (first * second).sum((-2, -1))
    expected = torch.acos((trace - 1) / 2)
    # Both formulas lose half the digits at one end of the range.
    torch.testing.assert_close(
        geodesic_angle(first, second), expected, rtol=0, atol=1e-7
    )


def test_rotate_in_image_frame_agrees_with_the_power_series() -> None:
    rotation = random_rotations(6, seeded())
    vector = torch.randn(6, 3, generator=seeded(1), dtype=torch.float64)
    found = rotate_in_image_frame(rotation, vector)
    for i in range(6):
        expected = naive_exponential(vector[i]) @ rotation[i]
        torch.testing.assert_close(found[i], expected, rtol=0, atol=ROUNDING)


def test_the_third_component_turns_the_image_in_its_plane() -> None:
    rotation = random_rotations(1, seeded())[0]
    vector = torch.tensor([0, 0, 0.4], dtype=torch.float64)
    turned = rotate_in_image_frame(rotation, vector)
    torch.testing.assert_close(turned, about_z(0.4) @ rotation, rtol=0, atol=ROUNDING)
    # The viewing direction, the last row, stays.
    torch.testing.assert_close(turned[2], rotation[2], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("length", [0.0, 1e-5, 1.0])
def test_rotate_in_image_frame_is_differentiable(length: float) -> None:
    rotation = random_rotations(2, seeded())
    vector = torch.randn(2, 3, generator=seeded(1), dtype=torch.float64) * length
    assert torch.autograd.gradcheck(
        rotate_in_image_frame, (rotation, vector.requires_grad_())
    )


def test_nearest_rotation_of_a_rotation_times_a_positive_matrix() -> None:
    rotation = random_rotations(10, seeded())
    factor = torch.randn(10, 3, 3, generator=seeded(1), dtype=torch.float64)
    positive = factor @ factor.mT + 0.1 * torch.eye(3).double()
    # The polar decomposition: the rotation is its orthogonal part.
    torch.testing.assert_close(
        nearest_rotation(rotation @ positive), rotation, rtol=0, atol=1e-10
    )


def test_nearest_rotation_is_no_reflection_and_beats_any_other() -> None:
    matrix = torch.randn(3, 3, generator=seeded(), dtype=torch.float64)
    matrix = matrix * -torch.sign(torch.linalg.det(matrix))
    nearest = nearest_rotation(matrix)
    assert torch.linalg.det(nearest).item() == pytest.approx(1.0, abs=ROUNDING)
    others = random_rotations(2000, seeded(1))
    distance = torch.linalg.matrix_norm(others - matrix)
    assert torch.linalg.matrix_norm(nearest - matrix) <= distance.min()


@pytest.mark.parametrize("length", [0.0, 1e-5, 1e-3, 0.5, 3.0])
def test_rotations_turn_by_the_jacobian_of_their_vectors(length: float) -> None:
    vector = torch.randn(3, generator=seeded(1), dtype=torch.float64)
    vector = length * vector / vector.norm()
    step = 1e-4 * torch.randn(3, generator=seeded(2), dtype=torch.float64)
    turned = naive_exponential(left_jacobian(vector) @ step)
    found = turned @ naive_exponential(vector - step / 2)
    expected = naive_exponential(vector + step / 2)
    # Steps are symmetric about the vector, whose Jacobian it is: what is left is of
    # the third order in them.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
