"""Waves on a disc against projections, and their slopes against differences."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.beads import GaussianBeads
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.physics.structures.slopes import (
    SHIFT,
    TURN,
    DiscView,
    coefficients,
    coefficients_and_slopes,
)
from cryoinfer.records import Latents, Pose

BOX, PIXEL = 24, 2.0
KINDS = ["atoms", "beads"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def structure(kind: str, modes: int = 2) -> MovingAtoms:
    """Return 30 points, and directions of unit root mean square displacement."""
    place = 6 * normal(1, 30, 3)
    direction = torch.linalg.qr(normal(2, 90, modes)).Q.T * 30**0.5
    direction = direction.view(modes, 30, 3)
    if kind == "beads":
        uniform = torch.rand(2, 30, generator=seeded(3), dtype=torch.float64)
        beads = GaussianBeads(place, 1 + uniform[0], 1 + 8 * uniform[1])
        return MovingAtoms(beads, direction)
    atoms = GaussianAtoms.from_elements(place, ["C", "N", "O"] * 10, 20.0)
    return MovingAtoms(atoms, direction)


def latents(count: int, modes: int = 2) -> Latents:
    pose = Pose(random_rotations(count, seeded(4)), 3 * normal(5, count, 2))
    zero = torch.zeros(count, dtype=torch.float64)
    return Latents(pose, zero, 2 * normal(6, count, modes))


def view(radius: int) -> DiscView:
    """Return the disc in the units of images."""
    return DiscView(FourierDisc.of_box(BOX, radius), PIXEL, 1 / (BOX * PIXEL**2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("radius", [4, 7, 8, 11])
def test_coefficients_are_those_of_the_projection(kind: str, radius: int) -> None:
    made, at, seen = structure(kind), latents(5), view(radius)
    images = made.at(at.conformation).project(at.pose, BOX, PIXEL)
    expected = seen.disc.gather(image_to_fourier(images))
    found = coefficients(made, at, seen)
    # Double precision of a few dozen electrons' scattering, in another order.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_disc_has_the_same_coefficients_and_slopes(kind: str) -> None:
    made, at = structure(kind), latents(5)
    whole, whole_slopes = coefficients_and_slopes(made, at, view(11))
    for radius in (1, 4, 5):
        seen = view(radius)
        assert seen.cropped == (2 * radius + 2, BOX * PIXEL / (2 * radius + 2))
        found, slopes = coefficients_and_slopes(made, at, seen)
        p = len(seen.disc)
        # Waves come from other tables of the same doubles.
        torch.testing.assert_close(found, whole[:, :p], rtol=0, atol=1e-12)
        torch.testing.assert_close(slopes, whole_slopes[..., :p], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modes", [1, 3])
def test_slopes_are_limits_of_differences(kind: str, modes: int) -> None:
    made, at, seen = structure(kind, modes), latents(3, modes), view(8)
    values, slopes = coefficients_and_slopes(made, at, seen)
    assert slopes.shape == (3, 5 + modes, len(seen.disc))
    torch.testing.assert_close(values, coefficients(made, at, seen))
    small = 3e-5
    # The row of the defocus, 5 in a step, is not among the slopes.
    for row, unknown in enumerate([0, 1, 2, 3, 4, *range(6, 6 + modes)]):
        step = torch.zeros(3, 6 + modes, dtype=torch.float64)
        step[:, unknown] = small
        ahead, behind = (
            coefficients(made, moved(at, sign * step), seen) for sign in (1, -1)
        )
        expected = (ahead - behind) / (2 * small)
        # Frequencies of a disc are single precision, 6e-8; a central difference errs
        # by the squared phase of a step over six: (15 A * 1.05 / A * 3e-5)^2 / 6.
        size = float(expected.abs().max())
        torch.testing.assert_close(slopes[:, row], expected, rtol=0, atol=1e-6 * size)


def test_rows_have_the_names_that_they_are_told_by() -> None:
    # Atoms in the image plane do not move, to first order, when they are tilted.
    made, at = structure("atoms"), latents(1)
    flat = made.atoms.coordinates_angstrom * torch.tensor([1.0, 1.0, 0.0])
    made = MovingAtoms(replace(made.atoms, coordinates_angstrom=flat), made.direction)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    rest = Latents(
        Pose(torch.eye(3).double()[None], zero), at.defocus_offset_angstrom, zero
    )
    values, slopes = coefficients_and_slopes(made, rest, view(8))
    size = float(slopes.abs().max())
    tilt_x, tilt_y, turn_z = slopes[0, TURN]
    # Exactly: what is multiplied is their height of zero.
    assert not tilt_x.any()
    assert not tilt_y.any()
    assert float(turn_z.abs().max()) > 0.1 * size
    along = view(8).angular_frequency
    expected = -1j * along * values
    torch.testing.assert_close(slopes[0, SHIFT], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_without_tilts_the_rest_is_the_same(kind: str) -> None:
    made, at, seen = structure(kind), latents(4), view(9)
    values, slopes = coefficients_and_slopes(made, at, seen)
    same, in_plane = coefficients_and_slopes(made, at, seen, tilts=False)
    # The same sums of doubles, in products of another size.
    torch.testing.assert_close(same, values, rtol=0, atol=1e-12)
    torch.testing.assert_close(in_plane[:, 2:], slopes[:, 2:], rtol=0, atol=1e-11)
    assert not in_plane[:, :2].any()
    assert slopes[:, :2].any()


def test_images_do_not_hear_of_each_other() -> None:
    made, at, seen = structure("atoms"), latents(4), view(6)
    together = coefficients(made, at, seen)
    for row in range(4):
        alone = coefficients(made, at[[row]], seen)[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-12)
