"""A field of maps is found again from its images, and bends where particles do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.data.turns import Turn
from cryoinfer.errors import InputError
from cryoinfer.evaluation.conformation import monotone_r2
from cryoinfer.inference.hermite import HermiteFeatures
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.interfaces import SILENT
from cryoinfer.io.torch_files import read_values, write_values
from cryoinfer.records import Latents
from cryoinfer.results.field import FieldGain, read_field, write_field
from cryoinfer.workflows.field_evidence import held_out_evidence
from cryoinfer.workflows.field_loop import FieldLoop, first_dimensions
from cryoinfer.workflows.field_update import FieldSums, solve_field
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_pass import Accumulator, ParticlePass, run_pass
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.reconstruct import given_poses
from cryoinfer.workflows.subspace_loop import (
    FIRST_INFLATION,
    SubspaceConfig,
    SubspaceLoop,
)
from cryoinfer.workflows.subspace_update import SubspaceSums, solve_subspace

N, BOX, RADIUS = 400, 32, 10


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> tuple[Problem, Tensor]:
    """Return particles with their true poses, and by how much a domain has turned."""
    config = SimulationConfig(
        "adenylate-kinase-open",
        n=N,
        box=BOX,
        pixel_size_angstrom=3.6,
        snr_db=5.0,
        turn=Turn.parse("A:122-159 about A:118 A:163 by 150"),
    )
    folder = tmp_path_factory.mktemp("turning")
    simulate(config, folder, SILENT)
    particles = Particles.load(folder / "truth.star")
    lines = (folder / "truth.star").read_text().splitlines()
    angle = [float(line.split()[-1]) for line in lines if ".mrcs" in line]
    generator = torch.Generator().manual_seed(0)
    problem = define_problem(particles, "C1", None, 0.0, 0.0, generator)
    return problem, torch.tensor(angle, dtype=torch.float64)


def taught_by(problem: Problem, dims: int) -> ParticlePosterior:
    """Return posteriors in a subspace."""
    config = SubspaceConfig(dims, RADIUS, RADIUS)
    loop = SubspaceLoop.of(problem, initial_noise(problem), config)
    start = loop.begun(given_poses(problem.particles))
    state = loop.at_poses(start, "it", 9, FIRST_INFLATION, SILENT)
    return loop.in_principal_axes(state).posterior


def loop_of(problem: Problem, dims: int, degree: int) -> FieldLoop:
    features = HermiteFeatures(dims, degree)
    return FieldLoop.of(problem, initial_noise(problem), features, RADIUS, RADIUS)


def known_z(problem: Problem, z: Tensor, sd: float) -> ParticlePosterior:
    """Return posteriors about given z of one dimension at the true poses."""
    poses = given_poses(problem.particles)
    at = ParticlePosterior.at(Latents(poses.pose, z.new_zeros(len(z)), z[:, None]), 1)
    covariance = at.covariance.clone()
    covariance[..., 6, 6] = sd**2
    return replace(at, covariance=covariance)


def inserted(problem: Problem, sums: Accumulator[None], size: int) -> Any:
    """Return the pass that adds up images at given poses and z."""
    source = StrictImages(problem.grid, RADIUS, initial_noise(problem))
    return ParticlePass(
        "sums",
        source,
        (None, None),
        problem.prior,
        GivenPoses(),
        lambda one: one.placed,
        (sums,),
        batch_size=size,
    )


def test_at_degree_1_it_is_the_subspace_of_the_same_z(
    turning: tuple[Problem, Tensor],
) -> None:
    problem, angle = turning
    z = 0.3 + 0.8 * (angle - angle.mean()) / angle.std()
    posterior, loop = known_z(problem, z, 0.2), loop_of(problem, 1, 1)
    field = loop.taught(posterior, "field", SILENT).field
    sums = SubspaceSums.empty(1, BOX, RADIUS)
    run_pass(problem, inserted(problem, sums, N), posterior, posterior, SILENT)
    expected = solve_subspace(problem, sums, loop.mask, None)
    scale = float(expected.maps.abs().max())
    # Moments are added up in another order, in single precision.
    torch.testing.assert_close(field.maps, expected.maps, rtol=0, atol=1e-4 * scale)


def test_maps_bend_with_the_particles(turning: tuple[Problem, Tensor]) -> None:
    problem, angle = turning
    z = (angle - angle.mean()) / angle.std()
    posterior = known_z(problem, z, 0.05)
    left = []
    for degree in (1, 3):
        loop = loop_of(problem, 1, degree)
        state = loop.taught(posterior, "field", SILENT)
        there = loop.iterated(state, 1, "field", SILENT).posterior
        left.append(float(there.log_likelihood.mean()))
    # A turn of 150 degrees is no straight line of maps: a curve fits the images better
    # by far more than the two numbers a voxel that it adds.
    assert left[1] > left[0] + 1


def test_half_maps_add_up_to_what_a_field_says(
    turning: tuple[Problem, Tensor], tmp_path: Path
) -> None:
    problem, angle = turning
    z = (angle - angle.mean()) / angle.std()
    loop = loop_of(problem, 1, 2)
    field = loop.taught(known_z(problem, z, 0.1), "field", SILENT).field
    at = torch.tensor([0.8], dtype=torch.float64)
    first, second = field.halves_at(at)
    half = first + second
    agreement = torch.corrcoef(torch.stack([half.flatten(), field.at(at).flatten()]))
    # The filter and the noise are all that differs.
    assert float(agreement[0, 1]) > 0.9
    moved = field.moved(torch.tensor([0.3]).double(), torch.tensor([[2.0]]).double())
    torch.testing.assert_close(
        moved.at((at - 0.3) / 2),
        field.at(at),
        rtol=0,
        atol=1e-4 * float(half.abs().max()),
    )
    write_field(tmp_path / "field.pt", field, 3.6)
    read, pixel_size = read_field(tmp_path / "field.pt")
    assert pixel_size == 3.6
    assert read.features == field.features
    assert torch.equal(read.maps, field.maps)
    assert torch.equal(read.halves[1], field.halves[1])


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_values(tmp_path / "field.pt", {"dims": 1})
    with pytest.raises(InputError, match="another version"):
        read_field(tmp_path / "field.pt")
    assert "dims" in read_values(tmp_path / "field.pt")
    with pytest.raises(InputError, match="field"):
        read_field(tmp_path / "absent.pt")


def test_particles_are_in_order_along_a_turn(turning: tuple[Problem, Tensor]) -> None:
    problem, angle = turning
    taught = taught_by(problem, 2)
    loop = loop_of(problem, 1, 3)
    state = loop.iterated(loop.taught(taught, "field", SILENT), 4, "field", SILENT)
    state = loop.in_principal_axes(loop.conformed(state, SILENT))
    z = state.posterior.mode().conformation
    generator = torch.Generator().manual_seed(0)
    found = monotone_r2(z, angle, generator)
    linear = taught.mode().conformation
    assert found > 0.9
    assert found > monotone_r2(linear[:, :1], angle, generator)
    # Modes that had no weight in the subspace have none in the field.
    expected = torch.tensor([1.0, 0.0, 0.0]).to(state.posterior.weight)
    assert bool((state.posterior.weight == expected).all())
    # Of unit spread, and no better known than that.
    assert 0.8 < float(z.std()) < 1.25
    assert 0 < float(state.posterior.covariances[:, 0, 6, 6].sqrt().median()) < 0.5


def test_held_out_images_tell_whether_it_bends(
    turning: tuple[Problem, Tensor],
) -> None:
    problem, _ = turning
    taught = taught_by(problem, 1)
    evidence = [
        held_out_evidence(loop_of(problem, 1, degree), taught, "field", SILENT)
        for degree in (1, 3)
    ]
    gain = FieldGain.of([HermiteFeatures(1, 3)], evidence)
    assert gain.best == 0
    assert gain.mean_nats[0] > 5 * gain.se_nats[0]
    # Judged by themselves neither says more.
    assert FieldGain.of([HermiteFeatures(1, 3)], [evidence[0]] * 2).best is None


def test_sums_of_two_batches_are_those_of_one(turning: tuple[Problem, Tensor]) -> None:
    problem, angle = turning
    z = (angle - angle.mean()) / angle.std()
    posterior, loop = known_z(problem, z, 0.1), loop_of(problem, 1, 2)
    solved = []
    for size in (N, 70):
        sums = FieldSums.empty(loop.features, BOX, RADIUS)
        step = inserted(problem, sums, size)
        run_pass(problem, step, posterior, posterior, SILENT)
        solved.append(solve_field(problem, sums, loop.mask).maps)
    scale = float(solved[0].abs().max())
    # Single precision, added up in another order.
    torch.testing.assert_close(*solved, rtol=0, atol=1e-4 * scale)


def test_the_first_dimensions_are_kept(turning: tuple[Problem, Tensor]) -> None:
    problem, _ = turning
    taught = taught_by(problem, 2)
    found = first_dimensions(taught, 1)
    assert found.modes.conformation.shape[-1] == 1
    assert torch.equal(
        found.modes.conformation[..., 0], taught.modes.conformation[..., 0]
    )
    assert found.covariances.shape[-1] == 7
    assert len(found.prior_variance) == 4
