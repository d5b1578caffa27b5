"""Posteriors of an angle and an amplitude against sums over all of their plane."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.brute_force import brute_force
from cryoinfer.evaluation.grid_posterior import grid_posterior
from cryoinfer.geometry.rotations import random_turns_in_plane
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.quadrature_grid import departure
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, PIXEL, RADIUS = 32, 3.0, 8
GRID = ReferenceGrid(BOX, PIXEL)
PRIOR = PosePrior(0.0, 0.0, (2.0,), rotation_unknowns=1)
TURNS, AMPLITUDES = 240, 41
HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def molecule(symmetric: bool = False) -> MovingAtoms:
    """Return 40 atoms and one direction; with symmetry, half are mates of the rest."""
    shape = 40, 3
    place = 10 * torch.randn(shape, generator=seeded(1), dtype=torch.float64)
    direction = torch.randn(shape, generator=seeded(2), dtype=torch.float64)
    if symmetric:
        place = torch.cat([place[:20], place[:20] @ HALF_TURN])
        direction = torch.cat([direction[:20], direction[:20] @ HALF_TURN])
    direction = direction / direction.square().sum(1).mean().sqrt()
    atoms = GaussianAtoms.from_elements(place.float(), ["C"] * 40, 100.0)
    return MovingAtoms(atoms, direction.float()[None])


@dataclass(frozen=True)
class Made:
    projector: MovingProjector
    images: WhitenedImages
    truth: Latents


def make(n: int, noise: float, symmetric: bool = False) -> Made:
    """Return images with noise of so many times the power of the signal."""
    moving = molecule(symmetric)
    zero = torch.zeros(n, 2, dtype=torch.float64)
    z = 2 * torch.randn(n, 1, generator=seeded(3), dtype=torch.float64)
    truth = Latents(Pose(random_turns_in_plane(n, seeded(4)), zero), zero[:, 0], z)
    clean = moving.at(z).project(truth.pose, BOX, PIXEL)
    sd = noise**0.5 * float(clean.std())
    images = clean + sd * torch.randn(clean.shape, generator=seeded(5))
    batch = ParticleBatch(images, Optics.without_ctf(n, PIXEL), torch.arange(n))
    whitened = whiten(batch, GRID, RADIUS, torch.full((BOX // 2,), sd**2))
    return Made(MovingProjector(moving, GRID, moving, 0), whitened, truth)


@dataclass(frozen=True)
class Plane:
    """The posterior of one image at every angle and amplitude of a regular grid."""

    latents: Latents
    mass: Tensor
    log_evidence: float

    @classmethod
    def of(cls, made: Made, row: int) -> "Plane":
        angle = torch.arange(TURNS, dtype=torch.float64) * (2 * math.pi / TURNS)
        z = torch.linspace(-5, 5, AMPLITUDES, dtype=torch.float64) * 2.0
        angle, z = (one.flatten() for one in torch.meshgrid(angle, z, indexing="ij"))
        count = len(z)
        rotation = torch.zeros(count, 3, 3, dtype=torch.float64)
        rotation[:, 0, 0] = rotation[:, 1, 1] = angle.cos()
        rotation[:, 0, 1], rotation[:, 1, 0] = -angle.sin(), angle.sin()
        rotation[:, 2, 2] = 1.0
        zero = torch.zeros(count, 2, dtype=torch.float64)
        latents = Latents(Pose(rotation, zero), zero[:, 0], z[:, None])
        many = made.images.select(torch.full((count,), row))
        score = made.projector.log_likelihood(many, latents) - 0.5 * (z / 2.0) ** 2
        score = score - math.log(2.0 * math.sqrt(2 * math.pi))
        evidence = torch.logsumexp(score, 0) + math.log(20.0 / (AMPLITUDES - 1) / TURNS)
        return cls(latents, score.softmax(0), float(evidence))

    def moments(self, centre: Latents) -> tuple[Tensor, Tensor]:
        """Return mean and sd of angle and amplitude, as departures from a centre."""
        step = departure(self.latents, centre)[:, [2, 6]]
        mean = self.mass @ step
        return mean, (self.mass @ (step - mean).square()).sqrt()


def test_the_sum_about_the_modes_is_that_over_the_plane() -> None:
    made = make(2, noise=6.0)
    near = brute_force(made.projector, made.images, PRIOR, RADIUS)
    exact = grid_posterior(made.projector, made.images, PRIOR, near)
    mean, covariance = exact.moments(near.mode())
    for row in range(2):
        plane = Plane.of(made, row)
        expected, sd = plane.moments(near.mode()[row])
        found = covariance[row].diagonal()[[2, 6]].sqrt()
        # The plane's steps are smaller than a width: sums of smooth densities err by
        # 1e-8. A ball of two dimensions leaves out 4e-6, and images are of single
        # precision.
        assert (sd > torch.tensor([2 * math.pi / TURNS, 20.0 / (AMPLITUDES - 1)])).all()
        torch.testing.assert_close(
            mean[row, [2, 6]] / sd, expected / sd, rtol=0, atol=1e-3
        )
        torch.testing.assert_close(found, sd, rtol=3e-3, atol=0)
        assert float(exact.log_evidence[row]) == pytest.approx(
            plane.log_evidence, abs=1e-3
        )


def test_hardly_any_mass_of_a_faint_image_is_missed() -> None:
    # Several modes all round, and as many more that weigh less than a thousandth.
    made = make(4, noise=40.0)
    made = replace(made, images=made.images.select(torch.tensor([2, 3])))
    near = brute_force(made.projector, made.images, PRIOR, RADIUS)
    assert (near.weight[:, 4] > 0.01).all()
    exact = grid_posterior(made.projector, made.images, PRIOR, near)
    mean, covariance = exact.moments(near.mode())
    for row in range(2):
        plane = Plane.of(made, row)
        expected, sd = plane.moments(near.mode()[row])
        # Between modes, and about those that are too light, lies 1 % of the mass.
        missed = plane.log_evidence - float(exact.log_evidence[row])
        assert -0.002 < missed < 0.02
        # Of the amplitude; angles that far off widen their density by more.
        apart = float((mean[row, 6] - expected[1]) / sd[1])
        assert apart == pytest.approx(0.0, abs=0.04)
        assert float(covariance[row, 6, 6]) == pytest.approx(
            float(sd[1]) ** 2, rel=0.05
        )


def test_both_mates_of_a_symmetric_molecule_are_found() -> None:
    made = make(2, noise=6.0, symmetric=True)
    near = brute_force(made.projector, made.images, PRIOR, RADIUS)
    # The same slices but for rounding in single precision.
    torch.testing.assert_close(near.weight[:, 0], near.weight[:, 1], rtol=0.01, atol=0)
    rotation = near.modes.pose.rotation
    turn = rotation[:, 1] @ rotation[:, 0].mT
    # Refinements of one image, turned by half a turn.
    assert (turn - HALF_TURN).abs().max() < 1e-4
    exact = grid_posterior(made.projector, made.images, PRIOR, near)
    rotation = exact.expectation(exact.latents.pose.rotation)
    z = exact.expectation(exact.latents.conformation)[:, 0]
    assert rotation[:, :2, :2].abs().max() < 0.01
    for row in range(2):
        plane = Plane.of(made, row)
        expected = float(plane.mass @ plane.latents.conformation[:, 0])
        # Of a width of more than half an angstrom.
        assert float(z[row]) == pytest.approx(expected, abs=0.01)
        assert float(exact.log_evidence[row]) == pytest.approx(
            plane.log_evidence, abs=0.01
        )


def test_modes_are_in_falling_order() -> None:
    made = make(4, noise=2.0)
    near = brute_force(made.projector, made.images, PRIOR, RADIUS)
    assert near.weight.shape == (4, 8)
    assert (near.weight.diff(dim=1) <= 0).all()
    torch.testing.assert_close(near.weight.sum(1), torch.ones(4).double())
    # At this signal the first mode is that of the truth, within four widths.
    apart = departure(near.mode(), made.truth)
    sd = near.covariance[:, 0].diagonal(dim1=1, dim2=2).sqrt()
    assert ((apart.abs() < 4 * sd) | (sd == 0)).all()
    assert not near.covariance[..., [0, 1, 3, 4, 5]].any()


def test_two_amplitudes_and_a_lower_radius_will_do() -> None:
    made = make(2, noise=0.2)
    other = torch.randn(1, 40, 3, generator=seeded(6))
    moving = made.projector.moving
    both = replace(moving, direction=torch.cat([moving.direction, other / 3**0.5]))
    projector = replace(made.projector, moving=both, coarse=both)
    prior = replace(PRIOR, conformation_sd_angstrom=(2.0, 1.0))
    near = brute_force(projector, made.images, prior, 5)
    rest = torch.zeros(2, 1, dtype=torch.float64)
    truth = replace(
        made.truth, conformation=torch.cat([made.truth.conformation, rest], 1)
    )
    apart = departure(near.mode(), truth)[:, [2, 6, 7]]
    covariance = near.covariance[:, 0][:, [2, 6, 7]][:, :, [2, 6, 7]]
    square = torch.einsum("ni,nij,nj->n", apart, torch.linalg.inv(covariance), apart)
    # Of three unknowns 16 is exceeded once in a thousand times.
    assert (square < 16).all()


@pytest.mark.parametrize(
    "prior",
    [
        replace(PRIOR, rotation_unknowns=3),
        replace(PRIOR, rotation_unknowns=0),
        replace(PRIOR, shift_sd_angstrom=1.0),
        replace(PRIOR, defocus_sd_angstrom=100.0),
        replace(PRIOR, conformation_sd_angstrom=()),
        replace(PRIOR, conformation_sd_angstrom=(1.0, 1.0, 1.0)),
    ],
)
def test_other_unknowns_are_refused(prior: PosePrior) -> None:
    made = make(1, noise=1.0)
    with pytest.raises(ValueError, match="expected an angle and one or two amplitudes"):
        brute_force(made.projector, made.images, prior, RADIUS)
