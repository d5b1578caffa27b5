"""Point groups: sizes, closure, and the axes that RELION documents."""

import math

import pytest
import roma
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.so3_grid import asymmetric_unit, rotation_grid
from cryoinfer.geometry.symmetry import is_polyhedral, symmetry_rotations

SIZES = {
    "C1": 1, "C2": 2, "C4": 4, "C17": 17, "D1": 2, "D2": 4, "D7": 14,
    "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60,
}  # fmt: skip

# Products of some five rotations in double precision.
ROUNDING = 1e-12

GOLDEN = (1 + math.sqrt(5)) / 2
X, Y, Z = (1, 0, 0), (0, 1, 0), (0, 0, 1)

# RELION's table of symmetry conventions: the axis, and the order of the turn.
AXES = {
    "C4": [(Z, 4)],
    "D7": [(Z, 7), (X, 2)],
    # "3-fold axis on Z (deviating from Heymann et al!)"; two-folds in its code.
    "T": [(Z, 3), ((0, math.sqrt(2 / 3), math.sqrt(1 / 3)), 2)],
    "O": [(X, 4), (Y, 4), (Z, 4), ((1, 1, 1), 3), ((1, 1, 0), 2)],
    # I1: front-most 5-folds in the YZ plane, front-most 3-folds in the XZ plane.
    "I1": [(X, 2), (Y, 2), (Z, 2), ((0, 1, GOLDEN), 5), ((1, 0, GOLDEN**2), 3)],
    # I2: front-most 5-folds in the XZ plane, front-most 3-folds in the YZ plane.
    "I2": [(X, 2), (Y, 2), (Z, 2), ((1, 0, GOLDEN), 5), ((0, 1, GOLDEN**2), 3)],
}


def turn(axis: tuple[float, float, float], angle: float) -> Tensor:
    direction = torch.tensor(axis, dtype=torch.float64)
    return roma.rotvec_to_rotmat(direction / direction.norm() * angle)


def distance_to_group(group: Tensor, rotations: Tensor) -> Tensor:
    """Return the largest difference of entries to the nearest element."""
    difference = (rotations.reshape(-1, 1, 3, 3) - group).abs().amax((-2, -1))
    return difference.amin(1)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_groups_have_their_size_and_are_closed(name: str, size: int) -> None:
    group = symmetry_rotations(name)
    assert group.shape == (size, 3, 3)
    assert group.dtype == torch.float64
    assert torch.equal(group[0], torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(group).sub(1).abs().max() < ROUNDING
    products = group[:, None] @ group
    assert distance_to_group(group, products).max() < ROUNDING
    assert distance_to_group(group, group.mT).max() < ROUNDING
    # All distinct: the nearest two elements of C17 are 21 degrees apart.
    apart = (group[:, None] - group).abs().amax((-2, -1)).fill_diagonal_(2)
    assert apart.min() > 0.1


@pytest.mark.parametrize(
    ("name", "axis", "fold"),
    [(name, axis, fold) for name, axes in AXES.items() for axis, fold in axes],
)
def test_axes_are_those_of_relion(
    name: str, axis: tuple[float, float, float], fold: int
) -> None:
    group = symmetry_rotations(name)
    turns = torch.stack([turn(axis, 2 * math.pi * k / fold) for k in range(fold)])
    assert distance_to_group(group, turns).max() < ROUNDING
    # The fold is exactly that: no finer turn about this axis belongs.
    along = torch.tensor(axis, dtype=torch.float64)
    kept = (group @ along - along).norm(dim=1)
    assert int((kept < 1e-9).sum()) == fold


def test_the_two_icosahedral_settings_differ_by_a_quarter_turn() -> None:
    quarter = turn(Z, math.pi / 2)
    turned = quarter @ symmetry_rotations("I2") @ quarter.mT
    first = symmetry_rotations("I1")
    assert distance_to_group(first, turned).max() < ROUNDING
    assert distance_to_group(symmetry_rotations("I2"), first).max() > 0.1


def test_names_may_be_written_small_and_plain_i_is_i2() -> None:
    assert torch.equal(symmetry_rotations("d2"), symmetry_rotations("D2"))
    assert torch.equal(symmetry_rotations("I"), symmetry_rotations("I2"))


@pytest.mark.parametrize("name", ["", "C", "C0", "D04", "C1000", "I3", "Oh", "C4 "])
def test_unknown_names_are_refused_with_what_is_known(name: str) -> None:
    with pytest.raises(InputError, match="expected C1, Cn, Dn, T, O, I, I1 or I2"):
        symmetry_rotations(name)


@pytest.mark.parametrize("name", ["C1", "C2", "C7", "D2", "T", "O", "I"])
def test_a_mate_of_every_pose_is_near_an_asymmetric_unit(name: str) -> None:
    order, group = 1, symmetry_rotations(name)
    whole = rotation_grid(order)
    unit = asymmetric_unit(order, group)
    # A margin as wide as cells are adds the more the smaller the unit is.
    assert len(unit) < (1.0 if name == "C1" else 0.75) * len(whole) + 1
    assert distance_to_group(whole, unit).max() == 0
    pose = random_rotations(200, torch.Generator().manual_seed(0))
    mates = (pose[:, None] @ group).flatten(0, 1)
    nearest = geodesic_angle(mates[:, None], unit).amin(1).unflatten(0, (200, -1))
    # As far as a pose may be from the whole grid, no farther; 200 poses do not find
    # the very middle of its widest gap.
    gap = geodesic_angle(pose[:, None], whole).amin(1).max()
    assert nearest.amin(1).max() < 1.1 * gap


def test_without_symmetry_the_unit_is_the_whole_grid() -> None:
    whole = rotation_grid(0)
    assert torch.equal(asymmetric_unit(0, symmetry_rotations("C1")), whole)


@pytest.mark.parametrize("name", SIZES)
def test_polyhedra_are_t_o_and_i(name: str) -> None:
    assert is_polyhedral(symmetry_rotations(name)) == (name[0] in "TOI")
