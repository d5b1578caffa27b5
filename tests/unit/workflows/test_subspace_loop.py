"""Two states at known poses are told apart, from random z."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SILENT
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.subspace_loop import (
    FIRST_INFLATION,
    SubspaceConfig,
    SubspaceLoop,
    SubspaceState,
)

EACH, BOX, RADIUS = 150, 32, 10


def states(folder: Path, second: str) -> tuple[Particles, Latents]:
    """Return particles of two structures, and their true poses."""
    particles, poses = [], []
    for number, name in enumerate(("adenylate-kinase-open", second)):
        config = SimulationConfig(
            name,
            n=EACH,
            box=BOX,
            pixel_size_angstrom=3.6,
            snr_db=0.0,
            defocus_range_angstrom=(5000.0, 15000.0),
            seed=number,
        )
        simulate(config, folder / str(number), SILENT)
        particles.append(Particles.load(folder / str(number) / "particles.star"))
        pose = Particles.load(folder / str(number) / "truth.star").pose
        assert pose is not None
        poses.append(pose)
    truth = Latents.rigid(Pose.joined(poses), torch.zeros(2 * EACH)).double()
    return join(particles).particles, truth


def found(particles: Particles, truth: Latents, dims: int) -> SubspaceState:
    generator = torch.Generator().manual_seed(0)
    problem: Problem = define_problem(particles, "C1", None, 0.0, 0.0, generator)
    prior = replace(problem.prior, conformation_sd_angstrom=(1.0,) * dims)
    problem = replace(problem, prior=prior)
    box = problem.map_box(RADIUS)
    voxel = problem.grid.length_angstrom / box
    mask = soft_sphere(box, problem.particle_radius_angstrom / voxel, 2.0)
    config = SubspaceConfig(dims, RADIUS, RADIUS)
    masks = mask.expand(1 + dims, -1, -1, -1)
    loop = SubspaceLoop(problem, initial_noise(problem), masks, config)
    state = loop.at_poses(loop.begun(truth), "it", 9, FIRST_INFLATION, SILENT)
    return loop.refined(loop.in_principal_axes(state), SILENT)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Particles, Latents]:
    return states(tmp_path_factory.mktemp("two"), "adenylate-kinase-closed")


@pytest.mark.parametrize("dims", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_states_are_told_apart(two: tuple[Particles, Latents], dims: int) -> None:
    state = found(*two, dims)
    z = state.posterior.mode().conformation[:, 0]
    first, second = z[:EACH], z[EACH:]
    middle = (first.mean() + second.mean()) / 2
    wrong = ((first > middle) == (first.mean() < middle)).sum()
    wrong += ((second > middle) == (second.mean() < middle)).sum()
    # At known poses and 0 dB the states are many standard deviations apart.
    assert int(wrong) <= 2
    # The first component is the one that changes the map most, and all are orthogonal.
    assert state.subspace is not None
    components = state.subspace.maps[1:].double().flatten(1)
    gram = components @ components.T
    power = gram.diagonal()
    assert bool((power.diff() <= 0).all())
    # Maps are turned in single precision.
    assert float((gram - power.diag()).abs().max()) <= 1e-5 * float(power[0])
    # Nobody knows z better than the spread of the particles, nor not at all.
    sd = state.posterior.covariances[:, 0, 6, 6].sqrt()
    assert 0 < float(sd.median()) < 0.3 * float(z.std())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_subspace(
    two: tuple[Particles, Latents],
) -> None:
    once, again = (found(*two, 1) for _ in range(2))
    assert once.subspace is not None
    assert again.subspace is not None
    assert torch.equal(once.subspace.maps, again.subspace.maps)
