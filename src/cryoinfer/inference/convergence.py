"""When a training has converged, said from looks at images held back."""

import math
from dataclasses import dataclass

_LOST_DEGREES = 60.0
"""A median error beyond it is near that of random rotations, 132 degrees."""

_FEWEST_CHECKS = 4
"""Looks at the images held back before anything is said of convergence."""

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


def in_vain(checks: list[Check]) -> bool:
    """Tell whether several looks have seen poses near random, and no gain.

    Both, as where several poses look alike the most probable one is often wrong.
    """
    return (
        len(checks) >= _FEWEST_CHECKS
        and checks[-1].median_degrees > _LOST_DEGREES
        and checks[0].loss_nats - checks[-1].loss_nats < _SETTLED_NATS
    )


def verdict(checks: list[Check]) -> str:
    """Say in plain words whether the training has converged.

    Parameters
    ----------
    checks : list of Check
        In the order of their steps, one at least.
    """
    last = checks[-1]
    if not math.isfinite(last.loss_nats):
        return "not converged: the loss is not finite; report this, with the log"
    if last.median_degrees > _LOST_DEGREES:
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
            f"still learning: the second half of the training gained {gained:.1f} "
            "nats an image; more steps will help"
        )
    return (
        f"converged: median error {last.median_degrees:.2f} degrees on simulated "
        "images held back"
    )
