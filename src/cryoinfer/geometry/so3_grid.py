"""Nested grids over the rotation group.

The first grid is HEALPix in the direction times an equal division of the in-plane
angle, joined by the Hopf map (Yershova et al., Int. J. Robot. Res. 29, 801, 2010).
Finer cells are cubes in the tangent space of the image frame: a cell of width h
has eight children of width h / 2. Unlike a finer HEALPix grid this has no poles,
so a child always lies inside its parent.
"""

import itertools
import math

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import geodesic_angle


def healpix_directions(order: int) -> Tensor:
    """Return the pixel centres of the nested HEALPix grid.

    Gorski et al., ApJ 622, 759 (2005), equations 2 to 9.

    Parameters
    ----------
    order : int
        0 or more; the grid has ``12 * 4**order`` directions.

    Returns
    -------
    Tensor of float64, shape (12 * 4**order, 2)
        Colatitude theta in [0, pi] and longitude phi in [0, 2 pi), radians.
    """
    nside = 2**order
    pixel = torch.arange(12 * nside**2)
    face, inside = pixel // nside**2, pixel % nside**2
    x, y = torch.zeros_like(pixel), torch.zeros_like(pixel)
    for bit in range(order):
        x |= ((inside >> (2 * bit)) & 1) << bit
        y |= ((inside >> (2 * bit + 1)) & 1) << bit
    ring = ((face // 4 + 2) * nside - x - y - 1).double()
    north, south = ring < nside, ring > 3 * nside
    width = torch.where(north, ring, torch.where(south, 4 * nside - ring, nside))
    cap = width**2 / (3 * nside**2)
    z = torch.where(
        north, 1 - cap, torch.where(south, cap - 1, 4 / 3 - 2 * ring / (3 * nside))
    )
    shift = torch.where(north | south, 0, (ring - nside) % 2)
    diagonal = torch.tensor([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])[face]
    column = (diagonal * width + x - y + 1 + shift) / 2
    phi = (column - (1 + shift) / 2) * (math.pi / 2) / width
    return torch.stack([torch.acos(z), phi % (2 * math.pi)], dim=1)


def grid_step_radian(order: int) -> float:
    """Return the width of a cell of :func:`rotation_grid`, radians."""
    return 2 * math.pi / (6 * 2**order)


def rotation_grid(order: int) -> Tensor:
    """Return a uniform grid of rotations.

    Parameters
    ----------
    order : int
        0 or more; 72 * 8**order rotations, spaced by about ``60 / 2**order`` degrees.

    Returns
    -------
    Tensor of float64, shape (72 * 8**order, 3, 3)
        Reference to image; the in-plane angle runs fastest.
    """
    import roma

    theta, longitude = healpix_directions(order)[:, None].unbind(-1)
    # The quarter turn makes the last row, the viewing direction, the HEALPix one.
    phi = longitude - math.pi / 2
    turns = 6 * 2**order
    psi = (torch.arange(turns, dtype=torch.float64) * 2 * math.pi / turns)[None]
    half = theta / 2
    quaternion_xyzw = torch.stack(
        [
            torch.sin(half) * torch.cos(phi + psi / 2),
            torch.sin(half) * torch.sin(phi + psi / 2),
            torch.cos(half) * torch.sin(psi / 2),
            torch.cos(half) * torch.cos(psi / 2),
        ],
        dim=-1,
    )
    return roma.unitquat_to_rotmat(quaternion_xyzw.flatten(0, 1))


def asymmetric_unit(order: int, symmetry: Tensor) -> Tensor:
    """Return those rotations of a grid that no mate is nearer to the identity of.

    And those of which one is nearer by no more than a cell: no pose is then farther
    from what is left, or a mate of it, than poses may be from the whole grid.

    Parameters
    ----------
    order : int
        Of :func:`rotation_grid`.
    symmetry : Tensor, shape (m, 3, 3)
        A group.

    Returns
    -------
    Tensor, shape (k, 3, 3)
        In the order of the grid.
    """
    rotation = rotation_grid(order)
    identity = torch.eye(3, dtype=rotation.dtype)
    own = geodesic_angle(rotation, identity)
    least = own
    for mate in symmetry:
        least = torch.minimum(least, geodesic_angle(rotation @ mate, identity))
    return rotation[own <= least + grid_step_radian(order)]


def children(rotation: Tensor, step_radian: float) -> Tensor:
    """Divide cells of the given width into eight each.

    Parameters
    ----------
    rotation : Tensor, shape (..., 3, 3)
        Centres of the parents.
    step_radian : float
        Width of a parent.

    Returns
    -------
    Tensor, shape (..., 8, 3, 3)
        Centres of the children, whose width is ``step_radian / 2``.
    """
    import roma

    signs = torch.tensor(
        list(itertools.product((-1.0, 1.0), repeat=3)), dtype=rotation.dtype
    ).to(rotation.device)
    offsets = roma.rotvec_to_rotmat(signs * (step_radian / 4))
    return offsets @ rotation.unsqueeze(-3)
