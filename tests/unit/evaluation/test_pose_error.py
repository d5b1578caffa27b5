import math

import pytest
import roma
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.pose_error import (
    GlobalAlignment,
    align_poses,
    pose_errors,
    tangent_error,
    truth_in_estimated_frame,
)
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.records import Pose

S = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def random_poses(n: int, generator: torch.Generator) -> Pose:
    shift = torch.randn((n, 2), generator=generator, dtype=torch.float64)
    return Pose(random_rotations(n, generator), 3 * shift)


def random_alignment(generator: torch.Generator, mirrored: bool) -> GlobalAlignment:
    origin = torch.randn(3, generator=generator, dtype=torch.float64)
    return GlobalAlignment(random_rotations(1, generator)[0], mirrored, 4 * origin)


def image_points(points: Tensor, pose: Pose) -> Tensor:
    """Return where each point appears in each image, shape (n, points, 2)."""
    return (points @ pose.rotation.mT)[..., :2] + pose.shift_angstrom[:, None]


def turned(pose: Pose, vectors: Tensor) -> Pose:
    return Pose(roma.rotvec_to_rotmat(vectors) @ pose.rotation, pose.shift_angstrom)


@pytest.mark.parametrize("mirrored", [False, True])
def test_aligned_truth_shows_the_same_images(
    mirrored: bool, generator: torch.Generator
) -> None:
    """r_true = S (G r_est + d): both descriptions put every point in one place."""
    true = random_poses(20, generator)
    alignment = random_alignment(generator, mirrored)
    cloud = torch.randn((30, 3), generator=generator, dtype=torch.float64) * 20
    turned_cloud = cloud @ S if mirrored else cloud
    estimated_cloud = (turned_cloud - alignment.origin_angstrom) @ alignment.rotation
    seen = truth_in_estimated_frame(true, true, alignment)
    torch.testing.assert_close(
        image_points(estimated_cloud, seen), image_points(cloud, true)
    )
    torch.testing.assert_close(
        torch.linalg.det(seen.rotation), torch.ones(20, dtype=torch.float64)
    )


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("symmetry", ["C1", "C4", "D2"])
def test_exact_alignment_is_found(
    mirrored: bool, symmetry: str, generator: torch.Generator
) -> None:
    group = symmetry_rotations(symmetry)
    true = random_poses(60, generator)
    hidden = random_alignment(generator, mirrored)
    estimated = truth_in_estimated_frame(true, true, hidden)
    # Each particle is described by a random mate of its symmetric reference; the
    # origin must then lie on every axis, or the mates would be different images.
    mate = torch.randint(len(group), (60,), generator=generator)
    mates = Pose(true.rotation @ group[mate], true.shift_angstrom)
    if symmetry != "C1":
        hidden = GlobalAlignment(hidden.rotation, mirrored, torch.zeros(3).double())
        estimated = truth_in_estimated_frame(mates, mates, hidden)
    found = align_poses(estimated, true, generator, group)
    errors = pose_errors(estimated, true, found, group)
    # asin of a chord of float64 matrices: rounding of 1e-16 gives 1e-6 degrees.
    assert errors.geodesic_degrees.max() < 1e-5
    assert errors.view_degrees.max() < 1e-5
    assert errors.in_plane_degrees.abs().max() < 1e-5
    assert errors.shift_angstrom.max() < 1e-6
    if symmetry == "C1":
        assert found.mirrored == mirrored
        torch.testing.assert_close(found.rotation, hidden.rotation)
        torch.testing.assert_close(found.origin_angstrom, hidden.origin_angstrom)


@pytest.mark.parametrize("mirrored", [False, True])
def test_withstands_a_majority_of_wrong_poses(
    mirrored: bool, generator: torch.Generator
) -> None:
    n, right = 1000, 300
    true = random_poses(n, generator)
    hidden = random_alignment(generator, mirrored)
    target = truth_in_estimated_frame(true, true, hidden)
    noise = torch.randn((n, 3), generator=generator, dtype=torch.float64)
    estimated = turned(target, noise * math.radians(2))
    wrong = random_rotations(n, generator)
    wrong[:right] = estimated.rotation[:right]
    found = align_poses(Pose(wrong, estimated.shift_angstrom), true, generator)
    assert found.mirrored == mirrored
    # 300 particles of 2 degrees and 700 random ones: four times 2/sqrt(300).
    away = torch.rad2deg(geodesic_angle(found.rotation, hidden.rotation))
    assert away < 4 * 2 / math.sqrt(right) * 2


def test_error_of_the_mean_falls_with_particles(generator: torch.Generator) -> None:
    away = []
    for n in (100, 1600):
        true = random_poses(n, generator)
        noise = torch.randn((n, 3), generator=generator, dtype=torch.float64)
        estimated = turned(true, noise * 0.05)
        found = align_poses(estimated, true, generator, allow_mirror=False)
        away.append(float(found.rotation.sub(torch.eye(3)).norm()))
    # 16 times the particles: a quarter of the error, within the luck of one draw.
    assert away[1] < 0.6 * away[0]
    assert away[1] < 4 * 0.05 * math.sqrt(2 * 3 / 1600)


def test_errors_split_into_view_and_in_plane(generator: torch.Generator) -> None:
    true = random_poses(5, generator)
    still = GlobalAlignment(torch.eye(3).double(), False, torch.zeros(3).double())
    about_beam = torch.tensor([0.0, 0.0, -0.3], dtype=torch.float64).expand(5, 3)
    errors = pose_errors(turned(true, about_beam), true, still)
    torch.testing.assert_close(
        errors.in_plane_degrees, torch.full((5,), math.degrees(0.3)).double()
    )
    assert errors.view_degrees.max() < 1e-6
    tilt = torch.tensor([0.2, 0.1, 0.0], dtype=torch.float64).expand(5, 3)
    errors = pose_errors(turned(true, tilt), true, still)
    angle = torch.full((5,), math.degrees(math.hypot(0.2, 0.1))).double()
    torch.testing.assert_close(errors.view_degrees, angle)
    torch.testing.assert_close(errors.geodesic_degrees, angle)
    assert errors.in_plane_degrees.abs().max() < 1e-6


def test_summary_names_every_error(generator: torch.Generator) -> None:
    true = random_poses(11, generator)
    found = align_poses(true, true, generator)
    summary = pose_errors(true, true, found).summary()
    assert len(summary) == 12
    assert summary["geodesic_degrees_median"] < 1e-5
    assert summary["shift_angstrom_p95"] < 1e-5


@pytest.mark.parametrize("mirrored", [False, True])
def test_tangent_error_is_the_perturbation(
    mirrored: bool, generator: torch.Generator
) -> None:
    true = random_poses(40, generator)
    hidden = random_alignment(generator, mirrored)
    target = truth_in_estimated_frame(true, true, hidden)
    vectors = torch.randn((40, 3), generator=generator, dtype=torch.float64) * 0.05
    moved = torch.randn((40, 2), generator=generator, dtype=torch.float64)
    estimated = Pose(
        roma.rotvec_to_rotmat(-vectors) @ target.rotation,
        target.shift_angstrom - moved,
    )
    error = tangent_error(estimated, true, hidden)
    torch.testing.assert_close(error, torch.cat([vectors, moved], dim=-1))


def test_tangent_error_takes_the_nearest_mate(generator: torch.Generator) -> None:
    group = symmetry_rotations("D2")
    true = random_poses(20, generator)
    mates = Pose(true.rotation @ group[2], true.shift_angstrom)
    still = GlobalAlignment(torch.eye(3).double(), False, torch.zeros(3).double())
    # 1e-7: rotation vector of a product of rounded matrices.
    assert tangent_error(mates, true, still, group).abs().max() < 1e-7


def test_undetermined_origin_stays_zero(generator: torch.Generator) -> None:
    """All views along z: the height of the origin cannot be known."""
    turn = torch.zeros(30, 3, dtype=torch.float64)
    turn[:, 2] = torch.rand(30, generator=generator, dtype=torch.float64) * 6
    shift = torch.zeros(30, 2, dtype=torch.float64)
    true = Pose(roma.rotvec_to_rotmat(turn), shift)
    moved = (true.rotation @ torch.tensor([1.0, 2.0, 3.0]).double())[:, :2]
    found = align_poses(Pose(true.rotation, moved), true, generator, allow_mirror=False)
    expected = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found.origin_angstrom, expected, rtol=0, atol=1e-6)


def test_refuses_poses_that_do_not_match(generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="as many"):
        align_poses(random_poses(3, generator), random_poses(4, generator), generator)
