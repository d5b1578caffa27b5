"""Hermite polynomials of z against what they are written out, and against sums."""

import math

import pytest
import torch

from cryoinfer.inference.hermite import HermiteFeatures, normal_nodes

Z = torch.tensor([[0.7, -1.2], [2.1, 0.3], [-0.4, 0.0]], dtype=torch.float64)


def test_polynomials_are_those_of_the_tables() -> None:
    z = torch.tensor([[-1.7], [0.0], [0.6]], dtype=torch.float64)
    (x,) = z.unbind(-1)
    found = HermiteFeatures(1, 4).values(z)
    expected = [
        torch.ones_like(x),
        x,
        (x**2 - 1) / math.sqrt(2),
        (x**3 - 3 * x) / math.sqrt(6),
        (x**4 - 6 * x**2 + 3) / math.sqrt(24),
    ]
    torch.testing.assert_close(found, torch.stack(expected, -1))


def test_products_come_by_their_total_degree() -> None:
    features = HermiteFeatures(2, 2)
    x, y = Z.unbind(-1)
    one, root = torch.ones_like(x), math.sqrt(2)
    expected = [one, x, y, (x**2 - 1) / root, x * y, (y**2 - 1) / root]
    torch.testing.assert_close(features.values(Z), torch.stack(expected, -1))
    assert len(features) == 6


@pytest.mark.parametrize(("dims", "degree"), [(1, 1), (1, 5), (2, 3), (3, 2)])
def test_they_are_orthonormal_over_a_normal_z(dims: int, degree: int) -> None:
    features = HermiteFeatures(dims, degree)
    assert features.powers.shape == (len(features), dims)
    points, weights = normal_nodes(dims, degree + 1)
    values = features.values(points)
    gram = values.mT @ (weights[:, None] * values)
    identity = torch.eye(len(features), dtype=torch.float64)
    # The sum is exact: only rounding is left.
    torch.testing.assert_close(gram, identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dims", "degree"), [(1, 1), (1, 4), (2, 3), (3, 2)])
def test_slopes_are_the_derivatives(dims: int, degree: int) -> None:
    features = HermiteFeatures(dims, degree)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(dims, generator=generator, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(features.values, z)
    torch.testing.assert_close(features.slopes(z), expected)


def test_moments_are_those_of_draws() -> None:
    features = HermiteFeatures(2, 3)
    mean = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    covariance = torch.tensor([[[0.5, 0.2], [0.2, 0.3]]], dtype=torch.float64)
    first, second = features.moments(mean, covariance)
    generator = torch.Generator().manual_seed(0)
    count = 400_000
    normal = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    values = features.values(mean + normal @ torch.linalg.cholesky(covariance[0]).mT)
    products = values[:, :, None] * values[:, None]
    for found, drawn in ((first[0], values), (second[0], products)):
        # Five standard errors of the draws; that of the constant is 0.
        error = drawn.std(0) / count**0.5
        assert bool(((found - drawn.mean(0)).abs() <= 5 * error + 1e-9).all())


def test_polynomials_of_a_moved_z_are_mixed() -> None:
    features = HermiteFeatures(2, 3)
    mean = torch.tensor([0.4, -0.1], dtype=torch.float64)
    root = torch.tensor([[0.8, 0.0], [0.3, 1.2]], dtype=torch.float64)
    found = features.values(Z) @ features.moved(mean, root).mT
    torch.testing.assert_close(found, features.values(mean + Z @ root.mT))
