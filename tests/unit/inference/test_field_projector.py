"""Maps that are polynomials of z, against one map for every z."""

from dataclasses import replace

import pytest
import torch
from tests.scenes import RADIUS, blob_map
from torch import Tensor

from cryoinfer.inference.field_conformation import (
    FieldConformation,
    field_conformation_at,
)
from cryoinfer.inference.field_projector import FieldProjector
from cryoinfer.inference.hermite import HermiteFeatures
from cryoinfer.inference.linear_conformation import conformation_at
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Latents

PRIOR = PosePrior(10.0, 300.0, (1.0, 1.0))
Z = torch.tensor([0.7, -1.2], dtype=torch.float64)
GRID = torch.linspace(-6, 6, 2401, dtype=torch.float64)


def some_maps(count: int) -> list[Tensor]:
    """Return a mean map and ever smaller ones, none of which is another's multiple."""
    one = blob_map()
    axes = ((0,), (1,), (2,), (0, 1), (1, 2))
    others = [0.5 / (1 + k) * one.flip(axes[k]) for k in range(count - 1)]
    return [one, *others]


@pytest.fixture
def field() -> FieldProjector:
    return FieldProjector.of_maps(some_maps(6), HermiteFeatures(2, 2), RADIUS)


def at_z(latents: Latents, z: Tensor) -> Latents:
    """Return the same poses, all in one conformation."""
    return replace(latents, conformation=z.expand(len(latents), len(z)))


def test_projections_are_those_of_the_map_at_z(scene, field: FieldProjector) -> None:
    made = scene(6, noise_sd=0.3)
    latents = at_z(made.truth, Z)
    alone, rigid = field.at(Z), latents.without_conformation()
    found = field.coefficients(latents, made.images)
    expected = alone.coefficients(rigid, made.images)
    # Six slices are added up in single precision.
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(
        field.log_likelihood(made.images, latents),
        alone.log_likelihood(made.images, rigid),
        rtol=1e-5,
        atol=1e-3,
    )


def test_derivatives_by_z_are_those_of_the_slices(scene, field: FieldProjector) -> None:
    made = scene(4, noise_sd=0.3)
    latents = at_z(made.truth, Z)
    found = field.normal_equations(made.images, latents, PRIOR)
    slices = field.subspace.slices(latents.pose.rotation, made.images)
    seen = made.images.moved_back(latents.pose.shift_angstrom)

    def shown(z: Tensor) -> Tensor:
        shares = field.features.values(z).to(torch.complex128)
        whole = torch.einsum("f,nfp->np", shares, slices.to(torch.complex128))
        return torch.view_as_real(made.images.ctf * whole)

    def log_likelihood(z: Tensor) -> Tensor:
        left = torch.view_as_real(seen.to(torch.complex128)) - shown(z)
        return -left.square().sum((1, 2))

    jacobian = torch.autograd.functional.jacobian(shown, Z)
    slope = torch.autograd.functional.jacobian(log_likelihood, Z)
    information = 2 * torch.einsum("npcq,npcr->nqr", jacobian, jacobian)
    root = information.diagonal(dim1=1, dim2=2).sqrt()
    # In standard deviations of z; sums of single precision.
    apart = (found.gradient[:, 6:] - slope) / root
    assert float(apart.abs().max()) < 1e-2
    scale = root[:, :, None] * root[:, None]
    apart = (found.information[:, 6:, 6:] - information) / scale
    assert float(apart.abs().max()) < 1e-4


def test_derivatives_by_the_pose_are_those_of_the_map_at_z(
    scene, field: FieldProjector
) -> None:
    made = scene(6, noise_sd=0.3, defocus_error_angstrom=300.0)
    latents = at_z(made.truth, Z)
    rigid = latents.without_conformation()
    found = field.normal_equations(made.images, latents, PRIOR)
    expected = field.at(Z).normal_equations(made.images, rigid, PRIOR.rigid)
    root = expected.information.diagonal(dim1=1, dim2=2).sqrt()
    scale = root[:, :, None] * root[:, None]
    apart = (found.information[:, :6, :6] - expected.information) / scale
    # Sums of single precision, of six slices instead of one.
    assert float(apart.abs().max()) < 1e-4
    apart = (found.gradient[:, :6] - expected.gradient) / root
    assert float(apart.abs().max()) < 1e-2


def test_unknowns_that_are_held_have_no_derivatives(
    scene, field: FieldProjector
) -> None:
    made = scene(3)
    held = replace(PRIOR, conformation_sd_angstrom=(1.0, 0.0), defocus_sd_angstrom=0.0)
    found = field.normal_equations(made.images, at_z(made.truth, Z), held)
    assert bool((found.gradient[:, [5, 7]] == 0).all())
    assert bool((found.information[:, [5, 7]] == 0).all())
    assert bool((found.gradient[:, 6] != 0).all())


@pytest.mark.parametrize("inflation", [1.0, 4.0])
def test_moments_and_evidence_are_those_of_the_density(scene, inflation: float) -> None:
    weak = [0.02 * one for one in some_maps(4)[1:]]
    maps = [blob_map(), *weak]
    field = FieldProjector.of_maps(maps, HermiteFeatures(1, 3), RADIUS)
    prior = replace(PRIOR, conformation_sd_angstrom=(1.0,))
    made = scene(5, noise_sd=1.0)
    found = field_conformation_at(field, made.images, made.truth, prior, inflation)
    log_joint = []
    for z in GRID:
        value = field.log_likelihood(made.images, at_z(made.truth, z[None])) / inflation
        log_joint.append(value - 0.5 * z**2)
    table = torch.stack(log_joint, 1)
    share = table.softmax(1)
    mean = share @ GRID
    variance = share @ GRID.square() - mean.square()
    # Seven points of a density that is not quite normal.
    torch.testing.assert_close(found.mean[:, 0], mean, rtol=0, atol=0.02)
    torch.testing.assert_close(found.covariance[:, 0, 0], variance, rtol=0.05, atol=0)
    step = float(GRID[1] - GRID[0])
    total = table.logsumexp(1) + torch.log(torch.tensor(step))
    expected = total - 0.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(found.log_evidence, expected, rtol=0, atol=0.02)


def test_a_field_of_degree_1_is_a_subspace(scene) -> None:
    field = FieldProjector.of_maps(some_maps(3), HermiteFeatures(2, 1), RADIUS)
    made = scene(5, noise_sd=1.0)
    found = field_conformation_at(field, made.images, made.truth, PRIOR)
    linear = conformation_at(field.subspace, made.images, made.truth, PRIOR)
    # The maximum is reached in steps, to a millionth of a standard deviation.
    torch.testing.assert_close(found.mean, linear.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.covariance, linear.covariance, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        found.log_evidence, linear.log_evidence, rtol=1e-9, atol=0
    )


def test_z_is_found_on_either_side_of_a_bend(scene) -> None:
    # Maps of z and -z differ by the odd polynomials alone.
    one = blob_map()
    maps = [one, 0.3 * one.flip(0), 0.6 * one.flip(1)]
    field = FieldProjector.of_maps(maps, HermiteFeatures(1, 2), RADIUS)
    prior = replace(PRIOR, conformation_sd_angstrom=(1.0,))
    made = scene(8, noise_sd=0.1)
    z = torch.linspace(-1.5, 1.5, 8, dtype=torch.float64)[:, None]
    truth = replace(made.truth.double(), conformation=z)
    shown = made.images.ctf * field.coefficients(truth, made.images)
    images = replace(made.images, coefficients=shown)
    still = replace(truth, pose=replace(truth.pose, shift_angstrom=torch.zeros(8, 2)))
    known = ParticlePosterior.at(still, 1)
    found = FieldConformation(GivenPoses()).infer(images, field, prior, known)
    # No noise was added: what is left is the pull of the prior.
    torch.testing.assert_close(found.mode().conformation, z, rtol=0, atol=0.02)
    assert found.covariances.shape == (8, 1, 7, 7)
