"""What every projector promises: a likelihood, and its derivatives by all unknowns."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector, residual
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages
from cryoinfer.operations import plain_only
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents

IMAGES = 4
FREE = PosePrior(1e6, 1e9)
FREE_AND_MOVING = PosePrior(1e6, 1e9, (1e6, 1e6))


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def widths(information: Tensor) -> Tensor:
    """Return the inverse sd of each unknown at fixed others, 1 where it is held."""
    diagonal = information.diagonal(dim1=1, dim2=2)
    return torch.where(diagonal > 0, diagonal, 1.0).sqrt()


def slope_by_autograd(made, at: Latents) -> Tensor:
    """Differentiate the log-likelihood that is written out in float64, (n, 6)."""
    unknown = torch.zeros(len(at), 6, dtype=torch.float64, requires_grad=True)
    skew = torch.zeros(len(at), 3, 3, dtype=torch.float64)
    for axis, (a, b) in enumerate([(2, 1), (0, 2), (1, 0)]):
        skew[:, a, b], skew[:, b, a] = unknown[:, axis], -unknown[:, axis]
    value = -made.loss(
        torch.linalg.matrix_exp(skew) @ at.pose.rotation,
        at.pose.shift_angstrom + unknown[:, 3:5],
        at.defocus_offset_angstrom + unknown[:, 5],
    )
    return torch.autograd.grad(value.sum(), unknown)[0]


def slope_by_differences(
    value: Callable[[Latents], Tensor], at: Latents, step: Tensor
) -> Tensor:
    """Return central differences to the fourth order in steps (n, u), shape (n, u)."""
    found = torch.zeros_like(step)
    for unknown in range(step.shape[1]):
        one = torch.zeros_like(step)
        one[:, unknown] = step[:, unknown]
        near, far = (
            value(moved(at, k * one)) - value(moved(at, -k * one)) for k in (1, 2)
        )
        found[:, unknown] = (8 * near - far) / (12 * step[:, unknown])
    return found


@dataclass(frozen=True)
class Drawn:
    """Noisy images of a structure, and latents a few widths off their truth."""

    projector: Projector
    images: WhitenedImages
    at: Latents


@pytest.fixture
def atoms(scene) -> Drawn:
    """Return images of atoms in double precision that move along two modes."""
    direction = torch.linalg.qr(normal(2, 120, 2)).Q.T.reshape(2, 40, 3) * 40**0.5
    still = GaussianAtoms.from_elements(6 * normal(1, 40, 3), ["C", "O"] * 20, 60.0)
    moving = MovingAtoms(still, direction).scaled(0.2)
    projector = MovingProjector(moving, ReferenceGrid(32, 2.0), moving, 0)
    prior = PosePrior(2.0, 200.0, (2.0, 2.0))
    source = TrainingImages(projector, (scene(IMAGES).images,), prior)
    images, truth = source.draw(IMAGES, torch.Generator().manual_seed(3))
    step = torch.tensor([0.03, -0.02, 0.03, 0.3, -0.2, 100.0, 0.4, -0.4]).double()
    return Drawn(projector, images, moved(truth, step.expand(IMAGES, 8)))


VERSIONS = pytest.mark.parametrize("version", [nullcontext, plain_only])


@VERSIONS
@pytest.mark.parametrize("pixel_size", [2.0, 2.5])
def test_the_gradient_of_a_map_is_that_of_its_likelihood(
    scene, pixel_size: float, version
) -> None:
    made = scene(IMAGES, 0.1, pixel_size, defocus_error_angstrom=100.0)
    step = torch.tensor([0.03, -0.02, 0.03, 0.5, -0.4, 150.0]).double()
    at = moved(made.truth, step.expand(IMAGES, 6))
    with version():
        found = made.projector.normal_equations(made.images, at, FREE)
        value = made.projector.log_likelihood(made.images, at)
    width = widths(found.information)
    apart = (found.gradient - slope_by_autograd(made, at)) / width
    size = (found.gradient / width).norm(dim=1)
    assert (size > 10).all()
    # Single precision of some 200 products: 8e-7 was found.
    assert (apart.abs().amax(1) / size).max() < 1e-5
    naive = -made.loss_of(at)
    torch.testing.assert_close(found.log_likelihood, naive, rtol=1e-5, atol=0)
    # To a millionth of the images' power, which is what is promised.
    assert ((value - naive).abs() < 1e-6 * made.power()).all()


def test_the_gradient_of_atoms_is_that_of_their_likelihood(atoms: Drawn) -> None:
    found = atoms.projector.normal_equations(atoms.images, atoms.at, FREE_AND_MOVING)
    width = widths(found.information)
    differences = slope_by_differences(
        lambda at: atoms.projector.log_likelihood(atoms.images, at),
        atoms.at,
        0.2 / width,
    )
    apart = (found.gradient - differences) / width
    assert ((found.gradient / width).norm(dim=1) > 5).all()
    # Differences over a fifth of a sd, in double precision but for the CTF, which the
    # defocus moves: 1e-6 and 1e-4 were found.
    limit = torch.full((8,), 1e-5, dtype=torch.float64)
    limit[5] = 1e-3
    assert (apart.abs() < limit).all(), apart
    value = atoms.projector.log_likelihood(atoms.images, atoms.at)
    torch.testing.assert_close(found.log_likelihood, value, rtol=1e-5, atol=0)


def test_the_information_of_atoms_is_the_squared_slope_of_what_they_show(
    atoms: Drawn,
) -> None:
    found = atoms.projector.normal_equations(atoms.images, atoms.at, FREE_AND_MOVING)
    small = 0.1 / widths(found.information)

    def left(step: Tensor) -> Tensor:
        """Return what projections leave of the images, where these are."""
        rest = residual(atoms.projector, atoms.images, moved(atoms.at, step))
        back = replace(atoms.images, coefficients=rest)
        return back.moved_back(-moved(atoms.at, step).pose.shift_angstrom)

    slopes = []
    for unknown in range(8):
        step = torch.zeros_like(small)
        step[:, unknown] = small[:, unknown]
        slopes.append((left(step) - left(-step)) / (2 * small[:, unknown, None]))
    slope = torch.view_as_real(torch.stack(slopes, 1)).flatten(2).double()
    expected = 2 * slope @ slope.mT
    width = widths(expected)
    scale = width[:, :, None] * width[:, None, :]
    # Central differences over a tenth of a sd, with CTFs and shifts in single
    # precision: 2e-4 was found.
    assert ((found.information - expected) / scale).abs().max() < 1e-3


PRIORS = [
    PosePrior(0.0, 0.0),
    PosePrior(0.0, 300.0),
    PosePrior(2.0, 0.0, rotation_unknowns=1),
    PosePrior(2.0, 300.0, rotation_unknowns=0),
]


def holds(projector: Projector, images, at: Latents, prior: PosePrior, free) -> None:
    """Check that what is held has no slope, and that the rest is as it was."""
    whole = projector.normal_equations(images, at, free)
    found = projector.normal_equations(images, at, prior)
    opened = prior.precision >= 0
    assert not found.gradient[:, ~opened].any()
    assert not found.information[:, ~opened].any()
    assert not found.information[:, :, ~opened].any()
    # The same sums, in products of another size, in single precision.
    width = widths(whole.information)
    scale = width[:, :, None] * width[:, None, :]
    block = opened[:, None] & opened
    same = ((found.information - whole.information) / scale)[:, block]
    assert same.abs().max() < 1e-5
    slope = ((found.gradient - whole.gradient) / width)[:, opened]
    assert slope.abs().max() < 1e-5 * (whole.gradient / width).abs().max()
    torch.testing.assert_close(
        found.log_likelihood, whole.log_likelihood, rtol=1e-6, atol=0
    )


@VERSIONS
@pytest.mark.parametrize("prior", PRIORS)
def test_normal_equations_of_a_map_are_zero_where_held(scene, prior, version) -> None:
    made = scene(IMAGES, 0.3)
    step = torch.tensor([0.03, -0.02, 0.03, 0.5, -0.4, 150.0]).double()
    at = moved(made.truth, step.expand(IMAGES, 6))
    with version():
        holds(made.projector, made.images, at, prior, FREE)


@pytest.mark.parametrize("amplitudes", [(2.0, 2.0), (0.0, 2.0), (0.0, 0.0)])
@pytest.mark.parametrize("prior", PRIORS)
def test_normal_equations_of_atoms_are_zero_where_held(
    atoms: Drawn, prior: PosePrior, amplitudes: tuple[float, float]
) -> None:
    prior = replace(prior, conformation_sd_angstrom=amplitudes)
    assert atoms.at.defocus_offset_angstrom.all()  # held defoci are not the given ones
    holds(atoms.projector, atoms.images, atoms.at, prior, FREE_AND_MOVING)


def test_the_likelihood_is_what_projections_leave(scene, atoms: Drawn) -> None:
    made = scene(IMAGES, 0.3, defocus_error_angstrom=200.0)
    of_map = Drawn(made.projector, made.images, made.truth)
    for one in (of_map, atoms):
        rest = residual(one.projector, one.images, one.at)
        found = one.projector.log_likelihood(one.images, one.at)
        # Sums of hundreds of squares in single precision.
        expected = -rest.abs().square().sum(1).double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
