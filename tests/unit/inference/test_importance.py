"""Mixtures fitted to posteriors: known ones, skew ones, and those of images."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.grid_posterior import grid_posterior, kl_divergence
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.importance import ImportanceSampling, fitted
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.posterior_mixture import mixture_of
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, Optics, Pose

C1 = symmetry_rotations("C1")
FLAT = PosePrior(1e6, 0.0)
"""A prior that does not matter, with a defocus that is held."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blank(n: int) -> WhitenedImages:
    """Return images that show nothing but which of them they are."""
    disc = FourierDisc.of_box(8, 1)
    row = torch.arange(n)[:, None].expand(n, len(disc))
    one = torch.ones(n, len(disc))
    optics = Optics.without_ctf(n, 1.0)
    return WhitenedImages(disc, row.to(torch.complex64), one, optics, one[0], 1.0)


@dataclass
class Known:
    """A likelihood whose posteriors are mixtures; counts how often it is asked."""

    mixture: ParticlePosterior
    symmetry: Tensor
    asked: int = 0

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        self.asked += len(latents)
        own = self.mixture[images.coefficients[:, 0].real.long()]
        return own.log_prob_of_orbit(latents, self.symmetry)


def sums(
    n: int, modes: int, sd: tuple[float, ...], background: float = 0.0
) -> ParticlePosterior:
    """Return mixtures of correlated Gaussians, their modes some widths apart."""
    generator = seeded(4)
    free = torch.tensor(sd, dtype=torch.float64)
    shape = n, modes, 6, 12
    mixed_up = torch.randn(shape, generator=generator, dtype=torch.float64)
    covariance = mixed_up @ mixed_up.mT / 12 * free[:, None] * free
    rotation = random_rotations(n, generator)[:, None].expand(n, modes, 3, 3)
    shift = torch.zeros(n, modes, 2, dtype=torch.float64)
    centre = Latents.rigid(Pose(rotation, shift), shift[..., 0])
    one = torch.ones(n, modes, dtype=torch.float64)
    spread = ParticlePosterior.of_modes(centre, one, 2 * covariance)
    alone = [spread.mode_alone(torch.full((n,), k)) for k in range(modes)]
    at = [one.sample(1, generator) for one in alone]
    weight = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)[:modes]
    weight = (weight / weight.sum()).expand(n, modes) * (1 - background)
    return ParticlePosterior(
        Latents.joined(at).transposed(),
        weight,
        covariance,
        torch.full((n,), torch.nan, dtype=torch.float64),
        torch.full((n,), background, dtype=torch.float64),
        torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64),
    )


def divergence(
    truth: ParticlePosterior, found: ParticlePosterior, symmetry: Tensor
) -> Tensor:
    """Return KL(truth || found) by draws, to about a hundredth of a nat, (n,)."""
    drawn = truth.sample(4000, seeded(9))
    true = truth.log_prob_of_orbit(drawn, symmetry)
    return (true - found.log_prob_of_orbit(drawn, symmetry)).mean(0)


def off(truth: ParticlePosterior) -> ParticlePosterior:
    """Return wide Gaussians, all of one shape, about two draws from every mode."""
    n, modes = truth.weight.shape
    generator = seeded(2)
    alone = [truth.mode_alone(torch.full((n,), k)) for k in range(modes)]
    at = Latents.joined([one.sample(2, generator) for one in alone])
    count = 2 * modes
    shape = 2.0 * truth.covariance[:, :1].expand(n, count, 6, 6)
    return ParticlePosterior.of_modes(
        at.transposed(),
        torch.full((n, count), 1 / count, dtype=torch.float64),
        shape,
    )


@pytest.mark.parametrize(
    "sd",
    [
        (0.05, 0.08, 0.06, 0.5, 0.7, 0.0),
        (0.05, 0.08, 0.06, 0.5, 0.7, 300.0),
        (0.0, 0.0, 0.1, 0.0, 0.0, 0.0),
    ],
)
def test_known_mixtures_are_found_from_a_wide_gaussian(sd) -> None:
    truth = sums(5, 3, sd)
    turns = sum(value > 0 for value in sd[:3])
    prior = PosePrior(1e6 * (sd[3] > 0), 1e6 * (sd[5] > 0), rotation_unknowns=turns)
    sampling, start = ImportanceSampling(C1), off(truth)
    found = sampling.fit(blank(5), Known(truth, C1), prior, start)
    before, after = divergence(truth, start, C1), divergence(truth, found, C1)
    # Six unknowns of three Gaussians are 84 numbers, from 3,072 draws at most, of which
    # those of the first rounds count for little.
    assert (before > 0.05).all()
    assert (after < 0.3 * before).all()
    assert after.mean() < 0.25
    held = torch.tensor(sd) == 0
    assert not found.covariance[..., held, :].any()
    torch.testing.assert_close(
        found.weight.sum(1) + found.background, torch.ones(5, dtype=torch.float64)
    )


def test_a_mixture_that_is_the_posterior_is_drawn_from_once() -> None:
    truth = sums(4, 2, (0.05, 0.08, 0.06, 0.5, 0.7, 0.0))
    sampling, known = ImportanceSampling(C1), Known(truth, C1)
    found = sampling.fit(blank(4), known, FLAT, truth)
    assert known.asked == 4 * sampling.draws
    # A fit to 512 draws: half a nat for every thousand numbers.
    assert divergence(truth, found, C1).mean() < 0.06


def test_the_background_is_weighed() -> None:
    truth = sums(4, 2, (0.05, 0.08, 0.06, 0.5, 0.7, 0.0), background=0.3)
    start = replace(
        truth, weight=truth.weight / 0.7 * 0.5, background=truth.weight[:, 0] * 0 + 0.5
    )
    found = ImportanceSampling(C1).fit(blank(4), Known(truth, C1), FLAT, start)
    # 512 draws of a share of 0.3 to 0.5: a standard deviation of 0.025.
    assert (found.background - 0.3).abs().max() < 0.08


def test_mates_of_a_symmetric_structure_are_one_pose() -> None:
    c3 = symmetry_rotations("C3")
    truth = sums(4, 2, (0.05, 0.08, 0.06, 0.5, 0.7, 0.0))
    pose = truth.modes.pose
    turned = pose.rotation.clone()
    turned[:, 1] = turned[:, 1] @ c3[1]
    mates = replace(truth.modes, pose=replace(pose, rotation=turned))
    truth = replace(truth, modes=mates)
    start = truth.inflated(torch.full((6,), 1.5, dtype=torch.float64))
    found = ImportanceSampling(c3).fit(blank(4), Known(truth, c3), FLAT, start)
    assert divergence(truth, found, c3).mean() < 0.06


def test_a_step_of_the_fit_takes_the_moments_of_the_draws() -> None:
    truth = sums(3, 1, (0.02, 0.03, 0.01, 0.5, 0.7, 0.0))
    drawn = truth.sample(20_000, seeded(1))
    weight = torch.full((20_000, 3), 1 / 20_000, dtype=torch.float64)
    wrong = truth.inflated(torch.full((6,), 2.0, dtype=torch.float64))
    found = fitted(wrong, drawn, weight)
    step = truth.departures(drawn)[:, :, 0]
    apart = step - step.mean(0)
    exact = torch.einsum("sni,snj->nij", apart, apart) / 20_000
    # What was before counts for 30 of 20,030 draws, and is four times as much.
    torch.testing.assert_close(found.covariance[:, 0], exact, rtol=0.006, atol=1e-7)
    shift = found.modes.pose.shift_angstrom[:, 0]
    torch.testing.assert_close(
        shift, drawn.pose.shift_angstrom.mean(0), rtol=1e-9, atol=0
    )


def test_a_component_without_draws_stays() -> None:
    truth = sums(2, 2, (0.02, 0.03, 0.01, 0.5, 0.7, 0.0))
    drawn = truth.mode_alone(torch.zeros(2, dtype=torch.int64)).sample(50, seeded())
    step = torch.zeros(2, 2, 6, dtype=torch.float64)
    step[:, 1, 3:5] = 1000.0
    far = replace(truth, modes=moved(truth.modes, step))
    found = fitted(far, drawn, torch.full((50, 2), 0.02, dtype=torch.float64))
    assert torch.equal(found.covariance[:, 1], far.covariance[:, 1])
    shift, before = (one.modes.pose.shift_angstrom for one in (found, far))
    assert torch.equal(shift[:, 1], before[:, 1])
    assert not found.weight[:, 1].any()
    assert found.modes.pose.rotation.isfinite().all()


def test_draws_are_those_of_a_seed() -> None:
    truth = sums(3, 2, (0.05, 0.08, 0.06, 0.5, 0.7, 0.0))
    sampling = ImportanceSampling(C1)
    first, again, other = (
        one.fit(blank(3), Known(truth, C1), FLAT, off(truth))
        for one in (sampling, sampling, replace(sampling, seed=1))
    )
    assert torch.equal(first.covariance, again.covariance)
    assert not torch.equal(first.covariance, other.covariance)


def test_posteriors_of_images_come_nearer_to_the_exact_ones(scene) -> None:
    prior = PosePrior(5.0, 0.0)
    made = scene(6, noise_sd=1.0)
    mode = PosteriorModes.unknown(made.truth)
    for _ in range(3):
        mode = refine_locally(made.projector, made.images, mode.latents, prior, 8, 0.1)
    laplace = ParticlePosterior.of_modes(
        mode.latents[:, None],
        torch.ones(6, 1, dtype=torch.float64),
        mode.covariance()[:, None],
    )
    exact = grid_posterior(made.projector, made.images, prior, laplace)
    wide = laplace.inflated(torch.full((6,), 1.3, dtype=torch.float64))
    wider = wide.inflated(torch.full((6,), 2.0).double())
    share = torch.tensor([0.7, 0.3], dtype=torch.float64).expand(6, 2)
    start = mixture_of((wide, wider), share)
    found = ImportanceSampling(C1).fit(made.images, made.projector, prior, start)
    before, after = (kl_divergence(exact, one) for one in (laplace, found))
    assert before.median() > 0.1, before
    assert after.median() < 0.5 * before.median(), (before, after)


@pytest.mark.parametrize("pixel_size", [2.0, 2.5])
def test_likelihoods_of_maps_are_the_residuals(scene, pixel_size: float) -> None:
    made = scene(5, 0.3, pixel_size_angstrom=pixel_size, defocus_error_angstrom=400.0)
    other = made.truth[torch.tensor([1, 2, 3, 4, 0])]
    for latents in (made.truth, other):
        held = torch.zeros(5, dtype=torch.float64)
        for defocus in (held, latents.defocus_offset_angstrom):
            at = Latents.rigid(latents.pose, defocus)
            found = made.projector.log_likelihood(made.images, at)
            exact = -made.loss_of(at)
            # Sums in single precision of images whose power is 1e3 to 1e5.
            torch.testing.assert_close(
                found, exact, rtol=1e-4, atol=1e-5 * float(made.power().max())
            )
