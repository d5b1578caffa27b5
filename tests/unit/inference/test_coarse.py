"""The exhaustive grid against brute force."""

import math

import pytest
import torch

from cryoinfer.fourier.slices import SliceAccumulator, insert_slices
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.coarse import (
    GridSlices,
    PoseGrid,
    normalised_weights,
    shift_grid,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_grid() -> PoseGrid:
    return PoseGrid(random_rotations(4, seeded(4)), shift_grid(3.0, 2.5))


def slices_of(made, grid: PoseGrid) -> GridSlices:
    return GridSlices.of(made.volume, grid, made.images.disc, made.images.scale)


@pytest.mark.parametrize(("reach", "step"), [(9.0, 2.0), (4.0, 3.0), (2.0, 2.0)])
def test_no_shift_is_farther_than_a_covering_radius(reach, step) -> None:
    grid = shift_grid(reach, step)
    angle = 2 * math.pi * torch.rand(2000, generator=seeded())
    # Within one covering radius of the rim a neighbour may lie outside.
    inside = reach - step / math.sqrt(3)
    radius = inside * torch.rand(2000, generator=seeded(1)).sqrt()
    points = torch.stack([angle.cos(), angle.sin()], 1) * radius[:, None]
    # Of a hexagonal grid: the step over sqrt(3).
    assert torch.cdist(points, grid).min(1).values.max() <= step / math.sqrt(3) + 1e-5


def test_shift_grid_is_hexagonal_with_the_origin_first() -> None:
    grid = shift_grid(2.0, 2.0)
    assert grid.dtype == torch.float32
    assert grid.shape == (7, 2)
    assert not grid[0].any()
    torch.testing.assert_close(grid[1:].norm(dim=1), torch.full((6,), 2.0))
    larger = shift_grid(7.0, 2.0)
    assert larger.norm(dim=1).max() <= 7.0 + 1e-5
    distances = torch.cdist(larger, larger).fill_diagonal_(torch.inf)
    # Every point has a neighbour at one step, and none nearer.
    torch.testing.assert_close(
        distances.min(1).values, torch.full((len(larger),), 2.0), rtol=0, atol=1e-4
    )
    # The disc's area over a cell's, within the points that its rim cuts.
    cells = math.pi * 7**2 / (2**2 * math.sqrt(3) / 2)
    assert len(larger) == pytest.approx(cells, rel=0.2)


def test_no_reach_gives_the_origin_alone() -> None:
    assert torch.equal(shift_grid(0.0, 1.0), torch.zeros(1, 2))


@pytest.mark.parametrize("pixel_size", [2.0, 2.5])
def test_log_likelihood_is_minus_the_squared_residual(scene, pixel_size) -> None:
    made, grid = scene(5, noise_sd=0.3, pixel_size_angstrom=pixel_size), small_grid()
    found = slices_of(made, grid).log_likelihood(made.images)
    assert found.shape == (len(grid.shift_angstrom), 5, 4)
    zero = torch.zeros(5, dtype=torch.float64)
    for t, shift in enumerate(grid.shift_angstrom.double()):
        for g, rotation in enumerate(grid.rotation):
            loss = made.loss(rotation.expand(5, 3, 3), shift.expand(5, 2), zero)
            expected = (made.power() - loss).float()
            # Single precision of sums as large as the image's power.
            scale = float(made.power().max())
            torch.testing.assert_close(
                found[t, :, g], expected, rtol=0, atol=1e-5 * scale
            )


def test_expectation_equals_inserting_every_pose(scene) -> None:
    made, grid = scene(4, noise_sd=0.3), small_grid()
    count = len(grid.shift_angstrom)
    weight = torch.rand(count, 4, 4, generator=seeded(8))
    found = SliceAccumulator.empty(32, 12, 1.5)
    slices_of(made, grid).insert_expectation(found, made.images, weight)
    expected = SliceAccumulator.empty(32, 12, 1.5)
    for t, shift in enumerate(grid.shift_angstrom):
        moved = made.images.moved_back(shift.expand(4, 2))
        for g, rotation in enumerate(grid.rotation):
            share = weight[t, :, g, None]
            insert_slices(
                expected,
                rotation.expand(4, 3, 3),
                made.images.disc,
                share * moved * made.images.ctf,
                share * made.images.ctf**2,
            )
    # Another order of some hundred sums in single precision.
    scale = float(expected.sums.abs().max())
    torch.testing.assert_close(found.sums, expected.sums, rtol=0, atol=1e-5 * scale)


def test_weights_are_the_softmax_without_subnormal_numbers() -> None:
    log_weight = 300 * torch.rand(3, 40_000, generator=seeded(9))
    log_weight[:, 0] = 330
    plain = torch.softmax(log_weight, 1)
    smallest = torch.finfo(torch.float32).tiny
    assert ((plain > 0) & (plain < smallest)).any()
    found = normalised_weights(log_weight)
    assert (found > 1e6 * smallest).all()
    # 40,000 times e^-60 is 4e-22; the rest is single precision.
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-20)
    torch.testing.assert_close(found.sum(1), torch.ones(3))


def test_poses_that_nobody_takes_add_nothing(scene) -> None:
    made, grid = scene(2), small_grid()
    sums = SliceAccumulator.empty(32, 12, 1.5)
    nothing = torch.zeros(len(grid.shift_angstrom), 2, 4)
    slices_of(made, grid).insert_expectation(sums, made.images, nothing)
    assert not sums.sums.any()
