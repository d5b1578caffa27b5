"""Maps that are linear in z, against one map for every z."""

from dataclasses import replace

import pytest
import torch
from tests.scenes import RADIUS, blob_map

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.local_refinement import (
    FusedRefinement,
    refine_by_normal_equations,
    refine_locally,
)
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.quadrature_grid import departure, moved
from cryoinfer.inference.subspace_equations import subspace_normal_equations
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.records import Latents

PRIOR = PosePrior(10.0, 1000.0, (1.0, 1.0))
Z = torch.tensor([0.7, -1.2], dtype=torch.float64)


@pytest.fixture
def subspace() -> SubspaceProjector:
    one = blob_map()
    others = one.flip(0), one.transpose(0, 2)
    mean, *components = (
        FourierVolume.from_map(each, RADIUS)
        for each in (one, *(0.5 * other for other in others))
    )
    return SubspaceProjector(mean, tuple(components))


def at_z(latents: Latents) -> Latents:
    """Return the same poses, all in one conformation."""
    return replace(latents, conformation=Z.expand(len(latents), 2))


def test_projections_are_those_of_the_map_at_z(scene, subspace) -> None:
    made = scene(6, noise_sd=0.3)
    latents = at_z(made.truth)
    alone = subspace.at(Z)
    rigid = latents.without_conformation()
    found = subspace.coefficients(latents, made.images)
    expected = alone.coefficients(rigid, made.images)
    # Three slices are added up in single precision.
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(
        subspace.log_likelihood(made.images, latents),
        alone.log_likelihood(made.images, rigid),
        rtol=1e-5,
        atol=1e-3,
    )


@pytest.mark.parametrize("defocus_error", [0.0, 300.0])
def test_normal_equations_of_the_pose_are_those_of_the_map_at_z(
    scene, subspace, defocus_error: float
) -> None:
    made = scene(6, noise_sd=0.3, defocus_error_angstrom=defocus_error)
    latents = at_z(made.truth)
    rigid = latents.without_conformation()
    found = subspace.normal_equations(made.images, latents, PRIOR)
    expected = subspace.at(Z).normal_equations(made.images, rigid, PRIOR.rigid)
    # In standard deviations of the unknowns; one that is held has none.
    root = expected.information.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-12)
    scale = root[:, :, None] * root[:, None]
    apart = (found.information[:, :6, :6] - expected.information) / scale
    # Sums of single precision, of three slices instead of one.
    assert float(apart.abs().max()) < 1e-4
    apart = (found.gradient[:, :6] - expected.gradient) / root
    assert float(apart.abs().max()) < 1e-2


def test_normal_equations_of_z_are_its_quadratic_form(scene, subspace) -> None:
    made = scene(6, noise_sd=0.3)
    latents = at_z(made.truth)
    found = subspace.normal_equations(made.images, latents, PRIOR)
    step = torch.tensor([0.3, 0.2], dtype=torch.float64)
    there = replace(latents, conformation=latents.conformation + step)
    value = subspace.log_likelihood(made.images, there)
    bent = found.information[:, 6:, 6:]
    expected = (
        found.log_likelihood
        + found.gradient[:, 6:] @ step
        - 0.5 * torch.einsum("i,nij,j->n", step, bent, step)
    )
    # The likelihood is quadratic in z: only rounding is left.
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("components", [0, 1, 3])
@pytest.mark.parametrize("defocus_error", [0.0, 300.0])
def test_compiled_equations_are_the_plain_ones(
    scene, components: int, defocus_error: float
) -> None:
    made = scene(7, noise_sd=0.3, defocus_error_angstrom=defocus_error)
    one = blob_map()
    others = (0.5 * one.flip(0), 0.5 * one.transpose(0, 2), 0.2 * one.flip(1))
    shown = SubspaceProjector.of_maps((one, *others[:components]), RADIUS)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(7, components, generator=generator).double()
    latents = replace(made.truth, conformation=z)
    prior = PosePrior(10.0, defocus_error, (1.0,) * components)
    given = shown.mean, shown.components, made.images, latents, prior
    found = subspace_normal_equations(*given)
    expected = subspace_normal_equations.plain(*given)
    root = expected.information.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-12)
    scale = root[:, :, None] * root[:, None]
    # Sums of some hundred products of single precision, in another order.
    assert float(((found.information - expected.information) / scale).abs().max()) < (
        1e-4
    )
    assert float(((found.gradient - expected.gradient) / root).abs().max()) < 1e-2
    torch.testing.assert_close(
        found.log_likelihood, expected.log_likelihood, rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize("components", [0, 1, 3])
@pytest.mark.parametrize("defocus_sd", [0.0, 3000.0])
def test_the_fused_refinement_is_the_generic_one(
    scene, components: int, defocus_sd: float
) -> None:
    made = scene(24, 0.3, defocus_error_angstrom=200.0 * (defocus_sd > 0))
    one = blob_map()
    others = (0.5 * one.flip(0), 0.5 * one.transpose(0, 2), 0.2 * one.flip(1))
    shown = SubspaceProjector.of_maps((one, *others[:components]), RADIUS)
    prior = PosePrior(3.0, defocus_sd, (1.0,) * components)
    z = torch.zeros(24, components).double()
    step = [0.05, -0.05, 0.05, 1.0, -1.0, 300.0 * (defocus_sd > 0)]
    step = torch.tensor([*step, *(0.5,) * components]).double()
    start = moved(replace(made.truth, conformation=z), step.expand(24, -1))
    assert isinstance(shown, FusedRefinement)
    fused, generic = (
        refine(shown, made.images, start, prior, 20, 0.1)
        for refine in (refine_locally, refine_by_normal_equations)
    )
    away = departure(fused.latents, generic.latents)
    apart = torch.einsum("ni,nij,nj->n", away, generic.information, away).sqrt()
    # As for a map: the one ends where a step promises 0.1 nats, sqrt(0.2) = 0.45 sd
    # away, the other where it promises 0.01, sqrt(0.02) = 0.14 sd away.
    assert apart.max() < 0.6, apart
    assert apart.median() < 0.14, apart
    torch.testing.assert_close(
        fused.log_evidence(prior), generic.log_evidence(prior), rtol=0, atol=0.2
    )


def test_steps_of_z_are_not_longer_than_its_prior(scene) -> None:
    made = scene(3)
    shown = SubspaceProjector.of_maps([blob_map(), 0.5 * blob_map().flip(0)], RADIUS)
    prior = PosePrior(3.0, 0.0, (0.1,))
    far = replace(made.truth, conformation=torch.full((3, 1), 2.0).double())
    found = refine_locally(shown, made.images, far, prior, 1, 0.1)
    change = (found.latents.conformation - far.conformation).abs()
    # The images show none: a free step would go all the way.
    torch.testing.assert_close(change, torch.full((3, 1), 0.1).double())
