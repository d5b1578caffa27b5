"""Point groups of symmetric particles, in RELION's settings."""

import math
import re

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import geodesic_angle

_GOLDEN = (1 + math.sqrt(5)) / 2


def _about(axis: tuple[float, float, float], fold: int) -> Tensor:
    import roma

    direction = torch.tensor(axis, dtype=torch.float64)
    vector = direction / direction.norm() * (2 * math.pi / fold)
    return roma.rotvec_to_rotmat(vector)


def _generators(name: str) -> list[Tensor]:
    match = re.fullmatch(r"([CD])([1-9]\d{0,2})", name)
    if match:
        turn = [_about((0, 0, 1), int(match[2]))]
        return [*turn, _about((1, 0, 0), 2)] if match[1] == "D" else turn
    if name == "T":
        return [
            _about((0, 0, 1), 3),
            _about((0, math.sqrt(2 / 3), math.sqrt(1 / 3)), 2),
        ]
    if name == "O":
        return [_about((0, 0, 1), 4), _about((1, 1, 1), 3)]
    if name in ("I", "I2"):
        # RELION's I is Crowther's setting I2: two-fold axes along x, y and z.
        return [_about((0, 0, 1), 2), _about((1, 0, _GOLDEN), 5), _about((1, 1, 1), 3)]
    if name == "I1":
        quarter = _about((0, 0, 1), 4)
        return [quarter @ g @ quarter.mT for g in _generators("I")]
    raise InputError(
        f"symmetry {name!r} is not known: expected C1, Cn, Dn, T, O, I, I1 or I2 "
        "(for example C4 or D2)"
    )


def symmetry_rotations(name: str) -> Tensor:
    """Return every rotation of a point group, the identity first.

    Parameters
    ----------
    name : str
        C1, Cn, Dn, T, O, I (the same as I2) or I1. The axes are RELION's: the
        n-fold axis along z; D has a two-fold axis along x; T a three-fold along z;
        O four-folds along x, y, z; I two-folds along x, y, z.

    Returns
    -------
    Tensor of float64, shape (m, 3, 3)

    Raises
    ------
    InputError
        If the name is not one of these.
    """
    generators = _generators(name.upper())
    group = [torch.eye(3, dtype=torch.float64)]
    frontier = group
    while frontier:
        found: list[Tensor] = []
        for element in frontier:
            for generator in generators:
                candidate = element @ generator
                known = torch.stack(group + found)
                if (known - candidate).abs().amax(dim=(1, 2)).min() > 1e-6:
                    found.append(candidate)
        group, frontier = group + found, found
    return torch.stack(group)


def nearest_mates(rotation: Tensor, target: Tensor, symmetry: Tensor) -> Tensor:
    """Return of each rotation the mate that is nearest to a target.

    Parameters
    ----------
    rotation, target : Tensor, shape (..., 3, 3)
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is, the identity among them.
    """
    if len(symmetry) == 1:
        return rotation
    mates = rotation.unsqueeze(-3) @ symmetry.to(rotation)
    nearest = geodesic_angle(target.unsqueeze(-3), mates).argmin(-1)
    chosen = nearest[..., None, None, None].expand(*nearest.shape, 1, 3, 3)
    return mates.gather(-3, chosen).squeeze(-3)


def is_polyhedral(symmetry: Tensor) -> bool:
    """Return whether a point group is that of a polyhedron: T, O or I.

    Its axes of three and more folds lie in several directions, those of C and D in one.

    Parameters
    ----------
    symmetry : Tensor of float64, shape (m, 3, 3)
        Every rotation of the group.
    """
    # The skew part of a rotation is its axis times the sine of its angle: zero for
    # the identity and for half turns.
    skew = symmetry - symmetry.mT
    axes = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], 1)
    axes = axes[axes.norm(dim=1) > 1e-6]
    if len(axes) == 0:
        return False
    axes = axes / axes.norm(dim=1, keepdim=True)
    return bool((axes @ axes[0]).abs().min() < 0.9)
