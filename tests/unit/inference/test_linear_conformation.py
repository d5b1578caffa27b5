"""Posteriors of z in closed form, against sums over a fine grid of z."""

from dataclasses import replace

import pytest
import torch
from tests.scenes import RADIUS, blob_map

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.linear_conformation import (
    LinearConformation,
    conformation_at,
    evidence_of_first_components,
)
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.records import Latents

PRIOR = PosePrior(10.0, 0.0, (1.0,))
GRID = torch.linspace(-6, 6, 2401, dtype=torch.float64)


@pytest.fixture
def subspace() -> SubspaceProjector:
    one = blob_map()
    # So weak that images tell z to a good part of its prior.
    mean, component = (
        FourierVolume.from_map(each, RADIUS) for each in (one, 0.02 * one.flip(0))
    )
    return SubspaceProjector(mean, (component,))


@pytest.mark.parametrize("inflation", [1.0, 4.0])
def test_moments_and_evidence_are_those_of_the_density(
    scene, subspace, inflation: float
) -> None:
    made = scene(5, noise_sd=1.0)
    found = conformation_at(subspace, made.images, made.truth, PRIOR, inflation)
    log_joint = []
    for z in GRID:
        latents = replace(made.truth, conformation=z.expand(5, 1))
        value = subspace.log_likelihood(made.images, latents) / inflation
        log_joint.append(value - 0.5 * z**2)
    table = torch.stack(log_joint, 1)
    share = table.softmax(1)
    mean = share @ GRID
    variance = share @ GRID.square() - mean.square()
    # Likelihoods of single precision: a millionth of some hundred nats, per step.
    torch.testing.assert_close(found.mean[:, 0], mean, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.covariance[:, 0, 0], variance, rtol=5e-3, atol=0)
    step = float(GRID[1] - GRID[0])
    total = table.logsumexp(1) + torch.log(torch.tensor(step))
    expected = total - 0.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(found.log_evidence, expected, rtol=0, atol=5e-3)


def test_evidence_weighs_the_modes_of_the_pose(scene, subspace) -> None:
    made = scene(5, noise_sd=0.3)
    truth = made.truth.double()
    turned = replace(truth.pose, rotation=truth.pose.rotation.flip(0))
    wrong = Latents.rigid(turned, truth.defocus_offset_angstrom)
    both = Latents.joined([wrong[None], truth[None]]).transposed()
    half = torch.full((5, 2), 0.5, dtype=torch.float64)
    start = ParticlePosterior.of_modes(
        both, half, torch.eye(6, dtype=torch.float64).expand(5, 2, 6, 6)
    )
    found = LinearConformation(GivenPoses()).infer(made.images, subspace, PRIOR, start)
    apart = [0, 1, 3, 4]  # the middle one is turned into itself
    best = found.mode().pose.rotation[apart]
    assert torch.equal(best, truth.pose.rotation[apart])
    assert bool((found.weight[apart, 0] > 0.999).all())
    at_truth = conformation_at(subspace, made.images, truth, PRIOR)
    torch.testing.assert_close(found.mode().conformation[apart], at_truth.mean[apart])
    assert found.covariances.shape == (5, 2, 7, 7)
    torch.testing.assert_close(
        found.covariances[apart, 0, 6:, 6:], at_truth.covariance[apart]
    )


def test_evidence_of_the_first_components_is_that_of_them_alone(scene) -> None:
    one = blob_map()
    maps = [one, 0.02 * one.flip(0), 0.03 * one.flip(1), 0.01 * one.flip(2)]
    whole = SubspaceProjector.of_maps(maps, RADIUS)
    prior = replace(PRIOR, conformation_sd_angstrom=(1.0, 0.5, 2.0))
    made = scene(5, noise_sd=1.0)
    found = evidence_of_first_components(whole, made.images, made.truth, prior)
    for count in range(4):
        first = SubspaceProjector(whole.mean, whole.components[:count])
        sd = prior.conformation_sd_angstrom[:count]
        own = replace(prior, conformation_sd_angstrom=sd)
        alone = conformation_at(first, made.images, made.truth, own)
        # Products of other shapes round otherwise, to a millionth of some 1,000 nats.
        torch.testing.assert_close(
            found[:, count], alone.log_evidence, rtol=0, atol=2e-3
        )
