"""Widths of posteriors, fitted to truths."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame
from cryoinfer.inference.covariance_inflation import (
    fitted_inflation,
    fitted_narrowing,
    nearest_modes,
)
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_network import MixtureParameters
from cryoinfer.records import Latents, Pose

COUNT = 4000


def exact() -> tuple[MixtureParameters, torch.Tensor, torch.Tensor]:
    """Return two likely components of each image, and truths drawn from them."""
    generator = torch.Generator().manual_seed(3)
    rotation = random_rotations(2 * COUNT, generator).view(COUNT, 2, 3, 3)
    offset = torch.randn(COUNT, 2, 2, generator=generator, dtype=torch.float64)
    sd = torch.tensor([0.02, 0.03, 0.05, 0.2, 0.1], dtype=torch.float64)
    chosen = torch.randint(2, (COUNT,), generator=generator)
    step = sd * torch.randn(COUNT, 5, generator=generator, dtype=torch.float64)
    rows = torch.arange(COUNT)
    true = rotate_in_image_frame(rotation[rows, chosen], step[:, :3])
    weight = torch.tensor([0.5, 0.5, 1e-6])
    parameters = MixtureParameters(
        weight.log().expand(COUNT, 3),
        rotation.float(),
        offset.float(),
        torch.diag(1 / sd).float().expand(COUNT, 2, 5, 5),
    )
    moved = offset[rows, chosen] + step[:, 3:]
    return parameters, true.float(), moved.float()


@pytest.mark.parametrize("wider", [0.5, 1.0, 3.0])
def test_what_was_too_wide_or_too_narrow_is_found(wider: float) -> None:
    parameters, rotation, offset = exact()
    by = torch.tensor([wider, wider, wider, 2.0, 1.0])
    wrong = replace(parameters, factor=parameters.factor / by[:, None])
    found = fitted_narrowing(wrong, rotation, offset, torch.eye(3)[None])
    # A sd from d numbers each of 4,000 truths is known to 1 / sqrt(2 d 4000): 0.6 %
    # and 1.1 %; four of those.
    assert torch.allclose(found[:3], by[:3], rtol=0.026)
    assert torch.allclose(found[3:], by[3:], rtol=0.045)


def test_widths_are_brought_to_hold_four_fifths_of_the_truths() -> None:
    generator = torch.Generator().manual_seed(4)
    # Rotations, shifts and two amplitudes; the defocus is held.
    sd = torch.tensor([0.02, 0.03, 0.05, 0.4, 0.1, 0, 0.3, 0.2], dtype=torch.float64)
    by = torch.tensor([0.8, 0.8, 0.8, 1.5, 1.5, 1, 1.1, 1.1], dtype=torch.float64)
    step = sd * torch.randn(COUNT, 8, generator=generator, dtype=torch.float64)
    lost = torch.arange(COUNT) < COUNT // 50
    step[lost] *= 40
    rotation = random_rotations(COUNT, generator)
    truth = Latents(
        Pose(rotate_in_image_frame(rotation, step[:, :3]), step[:, 3:5]),
        step[:, 5],
        step[:, 6:],
    )
    zero = torch.zeros(COUNT, 2, dtype=torch.float64)
    found = ParticlePosterior.of_modes(
        Latents(Pose(rotation, zero), zero[:, 0], zero)[:, None],
        torch.ones(COUNT, 1, dtype=torch.float64),
        torch.diag((sd / by).square()).expand(COUNT, 1, 8, 8),
    )
    halves = torch.arange(COUNT).split(COUNT // 2)
    factor = fitted_inflation(
        [found[half] for half in halves], [truth[h] for h in halves]
    )
    # The quantile of 8,000 numbers is known to 1.2 %, and the 2 % that are lost move it
    # by as much; thrice the first and the second.
    assert torch.allclose(factor, by, rtol=0.06)
    assert factor[5] == 1.0
    twice = fitted_inflation([found.inflated(factor)], [truth])
    assert torch.allclose(twice, torch.ones_like(by), rtol=1e-9)


def test_the_mode_is_found_that_a_truth_belongs_to() -> None:
    generator = torch.Generator().manual_seed(5)
    sd = torch.tensor([0.02, 0.03, 0.05, 0.4, 0.1, 0], dtype=torch.float64)
    half_turn = torch.diag(torch.tensor([-1.0, -1, 1])).double()
    group = torch.stack([torch.eye(3).double(), half_turn])
    # Three modes: the last is where the second is, but has no weight.
    rotation = random_rotations(2 * 6, generator).view(6, 2, 3, 3)[:, [0, 1, 1]]
    zero = torch.zeros(6, 3, 2, dtype=torch.float64)
    found = ParticlePosterior.of_modes(
        Latents.rigid(Pose(rotation, zero), zero[..., 0]),
        torch.tensor([0.7, 0.3, 0.0]).double().expand(6, 3),
        torch.diag(sd.square()).expand(6, 3, 6, 6),
    )
    # Of the first, of the second, a mate of the second, and three of none: too far in
    # the rotation, in the shift, and in a direction that is known well.
    step = sd * torch.tensor(
        [
            [1.0, -2, 1, 0, 1, 0],
            [0.0, 3, -1, 1, 0, 0],
            [1.0, 1, 1, 1, 1, 0],
            [0.0, 0, 30, 0, 0, 0],
            [0.0, 0, 0, 7, 0, 0],
            [7.0, 0, 0, 0, 0, 0],
        ],
        dtype=torch.float64,
    )
    rows, mode = torch.arange(6), torch.tensor([0, 1, 1, 0, 0, 1])
    true = rotate_in_image_frame(rotation[rows, mode], step[:, :3])
    true[2] = true[2] @ half_turn
    truth = Latents.rigid(Pose(true, step[:, 3:5]), torch.zeros(6).double())
    modes, near = nearest_modes(found, truth, group)
    nearest = modes.mode().pose.rotation
    assert torch.equal(nearest, rotation[rows, mode][:3])
    expected = rotate_in_image_frame(nearest, step[:3, :3])
    torch.testing.assert_close(near.pose.rotation, expected)
    assert torch.equal(near.pose.shift_angstrom, step[:3, 3:5])
    assert torch.equal(modes.weight, torch.ones(3, 1).double())
