"""When a training has converged, said from looks at images held back."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.geometry.rotation_volume import ALL_TURNS
from cryoinfer.geometry.rotations import (
    geodesic_angle,
    random_rotations,
    random_turns_in_plane,
)
from cryoinfer.geometry.symmetry import nearest_mates

_LOST = 0.45
"""A median error beyond as much of that of random poses is near it: 60 of 132 degrees
of a map without symmetry, 14 of 31 of an icosahedral one."""

_RANDOM_POSES = 10_000

_FEWEST_CHECKS = 4
"""Looks at the images held back before anything is said of convergence."""

CONVERGED = "converged"
"""How the verdict on a training begins that needs no more steps."""

_SETTLED_NATS = 0.5
"""Gain an image over the second half of a training that counts as none."""


@dataclass(frozen=True)
class Check:
    """A look at simulated images that are not learned from.

    Attributes
    ----------
    step : int
    loss_nats : float
        Minus the mean log density of the true latents.
    median_degrees : float
        Geodesic error of the most probable pose.
    """

    step: int
    loss_nats: float
    median_degrees: float


def lost_degrees(turns: int, symmetry: Tensor) -> float:
    """Return the median error beyond which poses are near random ones.

    Parameters
    ----------
    turns : int
        Directions of rotation that are unknown, 3 or 1.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is: errors are to the nearest mate.
    """
    draw = random_rotations if turns == ALL_TURNS else random_turns_in_plane
    rotation = draw(_RANDOM_POSES, torch.Generator().manual_seed(0))
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotation)
    angle = geodesic_angle(nearest_mates(rotation, identity, symmetry), identity)
    return _LOST * math.degrees(float(angle.median()))


def in_vain(checks: list[Check], lost_degrees: float) -> bool:
    """Tell whether several looks have seen poses near random, and no gain.

    Both, as where several poses look alike the most probable one is often wrong.

    Parameters
    ----------
    checks : list of Check
        In the order of their steps.
    lost_degrees : float
        Of :func:`lost_degrees`.
    """
    return (
        len(checks) >= _FEWEST_CHECKS
        and checks[-1].median_degrees > lost_degrees
        and checks[0].loss_nats - checks[-1].loss_nats < _SETTLED_NATS
    )


def verdict(checks: list[Check], lost_degrees: float) -> str:
    """Say in plain words whether the training has converged.

    Parameters
    ----------
    checks : list of Check
        In the order of their steps, one at least.
    lost_degrees : float
        Of :func:`lost_degrees`.
    """
    last = checks[-1]
    if not math.isfinite(last.loss_nats):
        return "not converged: the loss is not finite; report this, with the log"
    if last.median_degrees > lost_degrees:
        return (
            f"not converged: the median error, {last.median_degrees:.0f} degrees, is "
            "near that of random poses; the map may hold too little detail, or the "
            "images too little signal"
        )
    if len(checks) < _FEWEST_CHECKS:
        return (
            f"too short to tell: median error {last.median_degrees:.2f} degrees on "
            f"simulated images held back after {last.step} steps"
        )
    half = next(check for check in checks if check.step >= last.step / 2)
    gained = half.loss_nats - last.loss_nats
    if gained > _SETTLED_NATS:
        return (
            f"still learning: median error {last.median_degrees:.2f} degrees on "
            "simulated images held back, but the second half of the training gained "
            f"{gained:.1f} nats an image; more steps will help"
        )
    return (
        f"{CONVERGED}: median error {last.median_degrees:.2f} degrees on simulated "
        "images held back"
    )
