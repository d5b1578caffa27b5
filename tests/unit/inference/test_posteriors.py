"""The mixture of Laplace modes is a probability density, and samples follow it."""

import math

import pytest
import torch

from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame
from cryoinfer.inference.posteriors import LaplaceMixture
from cryoinfer.records import Latents, Pose

SD = torch.tensor([0.02, 0.03, 0.01, 0.5, 0.4, 0.0], dtype=torch.float64)


def mixture(n: int = 3, modes: int = 2) -> LaplaceMixture:
    generator = torch.Generator().manual_seed(1)
    rotation = random_rotations(n * modes, generator).unflatten(0, (n, modes))
    shift = torch.randn(n, modes, 2, generator=generator, dtype=torch.float64)
    weight = torch.tensor([0.7, 0.3], dtype=torch.float64)[:modes]
    covariance = torch.diag(SD**2).expand(n, modes, 6, 6)
    offset = torch.zeros(n, modes, dtype=torch.float64)
    weight = (weight / weight.sum()).expand(n, modes)
    return LaplaceMixture(rotation, shift, offset, weight, covariance)


def test_density_at_the_mode_is_the_gaussian_s() -> None:
    posterior = mixture(modes=1)
    free = SD[:5]
    expected = -0.5 * 5 * math.log(2 * math.pi) - free.log().sum()
    # The logarithm of a rotation that rounding keeps from the identity is good to
    # about 1e-6 rad, and that is squared over a sd of 0.01.
    torch.testing.assert_close(
        posterior.log_prob(posterior.mode()), expected.expand(3), rtol=0, atol=1e-6
    )


def test_density_falls_as_a_gaussian_in_the_image_frame() -> None:
    posterior = mixture(modes=1)
    turn = torch.tensor([0.02, 0.0, 0.0], dtype=torch.float64)
    mode = posterior.mode()
    moved = Latents(
        Pose(rotate_in_image_frame(mode.pose.rotation, turn), mode.pose.shift_angstrom),
        mode.defocus_offset_angstrom,
    )
    drop = posterior.log_prob(mode) - posterior.log_prob(moved)
    torch.testing.assert_close(
        drop, torch.full((3,), 0.5, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_density_integrates_to_one() -> None:
    # Importance sampling from a wider mixture: the mean weight is the integral. The
    # weights' own sd, printed by the assertion, is below 2 over 40,000 draws: 0.05
    # is five standard errors.
    posterior = mixture(n=1)
    wide = LaplaceMixture(
        posterior.rotation,
        posterior.shift_angstrom,
        posterior.defocus_offset_angstrom,
        posterior.weight,
        posterior.covariance * 1.5,
    )
    drawn = wide.sample(40_000, torch.Generator().manual_seed(2))
    ratio = (posterior.log_prob(drawn) - wide.log_prob(drawn)).exp()
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.05), ratio.std()


def test_samples_have_the_covariance_and_the_weights() -> None:
    posterior = mixture(n=1)
    drawn = posterior.sample(20_000, torch.Generator().manual_seed(3))
    near = (drawn.pose.rotation - posterior.rotation[:, 0]).flatten(2).norm(dim=2) < 0.3
    # Three standard errors of a share of 0.7 in 20,000.
    assert near.double().mean().item() == pytest.approx(0.7, abs=0.01)
    spread = drawn.pose.shift_angstrom[near].std(0)
    torch.testing.assert_close(spread, SD[3:5], rtol=0.03, atol=0)
    # What was held stays.
    assert not drawn.defocus_offset_angstrom.any()


def test_entropy_is_the_mean_negative_log_density() -> None:
    posterior = mixture()
    drawn = posterior.sample(20_000, torch.Generator().manual_seed(4))
    measured = -posterior.log_prob(drawn).mean(0)
    # The sd of the log density of 5 unknowns is 1.6: 0.05 is four standard errors.
    torch.testing.assert_close(posterior.entropy(), measured, rtol=0, atol=0.05)
