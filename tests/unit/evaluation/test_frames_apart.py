"""Frames that are searched for from nothing, of maps whose frame is known."""

import math
from dataclasses import replace

import pytest
import torch
from roma import rotvec_to_rotmat
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


@pytest.mark.parametrize("degrees", [3.0, pytest.param(8.0, marks=pytest.mark.slow)])
def test_small_turns_are_found(degrees: float, without_lid: MapPair) -> None:
    """These the search of all rotations does not see: the maps agree as they lie."""
    density, length = without_lid.moving, without_lid.length_angstrom
    density = density / density.std()
    axis = torch.tensor([0.6, 0.0, -0.8]).double()
    turn = rotvec_to_rotmat(math.radians(degrees) * axis)
    true = replace(GlobalAlignment.identity(), rotation=turn)
    fixed = transform_map(density, true, length / 32) + 0.5 * noise(0)
    pair = MapPair(fixed, density + 0.5 * noise(1), None, length)
    assert float(pair.fsc()[1:6].min()) > 0.9
    found = best_frame(pair)
    assert found is not None
    assert not found.alignment.mirrored
    # A fifth of a degree moves the ends of the molecule by a thirtieth of a voxel.
    apart = geodesic_angle(found.alignment.rotation, turn)
    assert torch.rad2deg(apart) < 0.5
    assert float((found.fsc - pair.fsc())[1:16].mean()) > 0.01


@pytest.mark.parametrize(
    "sd", [1.5, *(pytest.param(x, marks=pytest.mark.slow) for x in (0.3, 3.0))]
)
def test_halves_that_lie_alike_are_left_as_they_lie(
    sd: float, without_lid: MapPair
) -> None:
    density = without_lid.moving / without_lid.moving.std()
    halves = [density + sd * noise(seed) for seed in (0, 1)]
    pair = MapPair(halves[0], halves[1], None, without_lid.length_angstrom)
    assert best_frame(pair) is None


@pytest.mark.slow
@pytest.mark.parametrize("is_masked", [False, True])
def test_noise_within_an_edge_is_no_motion(
    is_masked: bool, without_lid: MapPair
) -> None:
    """Where solvent is flattened, or masked, chance gains more in every shell."""
    density = without_lid.moving / without_lid.moving.std()
    line = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    radius = (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).sqrt()
    ball = ((12.0 - radius) / 3).clamp(0.0, 1.0)
    for seed in range(3):
        halves = [density + 2.0 * noise(2 * seed + one) for one in (0, 1)]
        mask = ball if is_masked else None
        if not is_masked:
            halves = [ball * one for one in halves]
        pair = MapPair(halves[0], halves[1], mask, without_lid.length_angstrom)
        assert best_frame(pair) is None


@pytest.mark.slow
def test_maps_of_other_filters_lie_alike(without_lid: MapPair) -> None:
    density = without_lid.moving / without_lid.moving.std()
    halves = [density + 0.5 * noise(seed) for seed in (0, 1)]
    k = torch.fft.fftfreq(BOX, dtype=torch.float64)
    squared = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    for response in (squared < 0.2**2, torch.exp(-20 * squared), 1 + 20 * squared):
        other = torch.fft.ifftn(torch.fft.fftn(halves[1]) * response).real
        pair = MapPair(halves[0], other, None, without_lid.length_angstrom)
        assert best_frame(pair) is None


def test_noise_agrees_after_no_motion() -> None:
    assert best_frame(MapPair(noise(0), noise(1), None, LENGTH)) is None


def test_maps_of_few_voxels_are_not_searched() -> None:
    assert best_frame(MapPair(noise(0, 8), noise(1, 8), None, 16.0)) is None
