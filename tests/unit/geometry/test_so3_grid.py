"""Grids of directions and rotations: known centres, uniformity, nesting."""

import itertools
import math

import pytest
import roma
import torch
from torch import Tensor

from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.so3_grid import (
    children,
    grid_step_radian,
    healpix_directions,
    rotation_grid,
)

# A few operations on numbers of order one, in double precision.
ROUNDING = 1e-12


def unit_vectors(directions: Tensor) -> Tensor:
    theta, phi = directions.unbind(-1)
    return torch.stack(
        [theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], -1
    )


def nearest_angle(rotation: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the angle to the nearest rotation of a grid, and its index."""
    trace, index = (rotation.flatten(1) @ grid.flatten(1).T).max(1)
    return torch.acos(((trace - 1) / 2).clamp(-1, 1)), index


def test_the_twelve_base_pixels() -> None:
    theta, phi = healpix_directions(0).T
    z = torch.tensor([2 / 3] * 4 + [0.0] * 4 + [-2 / 3] * 4, dtype=torch.float64)
    torch.testing.assert_close(theta.cos(), z, rtol=0, atol=1e-6)
    eighths = torch.tensor([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7], dtype=torch.float64)
    torch.testing.assert_close(phi, eighths * math.pi / 4, rtol=0, atol=1e-6)


def test_the_rings_of_nside_2() -> None:
    z = healpix_directions(1)[:, 0].cos()
    # Gorski et al.: 1 - i^2 / (3 nside^2) in the cap, 4/3 - 2 i / (3 nside) below.
    rings = {11 / 12: 4, 2 / 3: 8, 1 / 3: 8, 0.0: 8, -1 / 3: 8, -2 / 3: 8, -11 / 12: 4}
    for value, count in rings.items():
        assert int(((z - value).abs() < 1e-6).sum()) == count


def test_the_first_nested_pixels_of_nside_2() -> None:
    # The four children of base pixel 0: south, east, west, north.
    theta, phi = healpix_directions(1)[:4].T
    z = torch.tensor([1 / 3, 2 / 3, 2 / 3, 11 / 12], dtype=torch.float64)
    torch.testing.assert_close(theta.cos(), z, rtol=0, atol=1e-6)
    sixteenths = torch.tensor([4, 6, 2, 4], dtype=torch.float64)
    torch.testing.assert_close(phi, sixteenths * math.pi / 16, rtol=0, atol=1e-6)


def test_directions_are_known_to_double_precision() -> None:
    z = healpix_directions(0)[0, 0].cos().item()
    assert z == pytest.approx(2 / 3, abs=ROUNDING)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_directions_agree_with_astropy_healpix(order: int) -> None:
    healpix = pytest.importorskip("astropy_healpix")
    nside = 2**order
    longitude, latitude = healpix.healpix_to_lonlat(
        range(12 * nside**2), nside, order="nested"
    )
    expected = torch.stack(
        [
            math.pi / 2 - torch.from_numpy(latitude.to_value("rad")),
            torch.from_numpy(longitude.to_value("rad")),
        ],
        1,
    )
    torch.testing.assert_close(
        unit_vectors(healpix_directions(order)),
        unit_vectors(expected),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_rings_have_the_counts_of_equal_areas(order: int) -> None:
    nside = 2**order
    z = healpix_directions(order)[:, 0].cos()
    assert z.shape == (12 * nside**2,)
    for i in range(1, 4 * nside):
        cap = min(i, 4 * nside - i)
        if cap < nside:
            value, count = 1 - cap**2 / (3 * nside**2), 4 * cap
            value = value if i < 2 * nside else -value
        else:
            value, count = 4 / 3 - 2 * i / (3 * nside), 4 * nside
        assert int(((z - value).abs() < 1e-6).sum()) == count


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_directions_are_distinct_and_balanced(order: int) -> None:
    directions = healpix_directions(order)
    vectors = unit_vectors(directions)
    spacing = math.sqrt(4 * math.pi / len(vectors))
    distance = torch.cdist(vectors, vectors).fill_diagonal_(2.0)
    # Pixels are at most twice as long as wide, so centres are not much nearer.
    assert distance.min() > 0.6 * spacing
    assert vectors.mean(0).abs().max() < 1e-6
    # Equal areas: the second moments are those of the sphere at every resolution.
    torch.testing.assert_close(
        (vectors[:, :, None] * vectors[:, None]).mean(0).diagonal().sum(),
        torch.tensor(1.0).double(),
        rtol=0,
        atol=1e-6,
    )
    phi = directions[:, 1]
    assert phi.min() >= 0
    assert phi.max() < 2 * math.pi


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_pixels_are_nested(order: int) -> None:
    parents = unit_vectors(healpix_directions(order))
    offspring = unit_vectors(healpix_directions(order + 1)).unflatten(0, (-1, 4))
    chord = (offspring - parents[:, None]).norm(dim=-1)
    # No further than the half diagonal of a pixel drawn out to twice its width:
    # its side is the root of its area.
    side = math.sqrt(4 * math.pi / len(parents))
    assert chord.max() < 0.6 * side
    centre = torch.nn.functional.normalize(offspring.mean(1), dim=-1)
    assert (centre - parents).norm(dim=-1).max() < 0.15 * side


@pytest.mark.parametrize("order", [0, 1, 2])
def test_rotation_grid_counts_and_steps(order: int) -> None:
    grid = rotation_grid(order)
    turns = 6 * 2**order
    assert grid.shape == (72 * 8**order, 3, 3)
    assert grid.dtype == torch.float64
    torch.testing.assert_close(
        grid @ grid.mT,
        torch.eye(3).double().expand_as(grid),
        rtol=0,
        atol=ROUNDING,
    )
    assert torch.linalg.det(grid).min() > 0
    # The fastest index goes round in equal steps, back to where it began.
    by_view = grid.unflatten(0, (-1, turns))
    step = geodesic_angle(by_view, by_view.roll(-1, 1))
    torch.testing.assert_close(
        step, torch.full_like(step, grid_step_radian(order)), rtol=1e-9, atol=0
    )
    assert grid_step_radian(order) == pytest.approx(math.radians(60 / 2**order))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_in_plane_angle_runs_fastest(order: int) -> None:
    # The viewing direction is the last row: rotation @ direction = z.
    views = rotation_grid(order)[:, 2].unflatten(0, (-1, 6 * 2**order))
    torch.testing.assert_close(
        views, views[:, :1].expand_as(views), rtol=0, atol=ROUNDING
    )
    # They lie on the rings of the directions.
    torch.testing.assert_close(
        views[:, 0, 2], healpix_directions(order)[:, 0].cos(), rtol=0, atol=ROUNDING
    )


@pytest.mark.parametrize("order", [0, 1, 2])
def test_rotation_grid_is_uniform(order: int) -> None:
    grid = rotation_grid(order)
    step = grid_step_radian(order)
    assert grid.mean(0).abs().max() < 1e-6
    # Cubes of the width of a cell fill the group, whose volume in these units is
    # 8 pi^2; the grid has 12 pi / 36 = 1.047 times as many of them.
    assert len(grid) * step**3 == pytest.approx(8 * math.pi**2, rel=0.05)
    between = grid[:2000]
    trace = between.flatten(1) @ grid.flatten(1).T
    trace[torch.arange(len(between)), torch.arange(len(between))] = -1
    nearest = torch.acos((trace.amax(1) - 1) / 2)
    # Measured: 0.84 (order 2) to 1.00 of the step.
    assert nearest.min() > 0.83 * step
    assert nearest.max() < 1.001 * step


@pytest.mark.parametrize("order", [0, 1])
def test_covering_radius_of_the_rotation_grid(order: int) -> None:
    samples = random_rotations(3000, torch.Generator().manual_seed(order))
    angle, _ = nearest_angle(samples, rotation_grid(order))
    # Measured: 0.84 of the step; the half diagonal of a cube is 0.866.
    assert angle.max() < 0.88 * grid_step_radian(order)
    # The mean distance from the centre of a cube of width 1 is 0.480.
    assert angle.mean() == pytest.approx(0.48 * grid_step_radian(order), rel=0.03)


def offsets_in_parent(parent: Tensor, rotation: Tensor) -> Tensor:
    return roma.rotmat_to_rotvec(rotation @ parent.mT)


@pytest.mark.parametrize("step", [math.radians(60), math.radians(7.5)])
def test_eight_children_sit_at_the_corners_inside_the_parent(step: float) -> None:
    parents = random_rotations(5, torch.Generator().manual_seed(0))
    found = children(parents, step)
    assert found.shape == (5, 8, 3, 3)
    offsets = offsets_in_parent(parents[:, None], found)
    corners = torch.tensor(list(itertools.product((-1, 1), repeat=3))).double()
    torch.testing.assert_close(
        offsets, (corners * step / 4).expand(5, 8, 3), rtol=0, atol=ROUNDING
    )
    # Their chordal mean is the parent: nothing drifts from level to level.
    mean = roma.special_procrustes(found.mean(1))
    torch.testing.assert_close(mean, parents, rtol=0, atol=ROUNDING)


def test_children_divide_the_volume_of_the_parent() -> None:
    step = math.radians(15)
    generator = torch.Generator().manual_seed(0)
    parent = random_rotations(1, generator)[0]
    inside = (torch.rand(4000, 3, generator=generator).double() - 0.5) * step
    samples = roma.rotvec_to_rotmat(inside) @ parent
    of_children = children(parent, step)
    offsets = offsets_in_parent(of_children[:, None], samples).abs().amax(-1)
    # Tangent cubes about other centres are bent by about the angle squared / 2.
    bent = 1 + step**2
    holders = (offsets <= step / 4 * bent).sum(0)
    assert holders.min() >= 1
    assert (holders == 1).double().mean() > 0.8
    # Each holds an eighth: five standard errors of 4000 draws.
    share = torch.bincount(offsets.argmin(0), minlength=8) / 4000
    assert (share - 1 / 8).abs().max() < 5 * math.sqrt(1 / 8 * 7 / 8 / 4000)


def test_descending_from_a_parent_finds_whatever_its_cube_holds() -> None:
    step = math.radians(30)
    generator = torch.Generator().manual_seed(0)
    parent = random_rotations(200, generator)
    inside = (torch.rand(200, 3, generator=generator).double() - 0.5) * step
    wanted = roma.rotvec_to_rotmat(inside) @ parent
    current, width = parent, step
    for _ in range(6):
        offspring = children(current, width)
        nearest = geodesic_angle(offspring, wanted[:, None]).argmin(1)
        current = offspring[torch.arange(200), nearest]
        width /= 2
    final = geodesic_angle(current, wanted)
    # Half the diagonal of the last cube, and for a few what the bending of the
    # first cubes leaves between them: measured 3.6 % of the first width at most.
    assert final.quantile(0.9) < 0.87 * width
    assert final.max() < 0.05 * step


@pytest.mark.parametrize("order", [0, 1])
def test_cubes_about_the_grid_leave_only_small_gaps(order: int) -> None:
    # The cells of the first grid are no cubes in the frame of the image. Rotations
    # between the cubes, which no child comes near, are close to one all the same.
    samples = random_rotations(3000, torch.Generator().manual_seed(3))
    grid, step = rotation_grid(order), grid_step_radian(order)
    near = (samples.flatten(1) @ grid.flatten(1).T).topk(12, 1).indices
    offsets = offsets_in_parent(grid[near], samples[:, None]).abs()
    gap = (offsets - step / 2).clamp(min=0).norm(dim=-1).amin(1)
    # Measured: 15 % lie outside every cube, by 0.055 of a step at the 95th
    # percentile and 0.25 at most.
    assert (gap > 0).double().mean() < 0.17
    assert gap.quantile(0.95) < 0.06 * step
    assert gap.max() < 0.28 * step


def test_children_keep_leading_dimensions_and_precision() -> None:
    parents = rotation_grid(0).reshape(8, 9, 3, 3).float()
    found = children(parents, 1.0)
    assert found.shape == (8, 9, 8, 3, 3)
    assert found.dtype == torch.float32
