"""Optimal transport, held against what is known without it."""

import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from cryoinfer.evaluation.transport import (
    point_cloud,
    rigid_motion,
    sinkhorn_plan,
    wavelet_coefficients,
)
from cryoinfer.geometry.rotations import random_rotations


def points(seed: int, count: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, 3), generator=generator, dtype=torch.float64)


def test_little_blur_gives_the_best_assignment() -> None:
    first, second = points(0), points(1)
    cost = torch.cdist(first, second).square()
    mass = torch.full((12,), 1 / 12, dtype=torch.float64)
    plan = sinkhorn_plan(cost, mass, mass, 0.05, None, 3000)
    row, column = linear_sum_assignment(cost.numpy())
    exact = cost.numpy()[row, column].mean()
    # Entropic transport costs more, by less than blur times the entropy, log 12.
    found = float((plan * cost).sum())
    assert exact - 1e-9 <= found <= exact + 0.05 * math.log(12)
    np.testing.assert_allclose(plan.sum(0), mass, atol=1e-12)  # scaled last
    np.testing.assert_allclose(plan.sum(1), mass, atol=1e-4)


def test_unbalanced_transport_leaves_what_is_far() -> None:
    first = torch.tensor([[0.0, 0, 0], [1, 0, 0], [50, 0, 0]]).double()
    second = first[:2]
    cost = torch.cdist(first, second).square()
    plan = sinkhorn_plan(
        cost, torch.ones(3).double(), torch.ones(2).double(), 0.1, 1.0, 200
    )
    assert float(plan[2].sum()) < 1e-6
    # What is carried between equal points is not far from their mass.
    assert float(plan.sum()) > 1.7


def test_the_rigid_motion_of_an_exact_plan() -> None:
    rotation = random_rotations(3, torch.Generator().manual_seed(2))
    shift = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    first = points(3)
    plan = torch.eye(12, dtype=torch.float64) / 12
    for one in rotation:
        found, moved = rigid_motion(plan, first, first @ one.T + shift)
        torch.testing.assert_close(found, one, rtol=0, atol=1e-12)
        torch.testing.assert_close(moved, shift, rtol=0, atol=1e-12)


def test_a_cloud_has_the_mass_and_the_centre_of_its_map() -> None:
    line = torch.arange(24, dtype=torch.float64) - 12
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    density = torch.exp(-((x - 2) ** 2 + (y + 1) ** 2 / 2 + z**2 / 3) / 8)
    cloud = point_cloud(density, 1.5, 50, threshold=0.0)
    assert len(cloud.mass) == 50
    expected = torch.tensor([3.0, -1.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(cloud.centre(), expected, rtol=0, atol=0.05)
    high = float(density.flatten().quantile(0.999))
    # The percentile lies between two voxels.
    torch.testing.assert_close(
        float(cloud.mass.sum()), float(density.sum()) / high, rtol=0.02, atol=0
    )
    assert not len(point_cloud(torch.zeros(8, 8, 8), 1.0, 5).mass)


def test_wavelets_keep_what_is_orthogonal_and_see_distance() -> None:
    generator = torch.Generator().manual_seed(4)
    density = torch.randn((16, 16, 16), generator=generator, dtype=torch.float64)
    found = wavelet_coefficients(density, 1)
    # One level, weighted by 2^(-2.5 * 3) throughout: a rotation of the coefficients.
    torch.testing.assert_close(found.norm() * 2**7.5, density.norm(), rtol=1e-6, atol=0)
    # A blob that moves on: voxels differ no more once nothing overlaps, wavelets do.
    line = torch.arange(32.0)
    blobs = [
        torch.einsum(
            "z,y,x->zyx",
            *(torch.exp(-((line - c) ** 2) / 4) for c in (16.0, 16.0, 8.0 + shift)),
        )
        for shift in (0, 6, 10, 14)
    ]
    still, *moved = blobs
    voxels = [float((one - still).abs().sum()) for one in moved]
    waves = [float((wavelet_coefficients(one - still, 4)).abs().sum()) for one in moved]
    assert voxels[2] < 1.05 * voxels[0]
    assert waves[2] > 1.3 * waves[0]
