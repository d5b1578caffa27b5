"""Masks of known shapes."""

import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.reconstruction.mask import (
    MaskShape,
    distance_from_centre,
    soft_mask,
    soft_sphere,
    threshold_mask,
)

BOX = 40


def ball(radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    axis = torch.arange(BOX).float() - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    offset = torch.stack([x, y, z], -1) - torch.tensor(centre)
    return (offset.norm(dim=-1) <= radius).float()


def test_distance_is_zero_at_the_centre_voxel() -> None:
    distance = distance_from_centre(8)
    assert distance[4, 4, 4] == 0
    assert distance[4, 4, 0] == 4
    assert distance[4, 1, 0] == 5


def test_sphere_falls_from_one_to_zero_over_its_edge() -> None:
    sphere, distance = soft_sphere(BOX, 10, 4), distance_from_centre(BOX)
    assert (sphere[distance <= 10] == 1).all()
    assert (sphere[distance >= 14] < 1e-6).all()
    # Half way through the edge.
    assert sphere[20, 20, 32].item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_a_ball_is_inside_and_far_away_is_outside(level) -> None:
    voxel, low_pass = 2.0, 8.0
    mask = soft_mask(ball(8) + level, voxel, low_pass)
    distance = distance_from_centre(BOX)
    assert mask.shape == (BOX,) * 3
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert (mask[distance <= 8] > 0.999).all()
    # The outline lies within the low-pass of the ball; it is dilated by half of it
    # and has an edge as wide again: 4 + 4 angstrom and a voxel.
    assert (mask[distance >= 8 + 4 + 4 + 1] < 1e-3).all()


def test_specks_are_dropped_and_a_second_domain_is_kept() -> None:
    pair = ball(6, (-9, 0, 0)) + ball(4, (9, 0, 0))
    speck = ball(1.5, (0, 15, 0)) * 2
    mask = soft_mask(pair + speck, 1.0, 3.0)
    assert mask[20, 20, 11] == 1
    assert mask[20, 20, 29] == 1
    assert mask[20, 35, 20] < 1e-6


def test_an_empty_map_is_not_masked() -> None:
    assert (soft_mask(torch.zeros(16, 16, 16), 1.0, 4.0) == 1).all()


def test_the_mask_follows_the_low_pass() -> None:
    tight, wide = (soft_mask(ball(8), 1.0, low_pass) for low_pass in (4.0, 12.0))
    assert wide.sum() > tight.sum()
    assert (wide >= tight - 1e-3).all()


@pytest.mark.parametrize("voxel", [1.0, 2.5])
def test_a_mask_goes_as_far_as_it_is_told(voxel: float) -> None:
    shape = MaskShape(3 * voxel, 5 * voxel, threshold=0.5)
    found = threshold_mask(ball(8), voxel, shape)
    distance = distance_from_centre(BOX)
    # The outermost voxels of the ball lie up to a voxel inside of its surface.
    assert bool((found.mask[distance <= 8 + 3 - 1] == 1).all())
    assert bool((found.mask[distance >= 8 + 3 + 5] < 1e-6).all())
    edge = found.mask[20, 20, 20:]  # along x the ball ends at the voxel 8 exactly
    assert edge[8 + 3] == 1
    assert float(edge[8 + 3 + 5]) < 1e-6
    # A cosine: one half after half of the edge, in the mean of its two neighbours.
    assert float(edge[[13, 14]].mean()) == pytest.approx(0.5, abs=1e-6)
    assert found.volume_angstrom3 == pytest.approx(float(ball(8).sum()) * voxel**3)
    assert not found.reaches_edge


def test_the_largest_part_is_kept_and_others_are_counted() -> None:
    density = ball(6, (-10, 0, 0)) + ball(3, (12, 0, 0)) + ball(1, (0, 14, 0))
    found = threshold_mask(density, 1.0, MaskShape(0.0, 0.0, threshold=0.5))
    assert torch.equal(found.mask, ball(6, (-10, 0, 0)))
    assert found.other_parts == 2
    left_out = float(ball(3).sum() + ball(1).sum())
    assert found.other_share == pytest.approx(left_out / float(density.sum()))


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_a_threshold_is_found_between_solvent_and_particle(level: float) -> None:
    noise = torch.randn((BOX,) * 3, generator=torch.Generator().manual_seed(0))
    density = ball(10) + level + 0.3 * noise
    found = threshold_mask(density, 2.5, MaskShape(0.0, 5.0))
    assert level < found.threshold < level + 1
    assert bool((found.mask[distance_from_centre(BOX) <= 9] == 1).all())
    # 15 A are six voxels: the outline of a ball moves out by less than half of it.
    assert bool((found.mask[distance_from_centre(BOX) >= 10 + 3 + 2] < 1e-6).all())


def test_what_touches_an_edge_of_the_box_is_told() -> None:
    found = threshold_mask(ball(6, (0, 0, -12)), 1.0, MaskShape(2.0, 2.0, 0.5))
    assert found.reaches_edge


@pytest.mark.parametrize("threshold", [-1.0, 2.0])
def test_thresholds_that_divide_nothing_are_refused(threshold: float) -> None:
    with pytest.raises(InputError, match="between the lowest and the highest"):
        threshold_mask(ball(8), 1.0, MaskShape(2.0, 2.0, threshold))
