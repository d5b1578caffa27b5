"""Rotations between two maps by optimal transport of point clouds.

From each of 72 rotations, 60 degrees apart, a plan of transport and the best rigid
motion for it are found in turns, while the plan's blur falls: after AlignOT (Riahi et
al. 2023, IEEE/ACM Transactions on Computational Biology and Bioinformatics 20), with
entropic plans in place of sampled ones. Where one map lacks a part of the other, the
plan may leave mass behind.
"""

import math

import torch
from torch import Tensor

from cryoinfer.evaluation.rigid_search import MapPair
from cryoinfer.evaluation.transport import (
    Cloud,
    point_cloud,
    rigid_motion,
    sinkhorn_plan,
)
from cryoinfer.geometry.hand import mirror_density
from cryoinfer.geometry.so3_grid import rotation_grid

_COARSE, _FINE = 60, 200
"""Points of a cloud: to try all starts, and those that are kept."""

_TURNS = 16
_FINE_TURNS = 8
_ROUNDS = 6
_BLUR = (0.3, 0.03)
"""Of the squared radius of gyration, first and last."""

_REACH = 0.3
_KEPT = 8


def transport_rotations(pair: MapPair, mirrored: bool, partial: bool) -> Tensor:
    """Return the rotations at which little mass has to be moved, the best first.

    Parameters
    ----------
    pair : MapPair
    mirrored : bool
        Whether the mirror image of the moving map is meant.
    partial : bool
        Whether one map may lack a part of the other.

    Returns
    -------
    Tensor of float64, shape (k, 3, 3)
        G of :class:`cryoinfer.evaluation.pose_error.GlobalAlignment`. None of them
        where a map shows fewer than four points.
    """
    voxel = pair.length_angstrom / pair.fixed.shape[-1]
    moving = mirror_density(pair.moving) if mirrored else pair.moving
    clouds = [
        [point_cloud(one, voxel, count) for one in (pair.fixed, moving)]
        for count in (_COARSE, _FINE)
    ]
    rotation = rotation_grid(0)
    if any(len(cloud.mass) < 4 for cloud in clouds[0]):
        return rotation[:0]
    fixed, moved = clouds[0]
    shift = moved.centre() - rotation @ fixed.centre()
    first, last = (math.log10(one) for one in _BLUR)
    blurs = torch.logspace(first, last, _TURNS).tolist()
    rotation, shift, cost = _in_turns(clouds[0], (rotation, shift), blurs, partial)
    best = cost.topk(_KEPT, largest=False).indices
    blurs = [_BLUR[1]] * _FINE_TURNS
    start = rotation[best], shift[best]
    rotation, _, cost = _in_turns(clouds[1], start, blurs, partial)
    return rotation[cost.argsort()]


def _in_turns(
    clouds: list[Cloud],
    start: tuple[Tensor, Tensor],
    blurs: list[float],
    partial: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return motions, and what is left to be moved after each, lower for the better."""
    fixed, moving = clouds
    squared_radius = moving.radius() ** 2
    scale = 1.0 if partial else float(fixed.mass.sum() / moving.mass.sum())
    mass = moving.mass * scale
    rotation, shift = start
    reach = _REACH * squared_radius if partial else None
    for blur in blurs:
        cost = _cost(fixed, moving, rotation, shift)
        plan = sinkhorn_plan(
            cost, fixed.mass, mass, blur * squared_radius, reach, _ROUNDS
        )
        rotation, shift = rigid_motion(plan, fixed.point, moving.point)
    cost = _cost(fixed, moving, rotation, shift)
    moved = (plan * cost).sum((-2, -1))
    if reach is not None:  # what is left behind pays as if it were moved that far
        moved = moved + reach * (fixed.mass.sum() - plan.sum((-2, -1))).clamp(min=0)
    return rotation, shift, moved


def _cost(fixed: Cloud, moving: Cloud, rotation: Tensor, shift: Tensor) -> Tensor:
    turned = fixed.point @ rotation.mT + shift[:, None]
    return (
        turned.square().sum(-1)[..., None]
        + moving.point.square().sum(-1)
        - 2 * turned @ moving.point.T
    ).clamp(min=0.0)
