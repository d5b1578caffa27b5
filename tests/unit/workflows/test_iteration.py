"""One iteration: posteriors, sums, noise, and how far the poses have moved."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from cryoinfer.evaluation.calibration import mahalanobis_levels
from cryoinfer.evaluation.pose_error import align_poses, tangent_error
from cryoinfer.geometry.rotations import rotate_in_image_frame
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses, LocalRefinement
from cryoinfer.inference.pose_search import GlobalSearch
from cryoinfer.inference.whitening import whiten
from cryoinfer.interfaces import SILENT
from cryoinfer.records import Latents
from cryoinfer.workflows.iteration import (
    MODES,
    IterationOutcome,
    IterationPlan,
    IterationStart,
    SearchOrRefinement,
    kept_modes,
    run_iteration,
    unknown_posterior,
)
from cryoinfer.workflows.problem import Problem, define_problem
from cryoinfer.workflows.search_plan import search_plan
from cryoinfer.workflows.structure_update import HalfMapSums, MapUpdate

RADIUS, N = 8, 200
PLAN = IterationPlan("local", RADIUS, 9, 4, 0.1, None)


@dataclass(frozen=True)
class Task:
    """A problem whose answer is known: the true map, noise and poses."""

    problem: Problem
    start: IterationStart

    @classmethod
    def of(cls, made: Any, symmetry: str = "C1") -> "Task":
        seed = torch.Generator().manual_seed(0)
        particles = made.particles
        problem = define_problem(particles, symmetry, 80.0, None, 0.0, seed)
        projector = MapUpdate(problem).projector(made.density, RADIUS)
        noise = (made.simulation.model.noise.spectrum.float(),)
        return cls(
            problem,
            IterationStart(
                (projector, projector),
                RADIUS,
                noise,
                truth_of(made.true_pose),
                torch.zeros(len(particles), dtype=torch.bool),
                torch.ones(len(particles), dtype=torch.float64),
            ),
        )

    def run(
        self, inference: Any, plan: IterationPlan = PLAN, **changes: Any
    ) -> tuple[IterationOutcome, HalfMapSums]:
        sums = MapUpdate(self.problem).empty(plan.map_radius)
        start = replace(self.start, **changes)
        found = run_iteration(self.problem, start, plan, inference, sums, SILENT)
        return found, sums


def truth_of(pose: Any) -> ParticlePosterior:
    zero = torch.zeros(len(pose), dtype=torch.float64)
    return ParticlePosterior.at(Latents.rigid(pose, zero), MODES)


@pytest.fixture(scope="module")
def task(simulated: Callable[..., Any]) -> Task:
    return Task.of(simulated())


def test_true_poses_leave_the_noise(task: Task) -> None:
    found, sums = task.run(GivenPoses())
    (ratio,) = found.noise_ratio
    # 200 images of 12 coefficients a ring or more: 2 % a ring, and what interpolation
    # leaves of a signal that is ten times as strong.
    torch.testing.assert_close(
        ratio[1 : RADIUS + 1], torch.ones(RADIUS), rtol=0.08, atol=0
    )
    # Beyond the references nothing is measured.
    assert not bool(ratio[RADIUS + 1 :].any())
    assert found.pose_change_radian == pytest.approx(0.0, abs=1e-6)
    assert found.far_share == 0.0
    assert all(bool(one.any()) for one in sums.tensors)


def test_the_gain_is_what_the_map_explains(task: Task) -> None:
    found, _ = task.run(LocalRefinement(4, 0.1))
    problem, start = task.problem, task.start
    batch = problem.particles.batch(torch.arange(N))
    images = whiten(batch, problem.grid, RADIUS, start.noise[0])
    value = start.references[0].log_likelihood(images, found.posterior.mode())
    power = images.coefficients.abs().square().sum(1).double()
    expected = float((value + power).mean())
    # In single precision, and the second half has come to the frame of the first.
    assert found.gain_nats == pytest.approx(expected, rel=0.01)
    assert found.gain_nats > 100.0


@pytest.mark.parametrize("known", [True, False])
def test_known_contrasts_make_weak_and_strong_images_calibrated(
    simulated: Callable[..., Any], known: bool
) -> None:
    made = simulated(1000, snr_db=0.0, contrast_sd=0.3)
    contrast = made.simulation.contrast.double()
    believed = contrast if known else torch.ones_like(contrast)
    found, _ = Task.of(made).run(LocalRefinement(8, 0.1), contrast=believed)
    estimated = found.posterior.mode().pose
    alignment = align_poses(estimated, made.true_pose, torch.Generator().manual_seed(0))
    error = tangent_error(estimated, made.true_pose, alignment)
    level = mahalanobis_levels(error, found.posterior.covariance[:, 0, :5, :5])
    strong = contrast > contrast.median()
    # 500 each: 2.2 % of counting.
    weak_held, strong_held = (
        float((level[half] < 0.5).double().mean()) for half in (~strong, strong)
    )
    if known:
        assert weak_held == pytest.approx(0.5, abs=0.07)
        assert strong_held == pytest.approx(0.5, abs=0.07)
    else:
        assert strong_held - weak_held > 0.2


@dataclass(frozen=True)
class Turned:
    """Finds every particle so far about z from where it was."""

    degrees: float

    def infer(
        self, images: Any, projector: Any, prior: Any, start: ParticlePosterior
    ) -> ParticlePosterior:
        angle = torch.tensor([0.0, 0.0, math.radians(self.degrees)]).double()
        modes = start.modes
        rotation = rotate_in_image_frame(modes.pose.rotation, angle)
        pose = replace(modes.pose, rotation=rotation)
        return replace(start, modes=replace(modes, pose=pose))


@pytest.mark.parametrize(("degrees", "far"), [(5.0, 0.0), (40.0, 1.0)])
def test_how_far_poses_have_moved_is_told(
    task: Task, degrees: float, far: float
) -> None:
    # A plan that searches takes the frames of both halves as one.
    symmetry = task.problem.symmetry_rotation
    plan = replace(PLAN, search=search_plan(RADIUS, RADIUS, 4.0, symmetry))
    found, _ = task.run(Turned(degrees), plan)
    assert math.degrees(found.pose_change_radian) == pytest.approx(degrees, abs=1e-3)
    assert found.far_share == far


def test_a_pose_that_has_moved_to_its_mate_has_not_moved(
    simulated: Callable[..., Any],
) -> None:
    task = Task.of(simulated(), "C2")
    mate = task.problem.symmetry_rotation[1]

    class Mates:
        def infer(self, images: Any, *given: Any) -> ParticlePosterior:
            start: ParticlePosterior = given[-1]
            pose = start.modes.pose
            pose = replace(pose, rotation=pose.rotation @ mate)
            return replace(start, modes=replace(start.modes, pose=pose))

    plan = replace(PLAN, search=search_plan(RADIUS, RADIUS, 4.0, mate[None]))
    found, _ = task.run(Mates(), plan)
    assert found.pose_change_radian == pytest.approx(0.0, abs=1e-6)


def test_the_plan_chooses_between_search_and_refinement() -> None:
    choice = SearchOrRefinement(6.0)
    assert choice(PLAN) == LocalRefinement(PLAN.steps, PLAN.max_turn_radian)
    search = search_plan(RADIUS, RADIUS, 4.0, torch.eye(3)[None])
    assert isinstance(choice(replace(PLAN, search=search)), GlobalSearch)


def test_modes_are_kept_normalised_with_one_covariance() -> None:
    known = replace(
        unknown_posterior(2).best(5),
        weight=torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.1], [0.5, 0, 0, 0, 0]]),
        covariance=torch.eye(6).expand(2, 5, 6, 6),
        background=torch.tensor([0.0, 0.5], dtype=torch.float64),
    )
    found = kept_modes(known)
    assert found.weight.shape == (2, MODES)
    assert found.covariance.shape == (2, 1, 6, 6)
    expected = torch.tensor([[0.5, 0.375, 0.125], [1, 0, 0]]).double()
    torch.testing.assert_close(found.weight, expected, rtol=1e-6, atol=0)
    assert not bool(found.background.any())
    # Of an inference that names fewer, the rest have no weight.
    single = kept_modes(known.best(1))
    assert torch.equal(single.weight, torch.tensor([[1.0, 0, 0]] * 2).double())
