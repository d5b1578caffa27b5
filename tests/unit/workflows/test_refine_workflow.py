"""Refinement from poses and from a map."""

import math
from dataclasses import replace

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.geometry.rotations import rotate_in_image_frame
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.records import Pose
from cryoinfer.workflows.refine import RefineConfig, StartingMap, refine

CONFIG = RefineConfig(particle_diameter_angstrom=80.0, max_shift_angstrom=6.0)


def median_error(found: Pose, true: Pose) -> tuple[float, float]:
    """Return median errors in degrees and angstrom."""
    generator = torch.Generator().manual_seed(0)
    alignment = align_poses(found, true, generator, allow_mirror=False)
    errors = pose_errors(found, true, alignment)
    return float(errors.geodesic_degrees.median()), float(
        errors.shift_angstrom.median()
    )


def made_of(simulated):
    return simulated(
        400,
        snr_db=5.0,
        max_shift_angstrom=2.0,
        defocus_range_angstrom=(8000.0, 16000.0),
    )


def test_disturbed_poses_are_mended(simulated) -> None:
    made = made_of(simulated)
    generator = torch.Generator().manual_seed(1)
    turn = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    moved = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    start = Pose(
        rotate_in_image_frame(made.true_pose.rotation, turn * math.radians(4)),
        made.true_pose.shift_angstrom + moved,
    )
    particles = made.particles.with_results(pose=start)
    result = refine(particles, None, CONFIG, SilentMonitor())
    before, after = (
        median_error(pose, made.true_pose) for pose in (start, result.latents.pose)
    )
    # At 7.6 angstrom a turn of 3 degrees moves the rim by a quarter of that.
    assert before[0] > 5
    assert after[0] < 3
    assert after[1] < before[1] / 2
    assert len(result.iterations) >= 1


def test_a_map_is_enough(simulated) -> None:
    made = made_of(simulated)
    # On voxels of another size, and another scale of the density.
    start = StartingMap(made.density[::2, ::2, ::2] * 1e3, 2 * 3.8)
    result = refine(made.particles, start, CONFIG, SilentMonitor())
    degrees, angstrom = median_error(result.latents.pose, made.true_pose)
    assert degrees < 3
    assert angstrom < 1


def test_results_are_consistent(simulated) -> None:
    made = made_of(simulated)
    subset = torch.arange(400) % 2 + 1
    particles = made.with_poses().with_results(random_subset=subset)
    result = refine(particles, None, CONFIG, SilentMonitor())
    assert torch.equal(result.random_subset, subset)
    posterior = result.posterior
    assert posterior.covariance.shape == (400, 1, 6, 6)
    covariance = posterior.covariance[:, 0]
    symmetric = covariance - covariance.mT
    assert symmetric.abs().max() < 1e-6 * covariance.abs().max()
    # Rotation and shift were inferred, the defocus was not.
    assert (torch.linalg.eigvalsh(covariance[:, :5, :5]) > 0).all()
    assert not covariance[:, 5].any()
    assert not result.latents.defocus_offset_angstrom.any()
    one = torch.ones(400, dtype=torch.float64)
    torch.testing.assert_close(posterior.weight.sum(1).double(), one)
    assert posterior.normalised().entropy().isfinite().all()
    # Of an image that could not be read no mode has any weight.
    unread = replace(posterior, weight=0 * posterior.weight).normalised()
    assert unread.sample(1, torch.Generator()).pose.rotation.isfinite().all()
    assert torch.equal(unread.weight.sum(1), torch.ones(len(unread)).double())
    assert posterior.log_likelihood.isfinite().all()
    assert [len(spectrum) for spectrum in result.noise_power] == [12]


def test_a_map_that_is_no_cube_is_refused(simulated) -> None:
    with pytest.raises(InputError, match="cubic"):
        refine(
            simulated().particles,
            StartingMap(torch.zeros(8, 8, 6), 3.8),
            CONFIG,
            SilentMonitor(),
        )


def test_neither_map_nor_poses_is_refused(simulated) -> None:
    with pytest.raises(InputError, match="poses"):
        refine(simulated().particles, None, CONFIG, SilentMonitor())
