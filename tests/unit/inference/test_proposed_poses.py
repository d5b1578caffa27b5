"""Widths about poses that were proposed without any."""

import pytest
import torch

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.rotations import random_rotations, rotation_vector
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.modes import covariance_of
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.proposed_poses import ProposedPoses

TURNS_ONLY = PosePrior(0.0, 0.0)


def test_poses_stay_and_widths_are_those_of_their_normal_equations(scene) -> None:
    made = scene(5, noise_sd=1.0)
    prior = PosePrior(4.0, 0.0)
    start = ParticlePosterior.at(made.truth, 2)
    found = ProposedPoses().infer(made.images, made.projector, prior, start)
    assert torch.equal(found.modes.pose.rotation, start.modes.pose.rotation)
    equations = made.projector.normal_equations(made.images, made.truth, prior)
    expected = covariance_of(equations.information + prior.information)
    # The image knows turns to a degree, which random rotations add nothing to.
    torch.testing.assert_close(found.covariances[:, 0], expected, rtol=1e-2, atol=1e-6)
    assert torch.equal(found.log_likelihood, equations.log_likelihood)
    # Held, and told as such.
    assert not found.covariance[..., 5, :].any()


def test_a_map_that_shows_nothing_leaves_any_turn(scene) -> None:
    made = scene(3, noise_sd=1.0)
    empty = FourierVolume.from_map(torch.zeros(32, 32, 32), 12)
    start = ParticlePosterior.at(made.truth, 1)
    found = ProposedPoses().infer(made.images, MapProjector(empty), TURNS_ONLY, start)
    turn = rotation_vector(random_rotations(20_000, torch.Generator().manual_seed(0)))
    # The variance of a square of up to pi squared, over 20,000: 0.02.
    expected = float(turn.square().mean())
    variance = found.covariance[:, 0].diagonal(dim1=1, dim2=2)
    assert variance[:, :3].tolist() == [[pytest.approx(expected, abs=0.06)] * 3] * 3
    assert not variance[:, 3:].any()
    # A view that is known stays known.
    in_plane = PosePrior(0.0, 0.0, rotation_unknowns=1)
    flat = ProposedPoses().infer(made.images, MapProjector(empty), in_plane, start)
    assert not flat.covariance[..., :2, :2].any()
    assert flat.covariance[..., 2, 2].min() > 1
