"""Frames that are searched for from nothing, of maps whose frame is known."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.frames_apart import best_frame
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import MapPair
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations

BOX, PIXEL = 32, 2.0
LENGTH = BOX * PIXEL


def blobs(box: int = BOX, count: int = 60) -> Tensor:
    """Return a map of Gaussian blobs, of no symmetry, well inside its box."""
    generator = torch.Generator().manual_seed(5)
    centre = torch.randn((count, 3), generator=generator, dtype=torch.float64)
    centre = centre * torch.tensor([0.09, 0.07, 0.05]).double() * box + box // 2
    line = torch.arange(box, dtype=torch.float64)
    wave = [torch.exp(-((line - c[:, None]) ** 2) / 1.5) for c in centre.T]
    density = torch.einsum("az,ay,ax->zyx", *wave)
    return density / density.std()


def noise(seed: int, box: int = BOX) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((box,) * 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    "mirrored", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_a_motion_and_a_hand_are_found(mirrored: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    shift = torch.tensor([3.0, -2.0, 4.0], dtype=torch.float64)
    true = GlobalAlignment(random_rotations(1, generator)[0], mirrored, shift)
    density = blobs()
    fixed = transform_map(density, true, PIXEL) + 0.3 * noise(0)
    moving = density + 0.3 * noise(1)
    found = best_frame(MapPair(fixed, moving, None, LENGTH))
    assert found is not None
    assert found.alignment.mirrored == mirrored
    angle = geodesic_angle(found.alignment.rotation, true.rotation)
    # Found: 0.1 degrees and 0.02 A; half a degree moves the outermost blobs by a
    # tenth of a voxel.
    assert math.degrees(float(angle)) < 0.5
    assert float((found.alignment.origin_angstrom - true.origin_angstrom).norm()) < 0.2
    # They were of one map with noise of a tenth of its power.
    apart = MapPair(density + 0.3 * noise(2), moving, None, LENGTH).fsc()
    assert float((found.fsc[1:10] - apart[1:10]).abs().max()) < 0.05


def test_halves_that_lie_alike_are_left_as_they_lie() -> None:
    density = blobs()
    halves = [density + 1.5 * noise(seed) for seed in (0, 1)]
    pair = MapPair(halves[0], halves[1], None, LENGTH)
    assert float(pair.fsc()[1:4].min()) > 0.9
    assert float(pair.fsc()[12:].mean()) < 0.3  # or there would be nothing to search
    assert best_frame(pair) is None


def test_noise_agrees_after_no_motion() -> None:
    assert best_frame(MapPair(noise(0), noise(1), None, LENGTH)) is None


def test_maps_of_few_voxels_are_not_searched() -> None:
    assert best_frame(MapPair(noise(0, 8), noise(1, 8), None, 16.0)) is None
