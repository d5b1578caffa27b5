"""Conformations and classes inferred on a device that is not the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, is_elsewhere
from torch import Tensor
from torch.utils._pytree import tree_leaves

from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SILENT
from cryoinfer.operations import plain_only
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.class_config import ClassConfig
from cryoinfer.workflows.class_loop import ClassLoop
from cryoinfer.workflows.class_maps import classes
from cryoinfer.workflows.consensus import drawn_problem
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.problem import initial_noise
from cryoinfer.workflows.reconstruct import given_poses
from cryoinfer.workflows.subspace_loop import SubspaceConfig, SubspaceLoop

EACH = 60  # of either state, enough for two classes
Device = torch.device | str


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    """Return particles of two states with their true poses."""
    folder: Path = tmp_path_factory.mktemp("states")
    parts, poses = [], []
    for number, name in enumerate(("adenylate-kinase-open", "adenylate-kinase-closed")):
        config = SimulationConfig(
            name, n=EACH, box=20, pixel_size_angstrom=5.6, snr_db=5.0, seed=number
        )
        where = folder / str(number)
        parts.append(Particles.load(simulate(config, where, SILENT)))
        pose = Particles.load(where / "truth.star").pose
        assert pose is not None
        poses.append(pose)
    return join(parts).particles.with_results(pose=Pose.joined(poses))


def here_and_there(
    compute: Callable[[Device], list[Tensor]], decided: float = 0.0
) -> None:
    """Compare what a computation returns on the CPU, where both leave it.

    Of the last tensor a share of ``decided`` may differ by more: of particles between
    two cells of a grid, of which rounding decides which one is refined.
    """
    with plain_only():
        here = compute("cpu")
    with Elsewhere():
        there = compute(DEVICE)
        assert not any(map(is_elsewhere, tree_leaves(there)))
    # The same sums, but for the library of the Fourier transforms: rounding, which
    # iterations carry on.
    shares = [*[0.0] * (len(here) - 1), decided]
    for one, other, share in zip(here, there, shares, strict=True):
        scale = float(one.abs().max())
        apart = (one - other).abs().flatten().sort().values
        assert float(apart[-1 - int(share * len(apart))]) <= 1e-3 * scale


def test_a_few_iterations_at_given_poses(particles: Particles) -> None:
    few = particles.select(torch.arange(EACH - 20, EACH + 20))
    config = HeterogeneityConfig(poses="given", resolution_angstrom=14.0)

    def compute(device: Device) -> list[Tensor]:
        problem, _ = drawn_problem(few, config, device=device)
        loop = SubspaceLoop.of(problem, initial_noise(problem), SubspaceConfig(2, 4, 4))
        state = loop.at_poses(loop.begun(given_poses(few)), "it", 2, 1.0, SILENT)
        assert state.subspace is not None
        return [state.subspace.maps, state.subspace.fsc, state.posterior.covariance]

    here_and_there(compute)


@pytest.mark.slow
def test_a_subspace_at_given_poses(particles: Particles) -> None:
    config = HeterogeneityConfig(dims=1, poses="given", resolution_angstrom=14.0)

    def compute(device: Device) -> list[Tensor]:
        found = heterogeneity(particles, config, device=device)
        scores = found.run.outlier_score_nats
        assert scores is not None
        return [found.maps, found.z, found.reconstruction.density, scores]

    here_and_there(compute)


@pytest.mark.slow
def test_classes_at_given_poses(particles: Particles) -> None:
    config = ClassConfig(classes=2, poses="given", resolution_angstrom=14.0)

    def compute(device: Device) -> list[Tensor]:
        found = classes(particles, config, device=device)
        densities = [one.density for one in found.reconstructions]
        return [found.probability, *densities]

    here_and_there(compute)


@pytest.mark.slow
def test_poses_are_searched_and_refined_in_a_subspace(particles: Particles) -> None:
    config = HeterogeneityConfig(dims=1, resolution_angstrom=14.0)

    def compute(device: Device) -> list[Tensor]:
        problem, _ = drawn_problem(particles, config, device=device)
        chosen = SubspaceConfig(1, 5, 6)
        loop = SubspaceLoop.of(problem, initial_noise(problem), chosen)
        state = loop.begun(given_poses(particles))
        state = loop.at_poses(state, "first", 3, 1.0, SILENT)
        state = loop.searched(state, "search", SILENT)
        state = loop.refined(state, SILENT)
        assert state.subspace is not None
        maps = [2 * state.subspace.maps[0], state.subspace.maps[0]]
        z = torch.zeros(2, 1).double()
        again = loop.searched_in(maps, z, "search in maps", SILENT)
        return [*_known(state.posterior.mode()), *_known(again.posterior.mode())]

    here_and_there(compute)


@pytest.mark.slow
def test_poses_are_searched_and_refined_in_classes(particles: Particles) -> None:
    config = ClassConfig(resolution_angstrom=14.0)

    def compute(device: Device) -> list[Tensor]:
        problem, _ = drawn_problem(particles, config, device=device)
        loop = ClassLoop(problem, 5, searches=True)
        noise = initial_noise(problem)
        box = problem.map_box(5)
        generator = torch.Generator().manual_seed(0)
        maps = torch.randn(2, box, box, box, generator=generator)
        state = loop.searched(loop.begun(maps, noise), "search", SILENT)
        state = loop.settled(loop.measured(state, SILENT), "it", 1, SILENT)
        state = loop.refined(state, 6, SILENT)
        return [state.maps, *state.noise, state.record.log_evidence]

    # On one processor 2 of 240 evidences were 0.2 nats of 101 apart, the next 0.005.
    here_and_there(compute, decided=0.02)


def _known(latents: Latents) -> list[Tensor]:
    return [latents.pose.rotation, latents.pose.shift_angstrom, latents.conformation]
