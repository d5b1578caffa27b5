"""Passes over particles whose images are on a device that is not the CPU."""

from collections.abc import Callable

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, is_elsewhere
from torch import Tensor, distributed
from torch.utils._pytree import tree_leaves

from cryoinfer.data.particles import Particles
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses, LocalRefinement
from cryoinfer.interfaces import SILENT
from cryoinfer.operations import plain_only
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.workflows import particle_pass
from cryoinfer.workflows.image_sources import ReadableImages, StrictImages
from cryoinfer.workflows.iteration import (
    MODES,
    IterationPlan,
    IterationStart,
    run_iteration,
)
from cryoinfer.workflows.particle_pass import InferredBatch, ParticlePass, run_pass
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.reconstruct import given_poses, insert_all, reconstruct
from cryoinfer.workflows.structure_update import HalfMapSums, MapUpdate
from cryoinfer.world import World

RADIUS = 6


def problem_of(particles: Particles, device: torch.device | str) -> Problem:
    generator = torch.Generator().manual_seed(0)
    return define_problem(particles, "C1", None, 4.0, 0.0, generator).on(device)


def here_and_there(compute: Callable[[torch.device | str], list[Tensor]]) -> None:
    """Compare what a computation returns on the CPU, where both leave it."""
    with plain_only():
        here = compute("cpu")
    with Elsewhere():
        there = compute(DEVICE)
        assert not any(map(is_elsewhere, there))
    # The same sums, but for the library of the Fourier transforms: rounding, which
    # three steps towards a mode carry on.
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_given_poses_are_inserted_on_the_device(simulated) -> None:
    particles = simulated(30, optics_groups=2).with_poses()

    def compute(device: torch.device | str) -> list[Tensor]:
        problem = problem_of(particles, device)
        noise = initial_noise(problem)
        images = StrictImages(problem.grid, RADIUS, noise)
        sums = insert_all(problem, images, given_poses(particles), SILENT)
        return [*noise, *(one.sums for one in sums)]

    here_and_there(compute)


def test_a_local_refinement_runs_on_the_device(simulated) -> None:
    particles = simulated(16).with_poses()

    def compute(device: torch.device | str) -> list[Tensor]:
        problem = problem_of(particles, device)
        noise, poses = initial_noise(problem), given_poses(particles)
        images = StrictImages(problem.grid, RADIUS, noise)
        halves = insert_all(problem, images, poses, SILENT)
        box, update = problem.map_box(RADIUS), MapUpdate(problem)
        first, second = (
            update.projector(solve(one, None, problem.grid.box, box), RADIUS)
            for one in halves
        )
        start = IterationStart(
            (first, second),
            RADIUS,
            noise,
            ParticlePosterior.at(poses, MODES),
            torch.zeros(len(particles), dtype=torch.bool),
            torch.ones(len(particles), dtype=torch.float64),
        )
        plan = IterationPlan("refinement", RADIUS, RADIUS, 3, 0.1, None)
        inference, sums = LocalRefinement(plan.steps, 0.1), update.empty(RADIUS)
        found = run_iteration(problem, start, plan, inference, sums, SILENT)
        assert sums.first.device == torch.device(device)
        mode = found.posterior.mode()
        return [
            mode.pose.rotation,
            mode.pose.shift_angstrom,
            found.posterior.covariance,
            *found.noise_ratio,
        ]

    here_and_there(compute)


def test_a_reconstruction_asks_the_images_on_the_device(simulated) -> None:
    particles = simulated(30).with_poses()

    def compute(device: torch.device | str) -> list[Tensor]:
        found = reconstruct(particles, device=device)
        assert found.evidence is not None
        gained = found.evidence.gain_nats, found.evidence.over_noise_nats
        return [found.density, found.mask, found.fsc, torch.tensor(gained)]

    here_and_there(compute)


def test_sums_there_are_added_up_over_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(own: Tensor) -> None:
        assert not is_elsewhere(own)
        own.mul_(2)

    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    with Elsewhere():
        here, there = torch.ones(2), torch.ones(2, device=DEVICE)
        World(0, 2).add_up(here, there)
        assert is_elsewhere(there)
        assert here.tolist() == there.tolist() == [2, 2]


@pytest.mark.parametrize("device", ["cpu", DEVICE])
def test_batches_are_there_and_records_here(
    simulated, stack, kept, monkeypatch: pytest.MonkeyPatch, device
) -> None:
    monkeypatch.setattr(particle_pass, "KEEP_SECONDS", 0.0)
    made = simulated(20)
    pixels = made.particles.batch(torch.arange(20)).images
    pixels[7] = torch.nan
    particles = stack(pixels).with_results(pose=made.true_pose)
    seen, state = set(), kept()

    def record(one: InferredBatch[None]) -> ParticlePosterior:
        seen.update((one.images.device, one.batch.index.device))
        return one.posterior

    with Elsewhere():
        problem = problem_of(particles, device)
        sums = HalfMapSums.empty(problem.grid.box, RADIUS, problem.device)
        ones = (torch.ones(problem.grid.box),)
        step = ParticlePass(
            "given poses",
            ReadableImages(problem.grid, RADIUS, ones),
            (None, None),
            problem.prior,
            GivenPoses(),
            record,
            (sums,),
            batch_size=5,
        )
        known = ParticlePosterior.at(given_poses(particles), 1)
        blank = known.with_rows(torch.tensor([7]), known[:1])
        found = run_pass(problem, step, known, blank, SILENT, state)
        assert {"rows", "records", "sums"} <= state.state.keys()
        for tensor in tree_leaves([found.to_state(), state.state]):
            assert not is_elsewhere(tensor)
        rotation = found.modes.pose.rotation[:, 0]
    assert seen == {torch.device(device)}
    # That of the image that cannot be read is the blank record's.
    expected = made.true_pose.rotation.double().clone()
    expected[7] = expected[0]
    assert torch.equal(rotation, expected)
