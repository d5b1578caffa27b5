"""Inferences that take what is known, refine it, or make it wider."""

from dataclasses import dataclass, replace

import pytest
import torch

from cryoinfer.geometry.rotations import geodesic_angle, rotate_in_image_frame
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import (
    GivenPoses,
    InflatedCovariance,
    LocalRefinement,
    PoseInference,
)
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.start_refinement import LikelierMode, StartRefinement
from cryoinfer.records import Latents

N = 6
PRIOR = PosePrior(5.0, 0.0)


def known(at: Latents) -> ParticlePosterior:
    """Return two modes each, the better one 3 degrees from given latents."""
    step = torch.tensor([0.03, -0.03, 0.03], dtype=torch.float64)
    pose = at.pose
    near, far = (
        replace(at, pose=replace(pose, rotation=rotate_in_image_frame(r, step)))
        for r in (pose.rotation, pose.rotation.mT)
    )
    weight = torch.tensor([0.75, 0.25], dtype=torch.float64).expand(len(at), 2)
    modes = Latents.joined([near[None], far[None]]).transposed()
    covariance = torch.eye(6, dtype=torch.float64).expand(len(at), 1, 6, 6)
    return ParticlePosterior.of_modes(modes, weight, covariance)


@pytest.mark.parametrize(
    "inference",
    [
        GivenPoses(),
        LocalRefinement(3, 0.1),
        StartRefinement((6, 12)),
        LikelierMode(GivenPoses(), 12),
        InflatedCovariance(GivenPoses(), torch.ones(6)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_needs_a_start_says_so(scene, inference: PoseInference) -> None:
    made = scene(N, 0.3)
    with pytest.raises(ValueError, match="poses to start from"):
        inference.infer(made.images, made.projector, PRIOR, None)


def test_given_poses_are_taken_as_they_are(scene) -> None:
    made = scene(N, 0.3)
    start = known(made.truth)
    assert GivenPoses().infer(made.images, made.projector, PRIOR, start) is start


def test_the_first_mode_alone_is_refined(scene) -> None:
    made = scene(N, 0.3)
    start = known(made.truth)
    found = LocalRefinement(20, 0.1).infer(made.images, made.projector, PRIOR, start)
    mode = refine_locally(made.projector, made.images, start.mode(), PRIOR, 20, 0.1)
    torch.testing.assert_close(found.mode().to_state(), mode.latents.to_state())
    torch.testing.assert_close(found.covariance[:, 0], mode.covariance())
    assert torch.equal(found.log_likelihood, mode.log_likelihood)
    # Poses are known to about half a degree, and the start was 3 off.
    away = geodesic_angle(found.mode().pose.rotation, made.truth.pose.rotation)
    assert away.rad2deg().max() < 2.0
    other = found.modes[:, 1].to_state()
    torch.testing.assert_close(other, start.modes[:, 1].to_state(), rtol=0, atol=0)
    assert torch.equal(found.weight, start.weight)


@dataclass(frozen=True)
class Noted:
    """Returns its start, and notes what it was asked."""

    asked: list[tuple[object, ...]]

    def infer(self, *given: object) -> ParticlePosterior:
        self.asked.append(given)
        start = given[-1]
        assert isinstance(start, ParticlePosterior)
        return start


def test_standard_deviations_are_multiplied(scene) -> None:
    made = scene(N, 0.3)
    start = known(made.truth)
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    start = replace(start, covariance=(root @ root.T).expand(N, 1, 6, 6))
    factor = torch.tensor([1.0, 2.0, 3.0, 0.5, 1.5, 4.0], dtype=torch.float64)
    noted = Noted([])
    found = InflatedCovariance(noted, factor).infer(
        made.images, made.projector, PRIOR, start
    )
    assert noted.asked == [(made.images, made.projector, PRIOR, start)]
    before, after = (
        one.covariance.diagonal(dim1=-2, dim2=-1).sqrt() for one in (start, found)
    )
    torch.testing.assert_close(after, before * factor)
    # Correlations stay.
    scale = before[..., :, None] * before[..., None, :]
    wider = after[..., :, None] * after[..., None, :]
    torch.testing.assert_close(found.covariance / wider, start.covariance / scale)
    unchanged = replace(found, covariance=start.covariance)
    torch.testing.assert_close(
        unchanged.to_state(), start.to_state(), rtol=0, atol=0, equal_nan=True
    )
