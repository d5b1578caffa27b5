"""Fewer passes to the same fixed point: Anderson's mixing of references.

Poses follow the map and the map follows the poses. What a few images see, common
views outvote: a rotation of all rare views against the common ones dies out by a
factor of only 0.7 a pass, and looks like rest long before it is gone. Two passes in
a row show that factor, and where its geometric series ends
(Anderson, J. ACM 12, 547, 1965; Walker & Ni, SIAM J. Numer. Anal. 49, 1715, 2011).
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.arithmetic import inner_products

_FURTHEST = 4.0
"""Longest extrapolation in units of the last change: of a factor of 0.8 a pass."""


@dataclass(frozen=True)
class AndersonStep:
    """One pass, as seen by the references.

    Attributes
    ----------
    radius : int
        Fourier radius of the pass.
    tried, made : tuple of two Tensor, shape (m, m, m)
        References of the halves, and the maps that came of them.
    """

    radius: int
    tried: tuple[Tensor, Tensor]
    made: tuple[Tensor, Tensor]


def comparable(rounds: tuple[AndersonStep, ...]) -> tuple[AndersonStep, ...]:
    """Return the last passes to the radius and of the map size of the latest.

    The latest alone where its own map has changed its size.
    """
    alike = itertools.takewhile(lambda one: _alike(one, rounds[0]), rounds)
    return tuple(alike) or rounds[:1]


def next_references(rounds: tuple[AndersonStep, ...]) -> tuple[Tensor, Tensor]:
    """Return the references for the next pass, each from its own half alone.

    Parameters
    ----------
    rounds : tuple of AndersonStep
        The last passes, the latest first; those before a change of radius or of the
        size of the map do not count.

    Returns
    -------
    tuple of two Tensor
        The mixture of what the passes made whose change would have been least.
    """
    alike = comparable(rounds)
    if len(alike) < 2:
        return rounds[0].made
    first, second = (_mixed(alike, half) for half in (0, 1))
    return first, second


def _alike(one: AndersonStep, latest: AndersonStep) -> bool:
    shapes = {density.shape for density in (*one.tried, *one.made, *latest.made)}
    return len(shapes) == 1 and one.radius == latest.radius


def _mixed(rounds: tuple[AndersonStep, ...], half: int) -> Tensor:
    made = [one.made[half] for one in rounds]
    changes = [(one.made[half] - one.tried[half]).flatten() for one in rounds]
    steps = torch.stack([changes[0] - other for other in changes[1:]])
    gram = inner_products(steps, steps).double()
    right = inner_products(steps, changes[0][None])[:, 0].double()
    if not bool(gram.any()):
        return made[0]
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    share = torch.linalg.solve(gram + ridge, right)
    share = share * (_FURTHEST / share.abs().sum().clamp(min=_FURTHEST))
    mixed = made[0].clone()
    for weight, other in zip(share.tolist(), made[1:], strict=True):
        mixed -= weight * (made[0] - other)
    return mixed
