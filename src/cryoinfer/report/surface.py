"""Surfaces of equal density: nets of triangles, few enough for a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_FEWEST_VOXELS = 8  # along an edge of a map that was made coarser
_MOST_VOXELS = 64  # finer maps have more triangles than a page takes, most often
_LEVELS = 256  # that are tried


@dataclass(frozen=True)
class Surface:
    """A closed surface, seen from outside counterclockwise.

    Attributes
    ----------
    corners : ndarray of float64, shape (v, 3)
        x, y, z; what in is the user's.
    triangles : ndarray of int64, shape (t, 3)
        Corners.
    """

    corners: NDArray[np.float64]
    triangles: NDArray[np.int64]


def surface_level(volumes: NDArray[Any]) -> float:
    """Return the density that best divides all voxels into two kinds.

    Otsu's threshold: the variance between what is above and what is below is greatest
    (IEEE Trans. Syst. Man Cybern. 9, 62, 1979). Maps that are compared get one level.

    Parameters
    ----------
    volumes : ndarray of any shape

    Returns
    -------
    float
    """
    counts, edges = np.histogram(volumes, bins=_LEVELS)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total = np.cumsum(counts * middle)
    lower = total[:-1] / np.maximum(below, 1)
    upper = (total[-1] - total[:-1]) / np.maximum(above, 1)
    between = below.astype(float) * above * (upper - lower) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    # Of an empty gap all levels are equally good: the middle one.
    return float(edges[1:-1][best].mean())


def surfaces(
    volumes: NDArray[Any], voxel_size_angstrom: float, level: float, most: int
) -> list[Surface]:
    """Return surfaces of maps, all on one grid as fine as the triangles allow.

    Parameters
    ----------
    volumes : ndarray, shape (frames, m, m, m)
        Axes z, y, x.
    voxel_size_angstrom : float
    level : float
    most : int
        Triangles of a surface.

    Returns
    -------
    list of Surface
        In angstrom about the middle of the box.
    """
    box = volumes.shape[-1]
    voxels = min(box, _MOST_VOXELS)
    fine = [_coarser(one, voxels) for one in volumes]
    while True:
        # Grids share their outermost voxel centres.
        spacing = voxel_size_angstrom * (box - 1) / (voxels - 1)
        found = [_net(_coarser(one, voxels), level) for one in fine]
        triangles = max(len(one.triangles) for one in found)
        if triangles <= most or voxels <= _FEWEST_VOXELS:
            middle = box // 2 * voxel_size_angstrom
            return [
                Surface(one.corners * spacing - middle, one.triangles) for one in found
            ]
        # Areas are of the square of the spacing; a little less, to get there.
        fitting = int(voxels * 0.98 * np.sqrt(most / triangles))
        voxels = max(_FEWEST_VOXELS, min(voxels - 1, fitting))


def _coarser(volume: NDArray[Any], voxels: int) -> NDArray[np.float64]:
    """Return a map on fewer voxels, smoothed so that none of it is skipped."""
    volume = np.asarray(volume, dtype=np.float64)
    factor = len(volume) / voxels
    if factor == 1:
        return volume
    smooth = ndimage.gaussian_filter(volume, factor / 2)
    return np.asarray(ndimage.zoom(smooth, voxels / len(volume), order=1))


def _net(volume: NDArray[np.float64], level: float) -> Surface:
    """Return the surface net of a map, in voxels from its first one (Gibson, 1998).

    Every cell of eight voxels that the surface passes has one corner, in the mean of
    where the cell's edges cross it; every crossed edge has a square of the four cells
    about it.
    """
    # Closed at the walls of the box: outside of it, there is nothing.
    height = np.pad(volume - level, 1, constant_values=-1.0)
    corner, number = _cell_corners(height)
    inside = height > 0
    squares: list[NDArray[np.int64]] = []
    for axis in range(3):
        low, high = _along(inside, axis, 0), _along(inside, axis, 1)
        crossed = np.argwhere(low != high)
        leaves = low[tuple(crossed.T)]
        second, third = (axis + 1) % 3, (axis + 2) % 3
        around = []
        for a, b in ((1, 1), (0, 1), (0, 0), (1, 0)):  # counterclockwise about the axis
            cell = crossed.copy()
            cell[:, second] -= a
            cell[:, third] -= b
            around.append(number[tuple(cell.T)])
        square = np.stack(around, -1)
        squares.append(np.where(leaves[:, None], square, square[:, ::-1]))
    square = np.concatenate(squares)
    triangles = np.concatenate((square[:, [0, 1, 2]], square[:, [0, 2, 3]]))
    # From (z, y, x) to (x, y, z) is a mirror: seen from outside, order turns about.
    return Surface(corner[:, ::-1] - 1.0, triangles[:, ::-1])


def _cell_corners(
    height: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return corners (v, 3), in z, y, x, and the number of that of each cell."""
    cells = tuple(n - 1 for n in height.shape)
    total = np.zeros((*cells, 3))
    count = np.zeros(cells)
    for axis in range(3):
        for across in product((0, 1), repeat=2):
            offset = (*across[:axis], 0, *across[axis:])
            begin = _shifted(height, offset)
            end = _shifted(height, (*across[:axis], 1, *across[axis:]))
            crossed = (begin > 0) != (end > 0)
            share = begin[crossed] / (begin[crossed] - end[crossed])
            place = np.tile(np.array(offset, dtype=float), (len(share), 1))
            place[:, axis] = share
            total[crossed] += place
            count += crossed
    passed = count > 0
    number = np.full(cells, -1)
    number[passed] = np.arange(passed.sum())
    corner = np.argwhere(passed) + total[passed] / count[passed][:, None]
    return corner, number


def _shifted(height: NDArray[np.float64], offset: Sequence[int]) -> NDArray[np.float64]:
    """Return what lies at an offset, 0 or 1 along each axis, in every cell."""
    return height[
        tuple(slice(o, n - 1 + o) for o, n in zip(offset, height.shape, strict=True))
    ]


def _along(inside: NDArray[np.bool_], axis: int, offset: int) -> NDArray[np.bool_]:
    """Return the begins, or ends, of all edges along an axis."""
    return np.take(inside, range(offset, inside.shape[axis] - 1 + offset), axis)
