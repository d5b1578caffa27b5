"""Maps brought onto another: motions and hands that are known, and what is doubtful."""

import math

import numpy as np
import pytest
import torch
from roma import rotvec_to_rotmat
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.bayesian_rotations import (
    GaussianProcess,
    expected_improvement,
    matern,
    minimise,
)
from cryoinfer.evaluation.map_alignment import (
    MapAlignment,
    align_maps,
    inverse,
    moved_map,
    padded_to_even,
    proposed,
)
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import MapPair, distinct
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.geometry.hand import mirror_density
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.so3_grid import rotation_grid

BOX, PIXEL = 24, 3.0


def blobs(place: Tensor, box: int = BOX) -> Tensor:
    """Return Gaussians at places (n, 3), x, y, z in angstrom from the centre."""
    line = (torch.arange(box, dtype=torch.float64) - box // 2) * PIXEL
    wave = [torch.exp(-((line - c[:, None]) ** 2) / 25.0) for c in place.T]
    return torch.einsum("az,ay,ax->zyx", wave[2], wave[1], wave[0])


def places(count: int = 60) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    place = 3.5 * torch.randn((count, 3), generator=generator, dtype=torch.float64)
    arms = torch.tensor([[13.0, 0, 0], [0, 10, 3], [-14, -8, -2], [2, -3, 12]]).double()
    return place + arms[torch.arange(count) * len(arms) // count]


def motion(seed: int, mirrored: bool = False) -> GlobalAlignment:
    generator = torch.Generator().manual_seed(seed)
    shift = torch.tensor([3.0, -2.0, 4.0], dtype=torch.float64)
    return GlobalAlignment(random_rotations(1, generator)[0], mirrored, shift)


def noisy(density: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(density.shape, generator=generator, dtype=torch.float64)
    return density + 0.3 * density.std() * noise


def pair_of(true: GlobalAlignment, box: int, part: int = 60) -> MapPair:
    """Return maps of one set of blobs, computed in either frame, with noise."""
    there = places()
    # The fixed map at r is the moving one at S (G r + d).
    if true.mirrored:
        there = there * torch.tensor([1.0, 1.0, -1.0]).double()
    here = (there - true.origin_angstrom) @ true.rotation
    fixed, moving = blobs(here[:part], box), blobs(places(), box)
    return MapPair(noisy(fixed, 0), noisy(moving, 1), None, box * PIXEL)


def degrees_apart(found: GlobalAlignment, true: GlobalAlignment) -> float:
    return math.degrees(float(geodesic_angle(found.rotation, true.rotation)))


@pytest.mark.parametrize(
    ("method", "box"),
    [
        ("transport", 24),
        ("transport", 25),
        ("bayesian", 24),
        pytest.param("bayesian", 25, marks=pytest.mark.slow),
        pytest.param("search", 24, marks=pytest.mark.slow),
    ],
)
def test_a_motion_is_found(method, box: int) -> None:
    true = motion(1)
    pair = pair_of(true, box)
    found = align_maps(pair, method)
    # A degree moves the outermost blobs by a seventh of a voxel.
    assert degrees_apart(found.alignment, true) < 1.0
    apart = found.alignment.origin_angstrom - true.origin_angstrom
    assert float(apart.norm()) < 0.1 * PIXEL
    assert not found.is_by_chance()
    assert not found.is_ambiguous()
    moved = moved_map(pair.moving, found.alignment, PIXEL)
    assert moved.shape == pair.moving.shape
    both = torch.stack((moved.flatten(), pair.fixed.flatten()))
    # Noise of 0.09 of the power in either: 1 / 1.09, and interpolation takes some.
    assert float(torch.corrcoef(both)[0, 1]) > 0.85


@pytest.mark.parametrize(
    "method", ["transport", pytest.param("bayesian", marks=pytest.mark.slow)]
)
def test_the_other_hand_is_found_where_it_is_asked_for(method) -> None:
    true = motion(2, mirrored=True)
    found = align_maps(pair_of(true, BOX), method, hand="both")
    assert found.alignment.mirrored
    assert degrees_apart(found.alignment, true) < 1.0


@pytest.mark.parametrize("method", ["transport", "bayesian"])
def test_a_map_that_lacks_a_part_is_found(method) -> None:
    true = motion(3)
    found = align_maps(pair_of(true, BOX, part=42), method, partial=True)
    assert degrees_apart(found.alignment, true) < 3.0


@pytest.mark.parametrize(
    ("method", "seed"),
    [
        ("bayesian", 1),
        pytest.param("bayesian", 9, marks=pytest.mark.slow),
        pytest.param("bayesian", 10, marks=pytest.mark.slow),
        pytest.param("search", 16, marks=pytest.mark.slow),
    ],
)
def test_a_domain_that_is_missing_does_not_mislead(
    method, seed: int, without_lid: MapPair
) -> None:
    """On few voxels other rotations agree as well as the true one.

    Where only the best twelve were narrowed, whichever they were, Bayesian optimisation
    ended 96 to 105 degrees off from these seeds, and the search 11.
    """
    true = motion(seed)
    generator = torch.Generator().manual_seed(seed)
    length, voxel = without_lid.length_angstrom, without_lid.length_angstrom / 32
    sd = 0.5 * without_lid.moving.std()
    noise = sd * torch.randn((2, 32, 32, 32), generator=generator).double()
    turned = transform_map(without_lid.fixed, true, voxel)
    pair = MapPair(turned + noise[0], without_lid.moving + noise[1], None, length)
    found = proposed(pair, False, method, True).alignment
    # Found: 1.8 to 4.9 degrees; the last cells are 1.9 degrees wide, and what is
    # missing draws the best of them away.
    assert degrees_apart(found, true) < 6.0


def test_what_is_distinct_is_the_best_of_its_neighbours() -> None:
    turns = torch.deg2rad(torch.tensor([0.0, 5.0, 30.0, 45.0, 100.0])).double()
    rotation = rotvec_to_rotmat(turns[:, None] * torch.tensor([0.0, 0.6, 0.8]).double())
    score = torch.tensor([0.8, 0.9, 0.5, 0.6, 0.1])
    # 0 degrees lies near 5, and 30 near 45, which are better.
    assert distinct(rotation, score, 2).tolist() == [1, 3]
    assert distinct(rotation, score, 9).tolist() == [1, 3, 4]


@pytest.mark.parametrize("method", ["transport", "bayesian"])
def test_few_rotations_are_as_good_as_all(method) -> None:
    pair = pair_of(motion(4), BOX)
    few, everything = (proposed(pair, False, m, False) for m in (method, "search"))
    # The last cells are 1.9 degrees wide.
    assert degrees_apart(few.alignment, everything.alignment) < 4.0
    assert few.score > everything.score - 0.01


@pytest.mark.slow
def test_the_same_twice() -> None:
    pair = pair_of(motion(5), BOX)
    first, second = (align_maps(pair) for _ in range(2))
    assert torch.equal(first.alignment.rotation, second.alignment.rotation)
    assert first.score == second.score


def test_a_symmetric_map_is_told() -> None:
    half = places(30) + torch.tensor([8.0, 0.0, 0.0]).double()
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0])).double()
    density = blobs(torch.cat([half, half @ turn]))
    pair = MapPair(noisy(density, 0), noisy(density, 1), None, BOX * PIXEL)
    found = align_maps(pair)
    assert found.is_ambiguous()
    assert found.rival is not None
    mate = degrees_apart(found.rival, found.alignment)
    assert abs(mate - 180.0) < 3.0


@pytest.mark.slow
def test_maps_of_nothing_in_common_are_told() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((2, BOX, BOX, BOX), generator=generator, dtype=torch.float64)
    found = align_maps(MapPair(noise[0], noise[1], None, BOX * PIXEL))
    assert found.is_by_chance()


def test_what_is_ambiguous_and_what_is_chance() -> None:
    agreement = None  # neither is asked of it
    still = GlobalAlignment(torch.eye(3).double(), False, torch.zeros(3).double())

    def of(score: float, rival: float) -> MapAlignment:
        return MapAlignment(agreement, score, 0.3, 0.5, still, rival)  # type: ignore[arg-type]

    assert of(0.9, 0.88).is_ambiguous()
    assert not of(0.9, 0.6).is_ambiguous()
    assert of(0.45, 0.4).is_by_chance()
    assert not of(0.9, 0.6).is_by_chance()


def test_maps_without_a_frame_are_refused() -> None:
    density = blobs(places())
    with pytest.raises(InputError, match="the same everywhere"):
        align_maps(MapPair(density, torch.zeros_like(density), None, 72.0))
    small = density[:8, :8, :8]
    with pytest.raises(InputError, match="too small"):
        align_maps(MapPair(small, small, None, 24.0))


@pytest.mark.parametrize("mirrored", [False, True])
def test_there_and_back(mirrored: bool) -> None:
    true = motion(6, mirrored)
    back = inverse(true)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0 if mirrored else 1.0])).double()
    place = torch.tensor([1.0, 2.0, 3.0]).double()
    there = mirror @ (true.rotation @ place + true.origin_angstrom)
    again = mirror @ (back.rotation @ there + back.origin_angstrom)
    torch.testing.assert_close(again, place)


def test_padding_keeps_the_centre() -> None:
    density = torch.zeros(5, 5, 5)
    density[2, 2, 2] = 1.0
    padded = padded_to_even(density)
    assert padded.shape == (6, 6, 6)
    assert padded[3, 3, 3] == 1.0
    mirrored = padded_to_even(mirror_density(density))
    assert torch.equal(mirror_density(padded), mirrored)


def test_the_process_is_the_plain_formula() -> None:
    grid, known = (
        rotation_grid(0),
        random_rotations(9, torch.Generator().manual_seed(1)),
    )
    value = torch.linspace(-1, 1, 9).double().square()
    process = GaussianProcess(grid)
    for rotation in known.split(4):  # the last of them alone
        process.add(rotation)
    mean, sd = process.posterior(value)
    kernel = matern(known, known).numpy() + 1e-3 * np.eye(9)
    across = matern(grid, known).numpy()
    scale = float(value.std())
    centred = (value - value.mean()).numpy()
    expected = across @ np.linalg.solve(kernel, centred) + float(value.mean())
    left = 1 - np.einsum("gk,kg->g", across, np.linalg.solve(kernel, across.T))
    np.testing.assert_allclose(mean, expected, atol=1e-9)
    np.testing.assert_allclose(sd, scale * np.sqrt(left), atol=1e-9)


def test_expected_improvement_is_what_draws_have_on_average() -> None:
    draws = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).double()
    mean, sd, least = 0.4, 0.7, 0.1
    found = expected_improvement(torch.tensor([mean]), torch.tensor([sd]), least)
    sampled = (least - (mean + sd * draws)).clamp(min=0)
    # The mean of 200,000 draws of sd about 0.3 is off by 0.0007.
    assert abs(float(found) - float(sampled.mean())) < 0.003


def test_a_smooth_loss_is_minimised_on_the_grid() -> None:
    target = random_rotations(1, torch.Generator().manual_seed(3))[0]

    def loss(rotation: Tensor) -> Tensor:
        return geodesic_angle(rotation, target).square()

    tried, value = minimise(loss, 5)  # of 8 rotations each
    assert len(tried) == len(value) == 112
    best = math.degrees(float(geodesic_angle(tried[value.argmin()], target)))
    nearest = math.degrees(float(geodesic_angle(rotation_grid(2), target).min()))
    assert best < nearest + 8.0  # half a cell
