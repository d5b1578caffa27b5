"""A model at rest and its modes, learned where the given ones are wrong."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.motions import Motion
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows import motion_calibration, motion_learning, noise_and_scale
from cryoinfer.workflows.dynamics import Dynamics, infer_dynamics
from cryoinfer.workflows.motion_inference import MotionInference
from cryoinfer.workflows.motion_learning import learned_model
from cryoinfer.workflows.motion_problem import DynamicsConfig, MotionProblem
from cryoinfer.workflows.noise_and_scale import (
    NoiseAndScale,
    Projected,
    initial_estimate,
    residual_estimate,
)

NAME = "adenylate-kinase-open"
HINGE_ANGSTROM = 2.5
CONFIG = DynamicsConfig(poses="given", shift_sd_angstrom=1.0, learning_rounds=3)


@pytest.fixture(scope="module")
def given() -> MovingModel:
    return MovingModel.of(example_atoms(NAME), 1, 2.0)


@pytest.fixture(scope="module")
def true_nodes(given: MovingModel) -> Tensor:
    """Return the alpha carbons of the structure that the particles are of."""
    return true_model(given).node_coordinates_angstrom


def true_model(given: MovingModel) -> MovingModel:
    bent = MovingModel.of(given.model, 2, 2.0)
    moved = bent.at(torch.tensor([0.0, HINGE_ANGSTROM]))
    return MovingModel.of(moved, 1, 2.0)


@pytest.fixture(scope="module")
def particles(
    given: MovingModel, tmp_path_factory: pytest.TempPathFactory
) -> Particles:
    folder: Path = tmp_path_factory.mktemp("hinge")
    write_ensemble(folder / "bent.cif", "bent", [true_model(given).model])
    config = SimulationConfig(
        str(folder / "bent.cif"),
        n=100,
        box=40,
        pixel_size_angstrom=3.0,
        snr_db=5.0,
        motions=(Motion(1, "normal", 0.0, 1.0),),
    )
    simulate(config, folder / "set", SilentMonitor())
    return Particles.load(folder / "set" / "truth.star")


@pytest.fixture(scope="module")
def learned(particles: Particles, given: MovingModel) -> Dynamics:
    return infer_dynamics(particles, given, CONFIG, SilentMonitor())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trials be of fewer images than a user's: they are tested elsewhere."""
    monkeypatch.setattr(motion_calibration, "_FEWEST_TRIED", 20)


def apart(model: MovingModel, nodes: Tensor) -> float:
    """Return how far off the model is, modulo its own motion, in angstrom RMSD."""
    away = (nodes - model.node_coordinates_angstrom).flatten()
    direction = model.modes.direction.flatten(1)
    left = away - direction.mT @ (direction @ away)
    return float(left.square().sum().div(len(nodes)).sqrt())


def test_a_hinge_that_the_model_has_wrong_is_found(
    learned: Dynamics, given: MovingModel, true_nodes: Tensor
) -> None:
    before = apart(given, true_nodes)
    assert before == pytest.approx(HINGE_ANGSTROM, rel=0.15)
    # At 6 A from 100 images: most of it is found, local detail is not.
    assert apart(learned.model, true_nodes) < 0.4 * before
    assert learned.inference.problem.prior.conformation_sd_angstrom == (
        learned.model.amplitude_sd_angstrom
    )


def test_the_model_explains_more_of_the_images(
    learned: Dynamics, particles: Particles, given: MovingModel
) -> None:
    as_given = replace(CONFIG, learning_rounds=0)
    before = infer_dynamics(particles, given, as_given, SilentMonitor())
    before = before.inference.measured
    after = learned.inference.measured
    assert before.unexplained is not None
    assert after.unexplained is not None
    assert after.unexplained < 0.5 * before.unexplained


@pytest.mark.slow
def test_learning_that_was_stopped_ends_as_if_it_had_not_been(
    learned: Dynamics,
    particles: Particles,
    given: MovingModel,
    kept: Callable[..., Any],
) -> None:
    stopped = kept(at=2)
    with pytest.raises(KeyboardInterrupt):
        infer_dynamics(particles, given, CONFIG, stopped)
    again = infer_dynamics(particles, given, CONFIG, kept(stopped.state))
    torch.testing.assert_close(
        again.model.node_coordinates_angstrom,
        learned.model.node_coordinates_angstrom,
        # Sums in other orders: single precision, where a round amplifies it a little.
        rtol=0,
        atol=1e-3,
    )


def astray(problem: MotionProblem, measured: NoiseAndScale) -> MotionInference:
    """Return an inference that begins at the true poses, but for ten particles."""
    truth = problem.particles.pose
    assert truth is not None
    n = len(truth)
    turned = random_rotations(10, torch.Generator().manual_seed(1))
    pose = Pose(torch.cat([turned, truth.rotation[10:]]), torch.zeros(n, 2))
    at = Latents(pose, torch.zeros(n), torch.zeros(n, 1))
    made = MotionInference.of(problem, GivenPoses(), measured)
    return replace(made, starts=ParticlePosterior.at(at, 1))


class Listener(SilentMonitor):
    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


def test_particles_that_begin_at_a_wrong_pose_are_found(
    particles: Particles, given: MovingModel
) -> None:
    config = replace(CONFIG, poses="searched")
    problem = MotionProblem.of(particles, given, config)
    generator = torch.Generator().manual_seed(0)
    measured = initial_estimate(
        particles, given, problem.grid, problem.prior, generator
    )
    listener = Listener()
    learned_model(astray(problem, measured), 2, listener)
    (told,) = [text for text in listener.told if "more likely poses" in text]
    found = int(told.split("more likely poses of ")[1].split()[0])
    # Random poses of a protein of two unlike domains; and one or two that had moved.
    assert 8 <= found <= 14


def test_noise_of_every_optics_group_is_looked_at(
    particles: Particles, given: MovingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = torch.arange(len(particles)) % 2
    table = replace(particles.table, optics=replace(particles.optics, group=group))
    grouped = replace(particles, table=table)
    problem = MotionProblem.of(grouped, given, replace(CONFIG, poses="given"))
    generator = torch.Generator().manual_seed(0)
    measured = initial_estimate(grouped, given, problem.grid, problem.prior, generator)
    seen = []

    def look(
        calibration_subset: Iterable[Projected], before: NoiseAndScale
    ) -> NoiseAndScale:
        found = list(calibration_subset)
        seen.append([one.group for one in found])
        return residual_estimate(found, before)

    # Those of one group are more than enough for all.
    monkeypatch.setattr(motion_learning, "_LOOKED_AT", 1)
    monkeypatch.setattr(motion_learning, "residual_estimate", look)
    learned_model(astray(problem, measured), 1, SilentMonitor())
    assert [sorted(groups) for groups in seen] == [[0, 1]]


def broken(particles: Particles, rows: slice, folder: Path) -> Particles:
    """Return a copy of the particles, some of whose images hold a NaN."""
    stack = particles.stacks[0]
    shutil.copytree(stack.path.parent, folder)
    images = np.memmap(
        folder / stack.path.name,
        stack.dtype,
        "r+",
        stack.offset_bytes,
        (len(particles), particles.box, particles.box),
    )
    images[rows, 5, 5] = np.nan
    images.flush()
    return Particles.load(folder / "particles.star")


def test_a_second_look_is_at_readable_images(
    particles: Particles,
    given: MovingModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noise_and_scale, "_SECOND_LOOK", 3)
    some = broken(particles, slice(0, 10), tmp_path / "broken")
    problem = MotionProblem.of(some, given, replace(CONFIG, poses="searched"))
    generator = torch.Generator().manual_seed(0)
    measured = initial_estimate(some, given, problem.grid, problem.prior, generator)
    (batch,) = measured.calibration_subset(some)
    assert batch.index.tolist() == [10, 11, 12]


def test_poses_are_searched_and_unreadable_images_left_out(
    particles: Particles, given: MovingModel, tmp_path: Path
) -> None:
    some = broken(particles, slice(3, 4), tmp_path / "broken")
    config = replace(CONFIG, poses="searched", learning_rounds=0)
    few = some.select(torch.arange(40))
    found = infer_dynamics(few, given, config, SilentMonitor())
    known = found.motions.known
    assert known.tolist() == [row != 3 for row in range(40)]
    assert particles.pose is not None
    truth = particles.pose.rotation[:40]
    angle = geodesic_angle(found.motions.rotation, truth)[known]
    # Of a model that has a hinge wrong, and images to 6 A.
    assert float(torch.rad2deg(angle).median()) < 8.0
    assert found.verdict == ""


def test_shifts_of_centred_particles_stay(
    particles: Particles, given: MovingModel
) -> None:
    config = replace(CONFIG, poses="searched", shift_sd_angstrom=0.0)
    few = particles.select(torch.arange(20))
    found = infer_dynamics(
        few, given, replace(config, learning_rounds=1), SilentMonitor()
    )
    assert bool((found.motions.shift_angstrom == 0).all())
