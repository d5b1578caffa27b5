"""Scores and normal equations of maps, plain and compiled, against float64."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier import trilinear
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.quadrature_grid import departure, moved
from cryoinfer.operations import plain_only
from cryoinfer.records import Latents

FREE = PosePrior(1e6, 1e9)

VERSIONS = pytest.mark.parametrize("version", [nullcontext, plain_only])
PIXEL_SIZES = pytest.mark.parametrize("pixel_size", [2.0, 2.5, 1.8])


def off_the_mode(scene, pixel_size: float = 2.0):
    """Return latents some way from the truth, so that residuals are large."""
    made = scene(4, 0.0, pixel_size, defocus_error_angstrom=100.0)
    generator = torch.Generator().manual_seed(5)
    turn = torch.randn(4, 3, generator=generator, dtype=torch.float64) * 0.05
    away = torch.tensor([0.5, 0.5, 150.0], dtype=torch.float64).expand(4, 3)
    return made, moved(made.truth, torch.cat([turn, away], 1))


def model_at(made, at: Latents) -> Tensor:
    pose, defocus = at.pose, at.defocus_offset_angstrom
    return made.model(pose.rotation, pose.shift_angstrom, defocus)


def jacobian(made, at: Latents) -> Tensor:
    """Differentiate real and imaginary parts, (n, 2 p, 6)."""

    def prediction(unknown: Tensor) -> Tensor:
        skew = torch.zeros(len(unknown), 3, 3, dtype=torch.float64)
        for axis, (a, b) in enumerate([(2, 1), (0, 2), (1, 0)]):
            skew[:, a, b], skew[:, b, a] = unknown[:, axis], -unknown[:, axis]
        model = made.model(
            torch.linalg.matrix_exp(skew) @ at.pose.rotation,
            at.pose.shift_angstrom + unknown[:, 3:5],
            at.defocus_offset_angstrom + unknown[:, 5],
        )
        # Images do not depend on each other's unknowns.
        return torch.view_as_real(model).flatten(1).sum(0)

    zero = torch.zeros(len(at), 6, dtype=torch.float64)
    return torch.autograd.functional.jacobian(prediction, zero).movedim(1, 0)


@VERSIONS
@PIXEL_SIZES
def test_information_is_twice_the_squared_jacobian(scene, pixel_size, version) -> None:
    made, at = off_the_mode(scene, pixel_size)
    slopes = jacobian(made, at)
    expected = 2 * slopes.mT @ slopes
    with version():
        found = made.projector.normal_equations(made.images, at, FREE).information
    # Relative to the diagonal: unknowns have units. Shift and defocus are exactly
    # uncoupled: their derivatives are a quarter turn of phase apart.
    width = expected.diagonal(dim1=1, dim2=2).sqrt()
    scaled = (found - expected) / (width[:, :, None] * width[:, None, :])
    # Single precision of some 200 products.
    assert scaled.abs().max() < 1e-4


def test_the_matrix_agrees_with_central_differences(scene) -> None:
    made, at = off_the_mode(scene)
    found = made.projector.normal_equations(made.images, at, FREE).information
    # Steps far within a voxel: derivatives of trilinear interpolation jump there.
    steps = torch.tensor([2e-5] * 3 + [1e-3] * 2 + [0.05], dtype=torch.float64)
    for unknown, step in enumerate(steps):
        move = torch.zeros(4, 6, dtype=torch.float64)
        move[:, unknown] = step
        ahead, behind = (model_at(made, moved(at, sign * move)) for sign in (1, -1))
        slope = (ahead - behind) / (2 * step)
        expected = 2 * slope.abs().square().sum(1)
        # A few points lie within a step of a voxel's face; at most one in 200.
        torch.testing.assert_close(
            found[:, unknown, unknown], expected, rtol=0.02, atol=0
        )


def test_a_step_solves_the_normal_equations(scene) -> None:
    made, at = off_the_mode(scene)
    slopes = jacobian(made, at)
    residual = made.images.coefficients - model_at(made, at)
    left = torch.view_as_real(residual).flatten(1).double()
    matrix = slopes.mT @ slopes
    damped = matrix + 1e-4 * torch.diag_embed(matrix.diagonal(dim1=1, dim2=2))
    gradient = (slopes.mT @ left[..., None]).squeeze(2)
    expected = torch.linalg.solve(damped, gradient)
    found = made.projector.refine_locally(made.images, at, FREE, 1, 1.0)
    step = departure(found.latents, at)
    # In units of the posterior's widths, over the whole step: sums of some 200 products
    # in single precision, of which the inverse of a matrix keeps less.
    width = matrix.diagonal(dim1=1, dim2=2).sqrt()
    length = (expected * width).norm(dim=1, keepdim=True)
    assert ((step - expected) * width / length).abs().max() < 1e-4


def test_plain_normal_equations_are_made_in_pieces(scene, monkeypatch) -> None:
    made, at = off_the_mode(scene)
    with plain_only():
        whole = made.projector.normal_equations(made.images, at, FREE)
        # An image has some 200 coefficients.
        monkeypatch.setattr(trilinear, "AT_ONCE", 500)
        pieces = made.projector.normal_equations(made.images, at, FREE)
    for name, value in vars(whole).items():
        # Products of matrices of another number are summed in another order.
        torch.testing.assert_close(getattr(pieces, name), value, rtol=1e-4, atol=1e-2)


@VERSIONS
@PIXEL_SIZES
def test_scores_are_those_of_double_precision(scene, pixel_size, version) -> None:
    made = scene(12, 0.3, pixel_size)
    generator = torch.Generator().manual_seed(6)
    rotation = random_rotations(12 * 7, generator).view(12, 7, 3, 3)
    shift = torch.rand(12, 5, 2, generator=generator, dtype=torch.float64) * 6
    with version():
        found = made.projector.scores(made.images, rotation, shift)
    still = torch.zeros(12, dtype=torch.float64)
    losses = [
        made.loss(rotation[:, m], shift[:, s], still)
        for m in range(7)
        for s in range(5)
    ]
    expected = made.power()[:, None] - torch.stack(losses, 1)
    # Sums of some 200 products in single precision.
    atol = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(found.double().flatten(1), expected, rtol=0, atol=atol)
