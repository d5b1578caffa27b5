"""Fewer passes to the same fixed point: Anderson's mixing of references.

Poses follow the map and the map follows the poses. What a few images see, common
views outvote: a rotation of all rare views against the common ones dies out by a
factor of only 0.7 a pass, and looks like rest long before it is gone. Two passes in
a row show that factor, and where its geometric series ends
(Anderson, J. ACM 12, 547, 1965; Walker & Ni, SIAM J. Numer. Anal. 49, 1715, 2011).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cryoinfer.arithmetic import inner_products
from cryoinfer.reconstruction.mask import bounding_box

_FURTHEST = 4.0
"""Longest extrapolation in units of the last change: of a factor of 0.8 a pass."""


@dataclass(frozen=True)
class OccupiedPart:
    """A map without the empty voxels around its mask: several are kept of each half.

    Attributes
    ----------
    values : Tensor, shape (..., a, b, c)
    corner : tuple of int
        Where they begin in the map along the last three axes.
    box : int
        Of the map in voxels.
    """

    values: Tensor
    corner: tuple[int, int, int]
    box: int

    @classmethod
    def of(cls, density: Tensor) -> "OccupiedPart":
        """Cut out of a map (..., m, m, m) all that is not zero."""
        occupied = (density != 0).view(-1, *density.shape[-3:]).any(0)
        box = bounding_box(occupied.numpy())
        z, y, x = (slice(0, 1),) * 3 if box is None else box
        values = density[..., z, y, x].clone()
        return cls(values, (z.start, y.start, x.start), density.shape[-1])

    @property
    def end(self) -> tuple[int, int, int]:
        """Where the values end in the map."""
        z, y, x = (
            begin + size
            for begin, size in zip(self.corner, self.values.shape[-3:], strict=True)
        )
        return z, y, x

    def within(self, corner: Sequence[int], end: Sequence[int]) -> Tensor:
        """Return the map from one corner to another, which all its values are in."""
        sizes = [stop - start for start, stop in zip(corner, end, strict=True)]
        found = self.values.new_zeros(*self.values.shape[:-3], *sizes)
        (z, y, x), (a, b, c) = (
            [own - start for own, start in zip(mine, corner, strict=True)]
            for mine in (self.corner, self.end)
        )
        found[..., z:a, y:b, x:c] = self.values
        return found

    def whole(self) -> Tensor:
        """Return the map."""
        return self.within((0,) * 3, (self.box,) * 3)


@dataclass(frozen=True)
class AndersonStep:
    """One pass, as seen by the references.

    Attributes
    ----------
    radius : int
        Fourier radius of the pass.
    tried, made : tuple of two OccupiedPart
        References of the halves, and the maps that came of them.
    """

    radius: int
    tried: tuple[OccupiedPart, OccupiedPart]
    made: tuple[OccupiedPart, OccupiedPart]

    @classmethod
    def of(
        cls, radius: int, tried: tuple[Tensor, Tensor], made: tuple[Tensor, Tensor]
    ) -> "AndersonStep":
        """Keep what is needed of the maps of a pass, each of shape (..., m, m, m)."""
        first, second = map(OccupiedPart.of, tried)
        third, fourth = map(OccupiedPart.of, made)
        return cls(radius, (first, second), (third, fourth))

    def to_state(self) -> dict[str, object]:
        """Return the step as numbers and tensors, for a checkpoint."""
        return {
            "radius": self.radius,
            "maps": [dict(vars(one)) for one in (*self.tried, *self.made)],
        }

    @classmethod
    def of_state(cls, saved: Mapping[str, Any]) -> "AndersonStep":
        """Invert :meth:`to_state`."""
        a, b, c, d = (OccupiedPart(**one) for one in saved["maps"])
        return cls(saved["radius"], (a, b), (c, d))


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
    first, second = (_mixed(alike, half) for half in (0, 1))
    return first, second


def _alike(one: AndersonStep, latest: AndersonStep) -> bool:
    maps = (*one.tried, *one.made, *latest.made)
    boxes = {part.box for part in maps}
    return len(boxes) == 1 and one.radius == latest.radius


def _mixed(rounds: tuple[AndersonStep, ...], half: int) -> Tensor:
    parts = [(one.tried[half], one.made[half]) for one in rounds]
    latest = rounds[0].made[half]
    if len(rounds) < 2:
        return latest.whole()
    corners, ends = zip(
        *((one.corner, one.end) for pair in parts for one in pair), strict=True
    )
    corner = tuple(min(along) for along in zip(*corners, strict=True))
    end = tuple(max(along) for along in zip(*ends, strict=True))
    made = [after.within(corner, end) for _, after in parts]
    changes = [
        (after - before.within(corner, end)).flatten()
        for after, (before, _) in zip(made, parts, strict=True)
    ]
    steps = torch.stack([changes[0] - other for other in changes[1:]])
    gram = inner_products(steps, steps).double()
    right = inner_products(steps, changes[0][None])[:, 0].double()
    if not bool(gram.any()):
        return latest.whole()
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    share = torch.linalg.solve(gram + ridge, right)
    share = share * (_FURTHEST / share.abs().sum().clamp(min=_FURTHEST))
    mixed = made[0].clone()
    for weight, other in zip(share.tolist(), made[1:], strict=True):
        mixed -= weight * (made[0] - other)
    z, y, x = corner
    return OccupiedPart(mixed, (z, y, x), latest.box).whole()
