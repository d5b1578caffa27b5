"""Sums over lattices against known integrals, quadrature and importance sampling."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.grid_posterior import (
    GridPosterior,
    grid_posterior,
    kl_divergence,
)
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.rotation_volume import LOG_VOLUME_OF_ROTATIONS
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.records import Latents, Pose

PRIOR = PosePrior(5.0, 0.0)
WITH_DEFOCUS = PosePrior(5.0, 500.0)
HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))

# A step of one standard deviation errs by 5e-9 a dimension, what is cut off by 3e-4;
# the rest is curvature, and float32 products of images of power 3e3 to 1e5.
CLOSE = 0.01


def laplace(*modes: PosteriorModes, prior: PosePrior = PRIOR) -> ParticlePosterior:
    """Return the mixture of n particles with a mode of each refinement."""
    evidence = torch.stack([one.log_evidence(prior) for one in modes], 1)
    return ParticlePosterior.of_modes(
        Latents.joined([one.latents[None] for one in modes]).transposed(),
        evidence.softmax(1),
        torch.stack([one.covariance() for one in modes], 1),
    )


def refined(made, prior: PosePrior = PRIOR) -> PosteriorModes:
    # To the very mode: a step that gains less than a tenth of a nat ends a refinement.
    found = PosteriorModes.unknown(made.truth)
    for _ in range(3):
        found = refine_locally(
            made.projector, made.images, found.latents, prior, 8, 0.1
        )
    return found


def summed(made, near: ParticlePosterior, prior: PosePrior = PRIOR) -> GridPosterior:
    return grid_posterior(made.projector, made.images, prior, near)


def log_posterior(made, latents: Latents, prior: PosePrior) -> Tensor:
    """Return the log of likelihood times prior of l draws for n images, (l, n)."""
    many = latents.pose.shift_angstrom.shape[0]
    rows = torch.arange(len(made.images)).repeat(many)
    repeated = replace(made, images=made.images.select(rows))
    loss = repeated.loss(
        latents.pose.rotation.flatten(0, 1),
        latents.pose.shift_angstrom.flatten(0, 1),
        latents.defocus_offset_angstrom.flatten(),
    )
    whitened = latents.pose.shift_angstrom / prior.shift_sd_angstrom
    log_prior = -0.5 * whitened.square().sum(-1) - LOG_VOLUME_OF_ROTATIONS
    log_prior -= 2 * math.log(prior.shift_sd_angstrom * math.sqrt(2 * math.pi))
    if prior.defocus_sd_angstrom > 0:
        whitened = latents.defocus_offset_angstrom / prior.defocus_sd_angstrom
        log_prior = log_prior - 0.5 * whitened.square()
        log_prior -= math.log(prior.defocus_sd_angstrom * math.sqrt(2 * math.pi))
    return log_prior - loss.view(many, -1)


def held_rotation(truth: Latents, shift: Tensor, variance: Tensor) -> ParticlePosterior:
    """Return the mixture whose unknowns are those with a variance, (6,)."""
    n = len(truth)
    pose = Pose(truth.pose.rotation[:, None], shift.expand(n, 1, 2))
    return ParticlePosterior.of_modes(
        Latents.rigid(pose, torch.zeros(n, 1, dtype=torch.float64)),
        torch.ones(n, 1, dtype=torch.float64),
        torch.diag(variance).expand(n, 1, 6, 6),
    )


def test_without_a_map_the_posterior_is_the_prior(scene) -> None:
    made = scene(2, noise_sd=0.3)
    flat = replace(made.volume, values=torch.zeros_like(made.volume.values))
    # Misplaced by several of their own standard deviations, and too narrow.
    near = held_rotation(
        made.truth,
        torch.tensor([1.0, -1.0], dtype=torch.float64),
        torch.tensor([0, 0, 0, 0.3, 0.3, 900.0], dtype=torch.float64),
    )
    exact = grid_posterior(MapProjector(flat), made.images, PosePrior(2.0, 100.0), near)
    # The prior is normalised: what is left is the constant of the image. Of a
    # Gaussian of 3 dimensions 2e-5 lie more than five standard deviations out.
    torch.testing.assert_close(exact.log_evidence, -made.power(), rtol=1e-7, atol=1e-4)
    zero = torch.zeros(2, 2, dtype=torch.float64)
    origin = Latents.rigid(Pose(made.truth.pose.rotation, zero), zero[:, 0])
    mean, covariance = exact.moments(origin)
    expected = torch.diag(torch.tensor([0, 0, 0, 4.0, 4.0, 1e4], dtype=torch.float64))
    assert (mean[:, 3:5].abs() < 1e-2).all()
    torch.testing.assert_close(
        covariance, expected.expand(2, 6, 6), rtol=1e-3, atol=0.05
    )
    # And it is the Gaussian of the prior that it diverges from by nothing.
    truth = held_rotation(
        made.truth, torch.zeros(2, dtype=torch.float64), expected.diagonal()
    )
    assert (kl_divergence(exact, truth).abs() < 1e-4).all()


def test_shifts_alone_against_quadrature(scene) -> None:
    made = scene(3, noise_sd=0.3)
    variance = torch.tensor([0, 0, 0, 0.01, 0.01, 0], dtype=torch.float64)
    shift = made.truth.pose.shift_angstrom
    near = held_rotation(made.truth, shift[:, None], variance)
    exact = summed(made, near)
    # Another sum, of 41 x 41 cells about the truth: the sd is about 0.07 A.
    axis = (torch.arange(41, dtype=torch.float64) - 20) * 0.03
    near_truth = shift + torch.cartesian_prod(axis, axis)[:, None]
    rotation = made.truth.pose.rotation.expand(len(near_truth), 3, 3, 3)
    latents = Latents.rigid(
        Pose(rotation, near_truth), torch.zeros_like(near_truth[..., 0])
    )
    values = log_posterior(made, latents, PRIOR) + LOG_VOLUME_OF_ROTATIONS
    expected = torch.logsumexp(values, 0) + math.log(0.03**2)
    torch.testing.assert_close(exact.log_evidence, expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize(
    "prior", [PRIOR, pytest.param(WITH_DEFOCUS, marks=pytest.mark.slow)]
)
def test_evidence_agrees_with_importance_sampling(scene, prior) -> None:
    made = scene(3, noise_sd=0.2)
    near = laplace(refined(made, prior), prior=prior)
    exact = summed(made, near, prior)
    wide = replace(near, covariance=near.covariance * 1.5)
    drawn = wide.sample(4000, torch.Generator().manual_seed(1))
    ratio = log_posterior(made, drawn, prior) - wide.log_prob(drawn)
    sampled = torch.logsumexp(ratio, 0) - math.log(4000)
    # Two of three draws count in full: the ratio's sd is 0.7, over sqrt(4000) 0.011.
    torch.testing.assert_close(exact.log_evidence, sampled, rtol=0, atol=0.05)


@pytest.mark.parametrize("factor", [0.1, 9.0])
def test_the_width_of_the_lattice_does_not_matter(scene, factor) -> None:
    made = scene(3, noise_sd=0.2)
    near = laplace(refined(made))
    other = replace(near, covariance=near.covariance * factor)
    expected, found = summed(made, near), summed(made, other)
    torch.testing.assert_close(
        found.log_evidence, expected.log_evidence, rtol=0, atol=CLOSE
    )
    torch.testing.assert_close(
        kl_divergence(found, near), kl_divergence(expected, near), rtol=0, atol=CLOSE
    )


def test_masses_and_densities_belong_together(scene) -> None:
    made = scene(2, noise_sd=0.2)
    exact = summed(made, laplace(refined(made)))
    total = exact.expectation(torch.ones_like(exact.log_mass))
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64))
    latents = exact.latents[exact.image == 0][:400]
    expected = log_posterior(
        replace(made, images=made.images.select(torch.tensor([0]))),
        latents[:, None],
        PRIOR,
    )
    expected = expected[:, 0] - exact.log_evidence[0]
    likely = expected > expected.max() - 10
    found = exact.log_density[exact.image == 0][:400]
    # Products in float32 of an image of power 3e3.
    torch.testing.assert_close(found[likely], expected[likely], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("prior", [PRIOR, WITH_DEFOCUS])
def test_a_bright_particle_is_gaussian(scene, prior) -> None:
    made = scene(4, noise_sd=0.05)
    near = laplace(refined(made, prior), prior=prior)
    exact = summed(made, near, prior)
    # Curvature is left, and that of the trilinear cells.
    divergence = kl_divergence(exact, near)
    assert (divergence > -1e-4).all()
    assert (divergence < 0.03).all()
    doubled = replace(near, covariance=2 * near.covariance)
    dimensions = int(exact.free.sum())
    expected = 0.5 * dimensions * (0.5 - 1 + math.log(2))
    torch.testing.assert_close(
        kl_divergence(exact, doubled) - divergence,
        torch.full((4,), expected, dtype=torch.float64),
        # Variances that deviate by d, relative, change it by the sum of d / 4. The
        # divergence, 0.03 at most, is about the sum of d^2 / 4: so by this at most.
        rtol=0,
        atol=0.5 * math.sqrt(dimensions * 0.03),
    )
    mean, covariance = exact.moments(near.mode())
    sd = near.covariance[:, 0].diagonal(dim1=1, dim2=2).sqrt()
    assert (mean.abs() <= 0.25 * sd).all()
    spread = covariance.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(spread, sd, rtol=0.1, atol=0)


def test_a_mode_named_twice_counts_once(scene) -> None:
    made = scene(2, noise_sd=0.2)
    mode = refined(made)
    expected = summed(made, laplace(mode))
    twice = laplace(mode, mode)
    same = summed(made, twice)
    assert len(same.log_mass) == len(expected.log_mass)
    torch.testing.assert_close(same.log_evidence, expected.log_evidence)
    # Two modes on the flanks of one share its mass.
    sd = twice.covariance[:, 0, 3, 3].sqrt()
    step = torch.zeros(2, 2, 6, dtype=torch.float64)
    step[:, 0, 3], step[:, 1, 3] = -sd, sd
    flanks = replace(twice, modes=moved(twice.modes, step))
    shared = summed(made, flanks)
    torch.testing.assert_close(
        shared.log_evidence, expected.log_evidence, rtol=0, atol=CLOSE
    )


def test_two_modes_of_a_map_that_is_nearly_symmetric(scene) -> None:
    made = scene(6, noise_sd=0.3, symmetric=True)
    # A blob off the axis, seen by no image, tells the two modes apart.
    axis = torch.arange(32) - 16.0
    blob = torch.exp(-((axis - 4) ** 2) / 4)
    density = 0.05 * blob * torch.exp(-(axis[:, None] ** 2) / 4) * blob[:, None, None]
    added = FourierVolume.from_map(density, made.volume.radius, made.volume.padding)
    volume = replace(made.volume, values=made.volume.values + added.values)
    made = replace(made, volume=volume)
    pose = made.truth.pose
    turned = replace(pose, rotation=pose.rotation @ HALF_TURN)
    mate = replace(made.truth, pose=turned)
    modes = [refined(made), refined(replace(made, truth=mate))]
    both = laplace(*modes)
    exact = summed(made, both)
    alone = [summed(made, laplace(mode)).log_evidence for mode in modes]
    first = exact.latents.pose.rotation @ modes[0].pose.rotation[exact.image].mT
    near_first = first.diagonal(dim1=1, dim2=2).sum(1) > 1
    share = exact.expectation(near_first.double())
    expected = torch.stack(alone, 1).softmax(1)[:, 0]
    torch.testing.assert_close(share, expected, rtol=0, atol=1e-3)
    # Both matter, and Laplace's evidence weighs them nearly right.
    assert share.min() < 0.4
    assert share.max() > 0.6
    laplace_share = torch.stack(
        [mode.log_evidence(PRIOR) for mode in modes], 1
    ).softmax(1)[:, 0]
    torch.testing.assert_close(laplace_share, share, rtol=0, atol=0.05)
    assert (kl_divergence(exact, both) < 0.1).all()
    # One mode alone misses the other: its share, and all that it says of it.
    assert (kl_divergence(exact, laplace(modes[0])) > 10 * (1 - share)).all()


def test_all_rotations_have_the_prior_s_mass(scene) -> None:
    made = scene(1, noise_sd=0.3)
    flat = replace(made.volume, values=torch.zeros_like(made.volume.values))
    near = held_rotation(
        made.truth,
        torch.zeros(2, dtype=torch.float64),
        torch.tensor([0.5, 0.5, 0.5, 0, 0, 0], dtype=torch.float64),
    )
    exact = grid_posterior(MapProjector(flat), made.images, PosePrior(0.0, 0.0), near)
    # The density ends at half a turn, where sums of a finite step are off by a cell.
    torch.testing.assert_close(exact.log_evidence, -made.power(), rtol=0, atol=0.2)


def test_mixtures_of_other_unknowns_are_refused(scene) -> None:
    made = scene(2, noise_sd=0.2)
    near = laplace(refined(made))
    exact = summed(made, near)
    other = laplace(refined(made, WITH_DEFOCUS), prior=WITH_DEFOCUS)
    with pytest.raises(ValueError, match="infer both with one prior"):
        kl_divergence(exact, other)
    with pytest.raises(ValueError, match="with the same prior"):
        summed(made, other)
    mixed = near.covariance.clone()
    mixed[0, 0, 3] = mixed[0, 0, :, 3] = 0
    with pytest.raises(ValueError, match="one set of unknowns"):
        summed(made, replace(near, covariance=mixed))
