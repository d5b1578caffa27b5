"""Atoms that move: their likelihood written out, and refinements back to the truth."""

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.quadrature_grid import departure, moved
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, PIXEL, RADIUS = 32, 2.0, 12
ALIKE = ReferenceGrid(BOX, PIXEL)
ALL = PosePrior(10.0, 1000.0, (5.0, 5.0))
UNKNOWNS = 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def structure(dtype: torch.dtype, b_factor_angstrom2: float = 30.0) -> MovingAtoms:
    """Return 40 atoms and two directions of unit root mean square displacement."""
    place = (8 * normal(1, 40, 3)).to(dtype)
    direction = torch.linalg.qr(normal(2, 120, 2)).Q.T.reshape(2, 40, 3) * 40**0.5
    elements = ["C", "N", "O", "C"] * 10
    atoms = GaussianAtoms.from_elements(place, elements, b_factor_angstrom2)
    return MovingAtoms(atoms, direction.to(dtype))


def microscope(n: int) -> Optics:
    defocus = torch.linspace(6000, 14000, n, dtype=torch.float64)
    return replace(
        Optics.without_ctf(n, PIXEL),
        cs_mm=torch.full_like(defocus, 2.7),
        amplitude_contrast=torch.full_like(defocus, 0.1),
        defocus_u_angstrom=defocus + 300,
        defocus_v_angstrom=defocus - 300,
        defocus_angle_radian=torch.full_like(defocus, 0.4),
    )


def latents(n: int, defocus_angstrom: float) -> Latents:
    pose = Pose(random_rotations(n, seeded(3)), 2 * normal(4, n, 2))
    return Latents(pose, defocus_angstrom * normal(5, n), 2 * normal(6, n, 2))


def recorded(at: Latents) -> Tensor:
    """Return half-transforms of images with their CTF, (n, BOX, BOX // 2 + 1)."""
    made = structure(torch.float64)
    shown = image_to_fourier(made.at(at.conformation).project(at.pose, BOX, PIXEL))
    optics = microscope(len(at))
    offset = at.defocus_offset_angstrom
    optics = replace(
        optics,
        defocus_u_angstrom=optics.defocus_u_angstrom + offset,
        defocus_v_angstrom=optics.defocus_v_angstrom + offset,
    )
    y = torch.fft.fftfreq(BOX, PIXEL, dtype=torch.float64)[:, None]
    x = torch.fft.rfftfreq(BOX, PIXEL, dtype=torch.float64)
    y, x = torch.broadcast_tensors(y, x)
    return evaluate_ctf(optics, x.flatten(), y.flatten()).view(shown.shape) * shown


@dataclass(frozen=True)
class Made:
    """Noiseless images, whitened by the noise that they are said to have."""

    projector: MovingProjector
    images: WhitenedImages
    truth: Latents
    noise_sd: float


def make(
    n: int,
    defocus_angstrom: float = 0.0,
    grid: ReferenceGrid = ALIKE,
    dtype: torch.dtype = torch.float32,
    radius: int = RADIUS,
) -> Made:
    truth = latents(n, defocus_angstrom)
    clean = fourier_to_image(recorded(truth), BOX)
    noise_sd = 0.2 * float(clean.std())
    batch = ParticleBatch(clean.float(), microscope(n), torch.arange(n))
    noise_power = torch.full((BOX // 2,), noise_sd**2)
    moving = structure(dtype)
    projector = MovingProjector(moving, grid, moving, 0)
    return Made(projector, whiten(batch, grid, radius, noise_power), truth, noise_sd)


def perturbed(at: Latents, unknowns: list[int]) -> Latents:
    """Return latents 5 degrees, 0.7 A, 200 A and 1.5 A off, where they may be."""
    size = torch.tensor([0.05, -0.05, 0.05, 0.5, -0.5, 200.0, 1.5, -1.5])
    step = torch.zeros(len(at), UNKNOWNS, dtype=torch.float64)
    step[:, unknowns] = size[unknowns].double()
    return moved(at, step)


def refined(
    made: Made, start: Latents, prior: PosePrior, steps: int = 20
) -> PosteriorModes:
    return refine_locally(made.projector, made.images, start, prior, steps, 0.2)


def squared_distance(found: PosteriorModes, truth: Latents) -> Tensor:
    """Return the squared distance of modes from the truth, in their own widths."""
    step = departure(found.latents, truth)
    return torch.einsum("ni,nij,nj->n", step, found.information, step)


# A refinement ends where a step would gain 0.01 nats, at a squared distance of 0.02.
# Priors that are a hundred widths wide move a mode by a hundredth of a width.
AT_THE_MODE = 0.05


@pytest.mark.parametrize(
    "grid",
    [ALIKE, ReferenceGrid(24, 2.0), ReferenceGrid(40, 2.0), ReferenceGrid(16, 4)],
)
def test_the_likelihood_is_the_residual_of_the_projection(grid: ReferenceGrid) -> None:
    made = make(4, 300.0, grid, radius=round(RADIUS * grid.length_angstrom / 64))
    elsewhere = latents(5, 500.0)[1:]
    gather = made.images.disc.gather
    rest = gather(recorded(made.truth)) - gather(recorded(elsewhere))
    expected = -rest.abs().square().sum(1) / made.noise_sd**2
    found = made.projector.log_likelihood(made.images, elsewhere)
    # Waves in single precision, 1e-5 of an image's largest value.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_a_given_defocus_is_that_of_the_images() -> None:
    made = make(3)
    found = made.projector.log_likelihood(made.images, made.truth)
    # Nothing is left but rounding: of an image of power 1e4, 1e-5 squared of it.
    assert (found > -1e-3).all()


def test_what_is_shown_has_no_shift() -> None:
    made = make(4)
    shown = made.projector.coefficients(made.truth, made.images)
    moved_back = made.images.moved_back(made.truth.pose.shift_angstrom)
    # Whitened: coefficients are a hundred times the noise, and waves good to 1e-5.
    torch.testing.assert_close(made.images.ctf * shown, moved_back, rtol=0, atol=1e-3)


def test_a_refinement_returns_to_the_truth() -> None:
    made = make(5)
    prior = replace(ALL, defocus_sd_angstrom=0.0)
    start = perturbed(made.truth, [0, 1, 2, 3, 4, 6, 7])
    found = refined(made, start, prior, 12)
    assert (squared_distance(found, made.truth) < AT_THE_MODE).all()
    # The start was a hundred widths off.
    before = replace(found, latents=start)
    assert (squared_distance(before, made.truth) > 1e4).all()
    defocus = found.latents.defocus_offset_angstrom
    assert torch.equal(defocus, start.defocus_offset_angstrom)
    expected = made.projector.log_likelihood(made.images, found.latents)
    # The same sums in products of another size, of images of power 1e4.
    torch.testing.assert_close(found.log_likelihood, expected, rtol=0, atol=1e-3)


def test_a_refinement_finds_the_defocus_too() -> None:
    made = make(5, 300.0)
    start = perturbed(made.truth, list(range(UNKNOWNS)))
    found = refined(made, start, ALL)
    assert (squared_distance(found, made.truth) < AT_THE_MODE).all()


def test_a_refinement_of_no_steps_stays_and_tells_what_is_there() -> None:
    made = make(3)
    start = perturbed(made.truth, [0, 3, 6])
    found = refined(made, start, ALL, 0)
    assert torch.equal(found.pose.rotation, start.pose.rotation)
    assert torch.equal(found.latents.conformation, start.conformation)
    expected = made.projector.log_likelihood(made.images, start)
    # Sums of thousands of squares in single precision.
    torch.testing.assert_close(found.log_likelihood, expected, rtol=1e-5, atol=0)


def test_a_narrow_prior_pulls_the_mode_towards_rest() -> None:
    made = make(4)
    # Of a fiftieth of the amplitudes, and a few of the likelihood's widths.
    prior = PosePrior(0.0, 0.0, (0.05, 0.05), rotation_unknowns=0)
    found = refined(made, made.truth, prior)

    def log_posterior(at: Latents) -> Tensor:
        likelihood = made.projector.log_likelihood(made.images, at)
        return likelihood + prior.log_density(at)

    gain = found.log_likelihood + prior.log_density(found.latents)
    assert (gain > log_posterior(made.truth)).all()
    z = found.latents.conformation
    for away in itertools.product((-0.01, 0.0, 0.01), repeat=2):
        beside = replace(found.latents, conformation=z + torch.tensor(away))
        # A refinement ends where less than 0.01 nats are to be gained.
        assert (log_posterior(beside) < gain + 0.02).all()


def test_information_is_the_curvature_of_the_loss_and_of_the_prior() -> None:
    # In double precision, for the differences. On noiseless images nothing is left at
    # the truth, and Gauss and Newton agree.
    made = make(3, 300.0, dtype=torch.float64)
    prior = PosePrior(0.05, 50.0, (0.1, 0.2))
    found = refined(made, made.truth, prior, 0).information
    variance = torch.tensor([0.05, 0.05, 50.0, 0.1, 0.2]).double().square()
    of_prior = torch.zeros(UNKNOWNS, dtype=torch.float64)
    of_prior[3:] = 1 / variance
    expected = torch.diag(of_prior).repeat(3, 1, 1)
    small = 0.1 * (found.diagonal(dim1=1, dim2=2) - of_prior).rsqrt()

    def loss(*steps: tuple[int, float]) -> Tensor:
        step = torch.zeros(3, UNKNOWNS, dtype=torch.float64)
        for unknown, sign in steps:
            step[:, unknown] += sign * small[:, unknown]
        return -made.projector.log_likelihood(made.images, moved(made.truth, step))

    for i, j in itertools.product(range(UNKNOWNS), repeat=2):
        mixed = [
            a * b * loss((i, a), (j, b))
            for a, b in itertools.product((-1.0, 1.0), repeat=2)
        ]
        expected[:, i, j] += torch.stack(mixed).sum(0) / (4 * small[:, i] * small[:, j])
    scale = found.diagonal(dim1=1, dim2=2).sqrt()
    apart = (found - expected) / (scale[:, :, None] * scale[:, None])
    # A tenth of a width moves phases by 0.01 radian at most, squared; images are
    # recorded in single precision.
    assert apart.abs().max() < 1e-3, apart.abs().amax(0)


@pytest.mark.parametrize(
    ("prior", "open_unknowns"),
    [
        (PosePrior(0.0, 0.0, (5.0, 5.0), rotation_unknowns=1), [2, 6, 7]),
        (PosePrior(10.0, 0.0, (5.0, 5.0), rotation_unknowns=0), [3, 4, 6, 7]),
        (PosePrior(10.0, 1000.0, (5.0, 5.0), rotation_unknowns=1), [2, 3, 4, 5, 6, 7]),
    ],
)
def test_what_is_held_stays(prior: PosePrior, open_unknowns: list[int]) -> None:
    made = make(4)
    start = perturbed(made.truth, open_unknowns)
    found = refined(made, start, prior)
    assert (squared_distance(found, made.truth) < AT_THE_MODE).all()
    step = departure(found.latents, start)
    held = [k for k in range(UNKNOWNS) if k not in open_unknowns]
    # Rotation vectors of products of rotations, in double precision.
    assert (step[:, held].abs() < 1e-7).all()
    assert not found.information[:, held].any()
    assert not found.information[:, :, held].any()
    matrix = found.information[:, open_unknowns][:, :, open_unknowns]
    assert (torch.linalg.eigvalsh(matrix) > 0).all()


def test_images_are_refined_apart_from_each_other() -> None:
    # More than are in memory together.
    made = make(67)
    prior = PosePrior(10.0, 0.0, (5.0, 5.0))
    start = perturbed(made.truth, [0, 1, 2, 3, 4, 6, 7])
    together = refined(made, start, prior, 3)
    rows = torch.tensor([66, 3])
    few = replace(made, images=made.images.select(rows))
    alone = refined(few, start[rows], prior, 3)
    step = departure(alone.latents, together[rows].latents)
    # The same numbers in products of another size, in single precision: far below
    # their own width of some 0.01 radian or angstrom.
    assert (step.abs() < 1e-3).all()


@pytest.mark.parametrize("grid", [ALIKE, ReferenceGrid(24, 2.0)])
def test_the_coarse_structure_stands_in_at_low_radii_alone(grid: ReferenceGrid) -> None:
    made = make(2, grid=grid, radius=9)
    blurred = structure(torch.float32, 300.0)
    both = replace(made.projector, coarse=blurred, coarse_radius=6)
    coarse = replace(made.projector, moving=blurred, coarse=blurred)
    for radius, like in ((5, coarse), (6, coarse), (8, made.projector)):
        seen = made.images.prefix(radius)
        found = both.coefficients(made.truth, seen)
        assert torch.equal(found, like.coefficients(made.truth, seen))
        other = made.projector if like is coarse else coarse
        assert not torch.equal(found, other.coefficients(made.truth, seen))
        found = both.log_likelihood(seen, made.truth)
        assert torch.equal(found, like.log_likelihood(seen, made.truth))
