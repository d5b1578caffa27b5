"""Local refinement against truth, a naive loss, and the scatter of noisy images."""

import math
from dataclasses import replace

import pytest
import torch

from cryoinfer.geometry.rotations import (
    geodesic_angle,
    random_rotations,
    rotate_in_image_frame,
)
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.quadrature_grid import departure, moved
from cryoinfer.records import Latents, Pose

WIDE = PosePrior(1e3, 0.0)
WITH_DEFOCUS = PosePrior(1e3, 3000.0)


def perturbed(truth: Latents, degrees: float, angstrom: float) -> Latents:
    generator = torch.Generator().manual_seed(2)
    axis = random_rotations(len(truth), generator)[:, 0]
    away = random_rotations(len(truth), generator)[:, 0, :2]
    pose = Pose(
        rotate_in_image_frame(truth.pose.rotation, axis * math.radians(degrees)),
        truth.pose.shift_angstrom + angstrom * away,
    )
    return Latents.rigid(pose, torch.zeros(len(truth), dtype=torch.float64))


def refined(made, start: Latents, prior: PosePrior, steps: int = 20) -> PosteriorModes:
    return refine_locally(made.projector, made.images, start, prior, steps, 0.1)


def loss_of_posterior(made, latents: Latents, prior: PosePrior) -> torch.Tensor:
    """Return minus the log posterior, written out naively, (n,)."""
    return made.loss_of(latents) - prior.log_density(latents)


@pytest.mark.parametrize("pixel_size", [2.0, 2.5, 1.8])
def test_noiseless_images_give_their_poses_back(scene, pixel_size) -> None:
    made = scene(24, pixel_size_angstrom=pixel_size)
    found = refined(made, perturbed(made.truth, 4.0, 1.5), WIDE)
    angle = geodesic_angle(found.pose.rotation, made.truth.pose.rotation)
    # The images are slices of the same volume: what is left is where the gain of a
    # step falls below a tenth of a nat, at a noise of 1 %.
    assert math.degrees(float(angle.max())) < 0.02
    error = found.pose.shift_angstrom - made.truth.pose.shift_angstrom
    assert error.abs().max() < 0.005


def test_defocus_is_recovered(scene) -> None:
    made = scene(24, defocus_error_angstrom=400.0)
    found = refined(made, perturbed(made.truth, 2.0, 1.0), WITH_DEFOCUS)
    error = departure(made.truth, found.latents)
    # Hundredths of the error that was there.
    assert error[:, 5].abs().max() < 5.0
    assert error[:, :3].norm(dim=1).max() < math.radians(0.02)


@pytest.mark.parametrize("prior", [WIDE, WITH_DEFOCUS])
def test_log_likelihood_is_minus_the_squared_residual(scene, prior) -> None:
    made = scene(6, noise_sd=0.3)
    found = refined(made, perturbed(made.truth, 3.0, 1.0), prior)
    expected = -made.loss_of(found.latents)
    # A last step that promises less than a tenth of a nat is taken at its word.
    torch.testing.assert_close(found.log_likelihood, expected, rtol=0, atol=0.1)
    unmoved = refined(made, found.latents, prior, steps=0)
    # Single precision.
    torch.testing.assert_close(unmoved.log_likelihood, expected, rtol=1e-5, atol=1e-3)


def test_the_loss_is_lowest_at_the_mode_in_every_direction(scene) -> None:
    made = scene(16, noise_sd=0.3)
    found = refined(made, made.truth, WITH_DEFOCUS)

    def posterior(move: torch.Tensor) -> torch.Tensor:
        return loss_of_posterior(made, moved(found.latents, move), WITH_DEFOCUS)

    here = posterior(torch.zeros(16, 6, dtype=torch.float64))
    sd = found.covariance().diagonal(dim1=1, dim2=2).sqrt()
    for unknown in range(6):
        for sign in (1.0, -1.0):
            move = torch.zeros(16, 6, dtype=torch.float64)
            move[:, unknown] = sign * sd[:, unknown]
            # A parabola rises by half a nat; the refinement may end a tenth of one,
            # which is 0.45 standard deviations, away: half - 1 * 0.45 > 0.
            assert (posterior(move) > here).all()
    # And from where it started the loss has fallen, if anything.
    before = loss_of_posterior(made, made.truth, WITH_DEFOCUS)
    assert (here <= before + 0.1).all()


@pytest.mark.parametrize("pixel_size", [2.0, 2.5])
def test_covariance_matches_the_scatter_of_noisy_images(scene, pixel_size) -> None:
    made = scene(300, noise_sd=0.3, pixel_size_angstrom=pixel_size)
    found = refined(made, made.truth, WIDE, steps=8)
    error = departure(made.truth, found.latents)
    squared = torch.einsum("na,nab,nb->n", error, found.information, error)
    # Chi-square with 5 degrees of freedom for every image: the mean has a standard
    # error of sqrt(10 / 300) = 0.18. Four of these, and 5 % for curvature.
    assert float(squared.mean()) == pytest.approx(5.0, abs=0.73 + 0.25)


def test_defocus_covariance_matches_its_scatter(scene) -> None:
    made = scene(300, noise_sd=0.1, defocus_error_angstrom=100.0)
    start = Latents.rigid(made.truth.pose, torch.zeros(300, dtype=torch.float64))
    found = refined(made, start, WITH_DEFOCUS, steps=8)
    error = departure(made.truth, found.latents)
    squared = torch.einsum("na,nab,nb->n", error, found.information, error)
    # 6 degrees of freedom: sqrt(12 / 300) = 0.2; four of these, and 5 %.
    assert float(squared.mean()) == pytest.approx(6.0, abs=0.8 + 0.3)


def test_what_is_held_stays_and_has_no_covariance(scene) -> None:
    made = scene(8)
    start = perturbed(made.truth, 2.0, 0.0)
    found = refined(made, start, PosePrior(0.0, 0.0))
    torch.testing.assert_close(found.pose.shift_angstrom, start.pose.shift_angstrom)
    assert (found.latents.defocus_offset_angstrom == 0).all()
    covariance = found.covariance()
    assert not found.information[:, 3:].any()
    assert not found.information[:, :, 3:].any()
    assert not covariance[:, 3:].any()
    assert not covariance[:, :, 3:].any()
    rotations = found.information[:, :3, :3] @ covariance[:, :3, :3]
    eye = torch.eye(3, dtype=torch.float64).expand(8, 3, 3)
    torch.testing.assert_close(rotations, eye, rtol=0, atol=1e-8)


def test_without_a_map_the_prior_is_all(scene) -> None:
    made = scene(5)
    nothing = replace(made.volume, values=torch.zeros_like(made.volume.values))
    start = perturbed(made.truth, 0.0, 3.0)
    found = refined(
        replace(made, volume=nothing), start, PosePrior(2.0, 500.0), steps=9
    )
    # The prior's centre; the step is damped by a thousandth.
    assert found.pose.shift_angstrom.abs().max() < 0.01
    torch.testing.assert_close(found.pose.rotation, start.pose.rotation)
    variance = found.covariance().diagonal(dim1=1, dim2=2)
    expected = torch.tensor([0.0, 0, 0, 4, 4, 250000]).double().expand(5, 6)
    torch.testing.assert_close(variance, expected)


def test_the_prior_adds_its_precision(scene) -> None:
    made = scene(5, noise_sd=0.3)
    wide, tight = (
        refined(made, made.truth, PosePrior(sd, 0.0), steps=0).information
        for sd in (1e9, 0.5)
    )
    expected = torch.diag(torch.tensor([0, 0, 0, 4.0, 4.0, 0])).double().expand(5, 6, 6)
    torch.testing.assert_close(tight - wide, expected, rtol=0, atol=1e-6)


def test_log_prior_of_known_departures() -> None:
    pose = Pose(torch.eye(3)[None], torch.tensor([[2.0, 0.0]]))
    latents = Latents.rigid(pose, torch.tensor([300.0]))
    # Half the square of one and of three standard deviations.
    assert PosePrior(2.0, 0.0).log_density(latents).item() == pytest.approx(-0.5)
    assert PosePrior(2.0, 100.0).log_density(latents).item() == pytest.approx(-5.0)
    assert PosePrior(0.0, 0.0).log_density(latents).item() == 0.0


def test_no_step_is_longer_than_allowed(scene) -> None:
    made = scene(8)
    start = perturbed(made.truth, 5.0, 0.0)
    limit = math.radians(1.0)
    once = refine_locally(made.projector, made.images, start, WIDE, 1, limit)
    angle = geodesic_angle(once.pose.rotation, start.pose.rotation)
    assert angle.max() < limit * (1 + 1e-6)


def test_refinement_never_lowers_the_posterior(scene) -> None:
    made = scene(16, noise_sd=0.5)
    start = perturbed(made.truth, 20.0, 6.0)
    before = loss_of_posterior(made, start, WIDE)
    found = refined(made, start, WIDE, steps=3)
    # But for a last step that is too small to be judged.
    after = loss_of_posterior(made, found.latents, WIDE)
    assert (after <= before + 0.1).all()
    rotation = found.pose.rotation @ found.pose.rotation.mT
    eye = torch.eye(3, dtype=torch.float64).expand(16, 3, 3)
    torch.testing.assert_close(rotation, eye, rtol=0, atol=1e-9)


def test_a_step_that_was_refused_is_not_tried_again(scene) -> None:
    made = scene(200, noise_sd=2.0)
    start = perturbed(made.truth, 15.0, 3.0)

    def after(steps: int) -> torch.Tensor:
        found = refine_locally(
            made.projector, made.images, start, WITH_DEFOCUS, steps, 1.0
        )
        return found.pose.rotation.flatten(1)

    five, six, twelve = after(5), after(6), after(12)
    refused = (five == six).all(1)
    assert refused.sum() > 50
    # Steps become shorter until one leads up: six more are more than that takes.
    assert not bool((six == twelve)[refused].all(1).any())


def test_each_image_is_refined_on_its_own(scene) -> None:
    made = scene(6, noise_sd=0.3)
    start = perturbed(made.truth, 3.0, 1.0)
    some = torch.tensor([4, 1])
    whole = refined(made, start, WITH_DEFOCUS)[some]
    images = made.images.select(some)
    part = refined(replace(made, images=images), start[some], WITH_DEFOCUS)
    torch.testing.assert_close(part.to_state(), whole.to_state(), rtol=0, atol=0)
