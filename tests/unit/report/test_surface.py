import numpy as np
import pytest
from numpy.typing import NDArray

from cryoinfer.report.surface import Surface, surface_level, surfaces


def ball(box: int, radius: float, centre: tuple[float, float, float]) -> NDArray:
    """Return a density that falls by 1 a voxel, and is 0 on a sphere about x, y, z."""
    z, y, x = np.mgrid[:box, :box, :box] - float(box // 2)
    cx, cy, cz = centre
    return radius - np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)


def volume_of(surface: Surface) -> float:
    """Return the volume inside, by Gauss: negative if it is seen from inside."""
    a, b, c = (surface.corners[surface.triangles[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def middle_of(surface: Surface) -> NDArray:
    """Return the centre of gravity of the volume inside."""
    a, b, c = (surface.corners[surface.triangles[:, k]] for k in range(3))
    parts = (a * np.cross(b, c)).sum(1) / 6
    return parts @ (a + b + c) / 4 / parts.sum()


def only(volume: NDArray, voxel: float = 1.0, most: int = 10**6) -> Surface:
    [found] = surfaces(volume[None], voxel, 0.0, most)
    return found


def test_a_sphere_is_where_it_is_and_as_large() -> None:
    centre = (3.0, -2.0, 1.0)
    found = only(ball(32, 9, centre), voxel=2.0)
    away = np.linalg.norm(found.corners - 2 * np.array(centre), axis=1)
    # Corners are means of points on the sphere: inside by a cell's half diagonal,
    # squared, over twice the radius: (0.87 voxels)^2 / 18 = 0.04 voxels.
    assert away.max() < 18 + 0.02
    assert away.min() > 18 - 2 * 0.06
    # Less by what corners are inside, in the mean about 0.02 of 9 voxels, thrice.
    assert volume_of(found) == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.02)


def test_a_surface_is_closed() -> None:
    found = only(ball(24, 8, (0, 0, 0)))
    edges = np.concatenate([found.triangles[:, [k, (k + 1) % 3]] for k in range(3)])
    there = {tuple(edge) for edge in edges.tolist()}
    assert len(there) == len(edges)
    assert all((b, a) in there for a, b in there)
    # Euler: corners - edges + faces is 2 of what is a ball.
    assert len(found.corners) - len(edges) // 2 + len(found.triangles) == 2


def test_what_reaches_the_wall_is_closed_there() -> None:
    found = only(np.ones((8, 8, 8)))
    # From half a voxel before the first centre to half behind the last: 8 voxels,
    # but for edges and corners, which nets round off.
    assert volume_of(found) == pytest.approx(8**3, rel=0.05)


def test_nothing_above_the_level_is_no_surface() -> None:
    found = only(-np.ones((8, 8, 8)))
    assert len(found.corners) == len(found.triangles) == 0


def test_triangles_are_as_few_as_asked_for_and_the_size_stays() -> None:
    volume = ball(48, 16, (0, 0, 0))
    assert len(only(volume).triangles) > 3000
    coarse = only(volume, most=1000)
    # A grid fits within about a fifth of what is allowed, or the search is wasteful.
    assert 700 < len(coarse.triangles) <= 1000
    # Of 16 voxels, smoothing by a sd of 1.5 takes 1.5**2 / 16 = 0.14, interpolation and
    # net on a grid of 3 about as much each: 3 % of the radius, 9 % of the volume.
    assert volume_of(coarse) == pytest.approx(4 / 3 * np.pi * 16**3, rel=0.1)
    # To a hundredth of the grid's 3 voxels: nothing is shifted.
    assert np.abs(middle_of(coarse)).max() < 0.03


def test_frames_share_a_grid() -> None:
    frames = np.stack([ball(48, radius, (0, 0, 0)) for radius in (6, 16)])
    small, large = surfaces(frames, 1.0, 0.0, 1000)
    assert len(large.triangles) <= 1000
    # Areas are as 36 to 256.
    assert len(small.triangles) == pytest.approx(len(large.triangles) / 7.1, rel=0.2)


def test_the_level_lies_between_two_kinds() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate((random.normal(0, 0.1, 9000), random.normal(1, 0.1, 1000)))
    # Otsu's threshold lies midway between the means of both kinds.
    assert surface_level(values) == pytest.approx(0.5, abs=0.05)
    assert surface_level(np.array([0.0] * 9 + [1.0])) == pytest.approx(0.5, abs=0.01)
