"""The mixture of Laplace modes is a probability density, and samples follow it."""

import io
import math
from dataclasses import replace

import pytest
import torch

from cryoinfer.geometry.rotation_volume import LOG_VOLUME_OF_ROTATIONS
from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.records import Latents, Pose

C1 = symmetry_rotations("C1")

SD = torch.tensor([0.02, 0.03, 0.01, 0.5, 0.4, 0.0], dtype=torch.float64)


def mixture(n: int = 3, modes: int = 2) -> ParticlePosterior:
    generator = torch.Generator().manual_seed(1)
    rotation = random_rotations(n * modes, generator).unflatten(0, (n, modes))
    shift = torch.randn(n, modes, 2, generator=generator, dtype=torch.float64)
    weight = torch.tensor([0.7, 0.3], dtype=torch.float64)[:modes]
    covariance = torch.diag(SD**2).expand(n, modes, 6, 6)
    offset = torch.zeros(n, modes, dtype=torch.float64)
    weight = (weight / weight.sum()).expand(n, modes)
    at = Latents.rigid(Pose(rotation, shift), offset)
    return ParticlePosterior.of_modes(at, weight, covariance)


def broad(background: float = 0.2) -> ParticlePosterior:
    """Return one particle whose rotation is hardly known, of all defocus."""
    generator = torch.Generator().manual_seed(5)
    sd = torch.tensor([0.6, 0.5, 0.4, 1.0, 2.0, 50.0], dtype=torch.float64)
    turn = random_rotations(2, generator)[0]
    wide = torch.block_diag(turn, torch.eye(3, dtype=torch.float64))
    covariance = wide @ torch.diag(sd**2) @ wide.T
    pose = Pose(
        random_rotations(2, generator)[None],
        torch.randn(1, 2, 2, generator=generator, dtype=torch.float64),
    )
    return ParticlePosterior(
        modes=Latents.rigid(pose, torch.zeros(1, 2, dtype=torch.float64)),
        weight=torch.tensor([[0.6, 0.4]], dtype=torch.float64) * (1 - background),
        covariance=covariance.expand(1, 2, 6, 6),
        log_likelihood=torch.full((1,), torch.nan, dtype=torch.float64),
        background=torch.tensor([background], dtype=torch.float64),
        prior_variance=torch.tensor([9.0, 9.0, 100.0**2], dtype=torch.float64),
    )


def test_a_broad_density_integrates_to_one_over_all_rotations() -> None:
    # Uniform rotations, and shift and defocus from a wider Gaussian: the mean ratio
    # is the integral.
    posterior, generator = broad(), torch.Generator().manual_seed(6)
    n = 400_000
    sd = torch.tensor([4.0, 4.0, 120.0], dtype=torch.float64)
    step = torch.randn(n, 1, 3, generator=generator, dtype=torch.float64) * sd
    rotation = random_rotations(n, generator)[:, None]
    drawn = Latents.rigid(Pose(rotation, step[..., :2]), step[..., 2])
    log_wide = (-0.5 * (step / sd) ** 2 - (sd * math.sqrt(2 * math.pi)).log()).sum(-1)
    ratio = (posterior.log_prob(drawn) - log_wide + LOG_VOLUME_OF_ROTATIONS).exp()
    # The ratio's sd is about 4: four standard errors.
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.025), ratio.std()


def test_draws_and_density_agree_with_a_background() -> None:
    # The mean of q'/q over draws of q is one for any density q' that q covers.
    posterior, other = broad(0.3), broad(0.6)
    drawn = posterior.sample(100_000, torch.Generator().manual_seed(7))
    ratio = (other.log_prob(drawn) - posterior.log_prob(drawn)).exp()
    # Between 0.57 and 2: three standard errors of an sd of 0.5.
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.005), ratio.std()


def test_the_densest_orbit_comes_first() -> None:
    group = symmetry_rotations("C2")
    generator = torch.Generator().manual_seed(1)
    first, second = random_rotations(2, generator)
    rotation = torch.stack([first, second, second @ group[1]])[None]
    shift = torch.zeros(1, 3, 2, dtype=torch.float64)
    weight = torch.tensor([[0.4, 0.3, 0.3]], dtype=torch.float64)
    covariance = 0.01 * torch.eye(6, dtype=torch.float64).expand(1, 3, 6, 6)
    mixture = ParticlePosterior.of_modes(
        Latents.rigid(Pose(rotation, shift), shift[..., 0]), weight, covariance
    )
    folded = mixture.folded(group)
    # Two halves of one peak outweigh the single one.
    assert torch.equal(folded.weight, weight[:, [1, 2, 0]])
    turned = folded.modes.pose.rotation
    torch.testing.assert_close(turned[:, 0], turned[:, 1])
    # A group turns poses into mates and leaves all densities of orbits as they were.
    drawn = mixture.sample(5, generator)
    torch.testing.assert_close(
        folded.log_prob_of_orbit(drawn, group), mixture.log_prob_of_orbit(drawn, group)
    )
    assert mixture.folded(C1) is mixture


def test_credible_levels_of_draws_are_uniform() -> None:
    posterior = broad()
    truth = posterior.sample(400, torch.Generator().manual_seed(8))
    levels = torch.cat(
        [
            posterior.credible_level(
                truth[i], 200, torch.Generator().manual_seed(i), C1
            )
            for i in range(400)
        ]
    )
    # Five standard errors of a share among 400.
    for level in (0.5, 0.9):
        share = (levels <= level).double().mean().item()
        assert share == pytest.approx(
            level, abs=5 * math.sqrt(level * (1 - level) / 400)
        )


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
    moved = Latents.rigid(
        Pose(rotate_in_image_frame(mode.pose.rotation, turn), mode.pose.shift_angstrom),
        mode.defocus_offset_angstrom,
    )
    drop = posterior.log_prob(mode) - posterior.log_prob(moved)
    # One standard deviation; rotations at an angle fill less volume than their
    # vectors do, by a factor of 1 - angle^2 / 12.
    expected = torch.full((3,), 0.5 - 0.02**2 / 12, dtype=torch.float64)
    torch.testing.assert_close(drop, expected, rtol=0, atol=1e-6)


def test_density_integrates_to_one() -> None:
    # Importance sampling from a wider mixture: the mean weight is the integral. The
    # weights' own sd, printed by the assertion, is below 2 over 40,000 draws: 0.05
    # is five standard errors.
    posterior = mixture(n=1)
    wide = ParticlePosterior.of_modes(
        posterior.modes, posterior.weight, posterior.covariance * 1.5
    )
    drawn = wide.sample(40_000, torch.Generator().manual_seed(2))
    ratio = (posterior.log_prob(drawn) - wide.log_prob(drawn)).exp()
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.05), ratio.std()


def test_samples_have_the_covariance_and_the_weights() -> None:
    posterior = mixture(n=1)
    drawn = posterior.sample(20_000, torch.Generator().manual_seed(3))
    first = posterior.mode().pose.rotation
    near = (drawn.pose.rotation - first).flatten(2).norm(dim=2) < 0.3
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


@pytest.mark.parametrize("one_covariance", [True, False])
def test_where_there_are_fewer_modes_the_first_repeats_without_weight(
    one_covariance: bool,
) -> None:
    known = mixture()
    if one_covariance:
        known = known.with_first_covariance()
    found = known.best(5)
    assert found.weight.shape == (3, 5)
    torch.testing.assert_close(
        found.best(2).to_state(),
        known.to_state(),
        rtol=0,
        atol=0,
        equal_nan=True,
    )
    assert not found.weight[:, 2:].any()
    for k in range(2, 5):
        assert torch.equal(found.modes.pose.rotation[:, k], known.mode().pose.rotation)
        assert torch.equal(found.covariances[:, k], known.covariances[:, 0])
    assert found.covariance.shape[1] == (1 if one_covariance else 5)
    # The density is the same, and so is what is drawn.
    drawn = known.sample(50, torch.Generator().manual_seed(2))
    again = found.sample(50, torch.Generator().manual_seed(2))
    torch.testing.assert_close(found.log_prob(drawn), known.log_prob(drawn))
    assert torch.equal(again.pose.rotation, drawn.pose.rotation)


def test_the_best_modes_are_the_first_with_their_weights() -> None:
    known = mixture()
    found = known.best(1)
    assert torch.equal(found.weight, known.weight[:, :1])
    assert torch.equal(found.modes.pose.rotation, known.modes.pose.rotation[:, :1])
    assert torch.equal(found.covariance, known.covariance[:, :1])
    assert torch.equal(found.background, known.background)


def test_particles_at_some_rows_are_replaced() -> None:
    known, part = mixture(n=4), broad()
    rows = torch.tensor([2])
    found = known.with_rows(rows, part)
    rest = torch.tensor([0, 1, 3])
    for own, expected in ((found[rows], part), (found[rest], known[rest])):
        # The prior of the background is one of all, and not a particle's.
        expected = replace(expected, prior_variance=known.prior_variance)
        torch.testing.assert_close(
            own.to_state(), expected.to_state(), rtol=0, atol=0, equal_nan=True
        )
    # What was given is as it was.
    assert torch.equal(known.weight, mixture(n=4).weight)


def test_the_precision_of_replaced_rows_is_that_of_the_others() -> None:
    known = mixture(n=2)
    single = replace(known, weight=known.weight.float())
    assert single.with_rows(torch.tensor([0]), known[:1]).weight.dtype == torch.float32


@pytest.mark.parametrize("one_covariance", [True, False])
def test_a_state_holds_all_there_is(one_covariance: bool) -> None:
    known = broad()
    if one_covariance:
        known = known.with_first_covariance()
    torch.save(known.to_state(), file := io.BytesIO())
    file.seek(0)
    again = ParticlePosterior.of_state(torch.load(file, weights_only=True))
    drawn = known.sample(5, torch.Generator().manual_seed(3))
    assert torch.equal(again.log_prob(drawn), known.log_prob(drawn))
    torch.testing.assert_close(
        again.to_state(), known.to_state(), rtol=0, atol=0, equal_nan=True
    )
