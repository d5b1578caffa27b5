"""Runs on images that were multiplied by their CTF, or its sign, find the same."""

from functools import cache

import pytest
import torch
from tests.extracted import FLIPPED, MULTIPLIED, extracted_set

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.infer import InferConfig, infer
from cryoinfer.workflows.refine import RefineConfig, refine

BOX, PIXEL, N = 24, 4.0, 300


@pytest.fixture(scope="module")
def made(simulated):
    """Return a simulated set with a CTF."""
    return simulated(
        N,
        box=BOX,
        pixel_size_angstrom=PIXEL,
        snr_db=3.0,
        defocus_range_angstrom=(10000.0, 20000.0),
    )


@pytest.fixture(scope="module")
def as_extracted(made):
    """Return a function that writes the set as RELION does with an option."""
    folder = made.particles.stacks[0].path.parent

    @cache
    def make(label: str = "") -> Particles:
        star = extracted_set(folder, label, label) if label else folder / "truth.star"
        return Particles.load(star)

    return make


@pytest.mark.parametrize(
    "label", [pytest.param(FLIPPED, marks=pytest.mark.slow), MULTIPLIED]
)
def test_refinement_finds_the_same_poses_noise_and_map(as_extracted, label) -> None:
    one, other = (
        refine(as_extracted(x), None, RefineConfig(), SilentMonitor())
        for x in ("", label)
    )
    poses = [found.latents.pose.rotation for found in (one, other)]
    moved = geodesic_angle(*poses)
    variance = one.inferred.covariance[:, 0].diagonal(dim1=-2, dim2=-1)[:, :3]
    sd = variance.sum(1).sqrt()
    # The noise is measured on other shares of the same coefficients, and iterations
    # end where poses move by less than 0.15 sd.
    assert float((moved / sd).median()) < 0.15
    between = fourier_shell_correlation(
        one.reconstruction.density, other.reconstruction.density
    )
    assert float(between[1:-1].min()) > 0.99
    # 300 images, 20 coefficients and more a ring: 1.3 % and less of sampling.
    ratio = other.noise_power[0][3:] / one.noise_power[0][3:]
    assert float((ratio - 1).abs().max()) < 0.04


@pytest.mark.slow
def test_an_encoder_sees_the_same(made, taught, as_extracted) -> None:
    trained = taught(made, torch.full((BOX // 2 + 1,), 0.5))
    config = InferConfig(local_refinement=False)
    one, other = (
        infer(as_extracted(x), trained, config, SilentMonitor())
        for x in ("", MULTIPLIED)
    )
    moved = geodesic_angle(one.latents.pose.rotation, other.latents.pose.rotation)
    # Hardly trained, the network answers smoothly: degrees between its own answers.
    assert float(torch.rad2deg(moved.median())) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("label", [FLIPPED, MULTIPLIED])
def test_abinitio_finds_the_same_poses_but_for_the_frame(as_extracted, label) -> None:
    one, other = (
        abinitio(as_extracted(x), AbinitioConfig(), SilentMonitor())
        for x in ("", label)
    )
    seen, wanted = (found.latents.pose for found in (other, one))
    frame = align_poses(seen, wanted, torch.Generator().manual_seed(0))
    error = pose_errors(seen, wanted, frame)
    variance = one.inferred.covariance[:, 0].diagonal(dim1=-2, dim2=-1)[:, :3]
    sd = torch.rad2deg(variance.sum(1).sqrt())
    # Both are a fraction of a posterior's width from where their iterations lead.
    assert float((error.geodesic_degrees / sd).median()) < 0.3
