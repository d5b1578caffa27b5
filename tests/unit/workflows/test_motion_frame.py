"""Where a model lies among given poses: known displacements come back."""

from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.geometry.rotations import random_rotations, random_turns_in_plane
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.records import Pose
from cryoinfer.results.model_frame import ModelFrame
from cryoinfer.results.motions import Motions
from cryoinfer.workflows.motion_frame import (
    first_frame,
    found_frame,
    motions_in,
)
from cryoinfer.workflows.motion_problem import DynamicsConfig, MotionProblem
from cryoinfer.workflows.noise_and_scale import initial_estimate

N = 200
OFFSET = torch.tensor([5.0, -3.0, 4.0], dtype=torch.float64)
TURN = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.08], dtype=torch.float64))
MIDDLE = ModelFrame.in_the_middle()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def particles(rotation: Tensor, true: ModelFrame) -> tuple[Pose, Motions]:
    """Return poses of a map, and those found of a model that lies somewhere in it.

    Found rotations are off by 1 degree about each axis, shifts by 0.5 A, at random.
    """
    noise = torch.randn(N, 5, generator=seeded(1), dtype=torch.float64)
    given = Pose(rotation, 2 * noise[:, :2].roll(1, 0))
    motions = Motions.blank(N, 1)
    aside = roma.rotvec_to_rotmat(torch.deg2rad(noise[:, :3]))
    motions.rotation[:] = aside @ rotation @ true.rotation
    shown = (rotation @ true.offset_angstrom)[:, :2]
    motions.shift_angstrom[:] = given.shift_angstrom + shown + 0.5 * noise[:, 3:]
    motions.covariance[:] = torch.diag(torch.full((7,), 0.01, dtype=torch.float64))
    motions.weight[:] = 1.0
    return given, motions


def test_a_displaced_and_turned_model_is_found() -> None:
    true = ModelFrame(TURN, OFFSET)
    given, motions = particles(random_rotations(N, seeded(0)), true)
    # Ten particles have found other modes.
    motions.rotation[:10] = random_rotations(10, seeded(3))
    motions.shift_angstrom[:10] += 30.0
    found = found_frame(given, motions, MIDDLE)
    # Of 190 particles: sd of a component over the root of 2/3 of them, four times.
    torch.testing.assert_close(found.offset_angstrom, OFFSET, atol=0.2, rtol=0)
    assert found.turned_degrees == pytest.approx(
        float(torch.rad2deg(torch.tensor(0.08))), abs=0.4
    )


def test_poses_that_have_not_moved_together_leave_the_model_where_it_was() -> None:
    given, motions = particles(random_rotations(N, seeded(0)), MIDDLE)
    found = found_frame(given, motions, MIDDLE)
    assert torch.equal(found.offset_angstrom, MIDDLE.offset_angstrom)
    assert found.turned_degrees == 0.0


def test_where_the_model_was_taken_to_lie_does_not_decide() -> None:
    given, motions = particles(random_rotations(N, seeded(0)), MIDDLE)
    begun = ModelFrame(MIDDLE.rotation, torch.tensor([1.5, -1.5, 1.5]).double())
    found = found_frame(given, motions, begun)
    assert torch.equal(found.offset_angstrom, MIDDLE.offset_angstrom)


def test_the_depth_of_one_view_stays_as_it_was() -> None:
    true = ModelFrame(MIDDLE.rotation, OFFSET)
    given, motions = particles(random_turns_in_plane(N, seeded(0)), true)
    motions.rotation[:] = given.rotation
    begun = ModelFrame(MIDDLE.rotation, torch.tensor([0.0, 0.0, 7.0]).double())
    found = found_frame(given, motions, begun).offset_angstrom
    torch.testing.assert_close(found[:2], OFFSET[:2], atol=0.2, rtol=0)
    assert float(found[2]) == pytest.approx(7.0, abs=1e-6)


def test_images_show_the_same_in_either_frame() -> None:
    frame = ModelFrame(TURN, OFFSET)
    _, motions = particles(random_rotations(N, seeded(0)), frame)
    told = motions_in(frame, motions)
    atoms = torch.randn(N, 3, generator=seeded(2), dtype=torch.float64)

    def shown(one: Motions, at: Tensor) -> Tensor:
        return torch.einsum("nij,nj->ni", one.rotation, at)[:, :2] + one.shift_angstrom

    torch.testing.assert_close(shown(told, frame.placed(atoms)), shown(motions, atoms))
    # The model's centre is where the shift says, however the particle turns: what is
    # known of it is what was known of the shift before.
    x, y, z = (told.rotation @ OFFSET).unbind(-1)
    to_centre = torch.zeros(N, 2, 7, dtype=torch.float64)
    to_centre[:, 0, 1], to_centre[:, 0, 2] = z, -y
    to_centre[:, 1, 0], to_centre[:, 1, 2] = -z, x
    to_centre[:, 0, 3] = to_centre[:, 1, 4] = 1.0
    torch.testing.assert_close(
        to_centre @ told.covariance @ to_centre.mT, motions.covariance[:, 3:5, 3:5]
    )


def test_the_place_of_a_model_is_seen_from_far(tmp_path: Path) -> None:
    enzyme = named_atoms("adenylate-kinase-open")
    alpha = np.flatnonzero([name == "CA" for name in enzyme.atom_names])
    chain = enzyme.select(alpha)
    write_ensemble(tmp_path / "chain.cif", "chain", [chain])
    config = SimulationConfig(
        structure=str(tmp_path / "chain.cif"),
        n=40,
        box=32,
        pixel_size_angstrom=4.0,
        snr_db=0.0,
        max_shift_angstrom=3.0,
    )
    simulate(config, tmp_path / "set", SilentMonitor())
    true = Particles.load(tmp_path / "set" / "truth.star")
    assert true.pose is not None
    far = torch.tensor([-21.0, 9.0, 14.0], dtype=torch.float64)
    aside = true.pose.shift_angstrom - (true.pose.rotation @ far)[:, :2]
    given = true.with_results(pose=Pose(true.pose.rotation, aside))
    model = MovingModel.of(chain, 1, 1.0)
    problem = MotionProblem.of(given, model, DynamicsConfig(poses="given"))
    measured = initial_estimate(given, model, problem.grid, problem.prior, seeded(0))
    found = first_frame(problem, measured, 12)
    # Places are 4 A apart, and 40 images tell one from the next.
    torch.testing.assert_close(found.offset_angstrom, far, atol=2.1, rtol=0)
