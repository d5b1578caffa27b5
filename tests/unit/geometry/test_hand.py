"""Maps and poses of the opposite hand."""

import pytest
import torch

from cryoinfer.geometry.hand import flip_hand, mirror_density
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.records import Pose


def test_flipping_the_hand_leaves_projections_of_points_unchanged() -> None:
    generator = torch.Generator().manual_seed(1)
    rotations = random_rotations(500, generator)
    points = torch.randn(20, 3, dtype=torch.float64, generator=generator)
    shift = torch.randn(len(rotations), 2, dtype=torch.float64, generator=generator)
    pose = Pose(rotations, shift)
    mirrored = points * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)

    def place(pose: Pose, points: torch.Tensor) -> torch.Tensor:
        return (points @ pose.rotation.mT)[..., :2] + pose.shift_angstrom[:, None]

    flipped = flip_hand(pose)
    torch.testing.assert_close(
        place(flipped, mirrored), place(pose, points), atol=1e-13, rtol=0
    )
    torch.testing.assert_close(
        torch.linalg.det(flipped.rotation), torch.ones(500, dtype=torch.float64)
    )
    # The mirror moves the density, so the pose must move with it.
    assert (place(pose, mirrored) - place(pose, points)).abs().max() > 1


def test_a_pose_that_looks_along_the_axis_is_its_own_mirror_image() -> None:
    identity = Pose(torch.eye(3)[None], torch.zeros(1, 2))
    assert torch.equal(flip_hand(identity).rotation, identity.rotation)


@pytest.mark.parametrize("box", [6, 7])
def test_mirroring_keeps_the_centre(box: int) -> None:
    density = torch.zeros(box, box, box)
    centre = box // 2
    density[centre, centre, centre] = 1.0
    density[centre + 2, centre, centre + 1] = 2.0
    mirrored = mirror_density(density)
    assert mirrored[centre, centre, centre] == 1.0
    assert mirrored[centre - 2, centre, centre + 1] == 2.0
    assert torch.equal(mirror_density(mirrored), density)
