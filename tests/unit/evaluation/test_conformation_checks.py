"""What z may be instead of a conformation: known answers."""

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.conformation_checks import predicted_share, rigid_share
from cryoinfer.geometry.rotations import random_rotations

N = 2000


def poses() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(N, generator).double()
    shift = torch.randn(N, 2, generator=generator).double()
    defocus = 10000 + 1000 * torch.randn(N, generator=generator).double()
    return rotation, shift, defocus


@pytest.mark.parametrize("what", ["view", "in the plane", "shift", "defocus"])
def test_z_that_follows_the_pose_is_predicted(what: str) -> None:
    rotation, shift, defocus = poses()
    z = {
        "view": rotation[:, 2, 2] ** 2,
        "in the plane": rotation[:, 0, 0],
        "shift": shift[:, 1],
        "defocus": defocus,
    }[what]
    share = predicted_share(z[:, None], rotation, shift, defocus)
    assert share[0] > 0.99  # polynomials of these hold it; the ridge takes a little


def test_z_of_its_own_is_not_predicted() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(N, 2, generator=generator).double()
    # 48 coefficients of 1,000 particles explain a twentieth of those alone.
    assert max(predicted_share(z, *poses())) < 0.05


def blobs(side: int, places: Tensor, weights: Tensor) -> Tensor:
    """Return smooth blobs, of 2 voxels sd, on axes (z, y, x)."""
    line = torch.arange(side).double() - side // 2
    grid = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)
    away = (grid[..., None, :] - places.flip(1)).square().sum(-1)
    return (weights * torch.exp(-away / 8)).sum(-1)


PLACES = torch.tensor([[3.0, 0, 1], [-4, 2, 0], [0, -3, -2], [1, 4, 4]]).double()
WEIGHTS = torch.tensor([1.0, 2.0, 1.5, 0.7]).double()


def test_a_turn_of_the_whole_is_a_rigid_motion() -> None:
    small = 0.01
    turned = PLACES.clone()
    turned[:, 0] = PLACES[:, 0] - small * PLACES[:, 1]
    turned[:, 1] = PLACES[:, 1] + small * PLACES[:, 0]
    mean = blobs(24, PLACES, WEIGHTS)
    moved = blobs(24, turned, WEIGHTS) - mean
    faded = blobs(24, PLACES[:1], WEIGHTS[:1])
    share = rigid_share(torch.stack([mean, moved, faded]))
    assert share[0] > 0.98  # differences between voxels miss the finest detail
    assert share[1] < 0.3
