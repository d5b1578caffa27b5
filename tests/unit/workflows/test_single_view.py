"""Particles that are all seen from one direction."""

import pytest
import torch

from cryoinfer.geometry.rotations import (
    geodesic_angle,
    random_rotations,
    random_turns_in_plane,
    rotate_in_image_frame,
)
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.single_view import from_mean_view


def test_the_mean_view_is_reached_by_the_least_turn() -> None:
    generator = torch.Generator().manual_seed(0)
    there = random_rotations(1, generator)[0].double()
    turns = random_turns_in_plane(50, generator).double() @ there
    tilt = 0.1 * torch.randn(50, 3, generator=generator, dtype=torch.float64)
    tilt[:, 2] = 0.0
    tilted = rotate_in_image_frame(turns, tilt)
    latents = Latents.rigid(Pose(tilted, torch.ones(50, 2)), torch.zeros(50))
    seen = from_mean_view(latents).pose.rotation
    mean = tilted[:, 2].mean(0)
    mean = (mean / mean.norm()).expand(50, 3)
    torch.testing.assert_close(seen[:, 2], mean, atol=1e-12, rtol=0)
    angle = torch.acos((tilted[:, 2] * mean).sum(1))
    # arccos loses half of the digits near 0.
    torch.testing.assert_close(geodesic_angle(seen, tilted), angle, atol=1e-7, rtol=0)


@pytest.mark.parametrize("views", ["one", "uniform"])
def test_one_view_makes_no_structure(simulated, views: str) -> None:
    made = simulated(400, box=32, pixel_size_angstrom=2.8, snr_db=0.0, views=views)
    config = AbinitioConfig(max_shift_angstrom=0.0, starts=1, resolution_angstrom=8.0)
    found = abinitio(made.particles, config).reconstruction.evidence
    assert found is not None
    assert found.is_seen
    assert found.is_single_view == (views == "one")
    assert found.is_structure == (views == "uniform")
