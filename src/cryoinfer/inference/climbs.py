"""Climbs from modes that something else has named, a radius at a time."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.inference.refine import LocalPoses, PosePrior, covariance_of
from cryoinfer.inference.search import laplace_log_evidence, repeats
from cryoinfer.inference.subjects import Subject
from cryoinfer.inference.whitening import WhitenedImages

_STEPS = 4  # of a climb at one radius

_LEAST_WEIGHT = 1e-3
"""Of a component that is climbed beside the best."""

_HOPELESS_NATS = 12.0
"""A mode this far behind the best of its image is given up: one in 160,000."""

_WIDER_DRAWS = 2.0
"""Standard deviations of what draws are from, over those at the radius before: the
posterior has tops beyond the width of the one that was found."""


def climb_reach_radian(radius: int) -> float:
    """Return how far from the top of a mode a climb at a Fourier radius may begin.

    Farther off, slopes may lead to another top: the finest detail, a quarter of the box
    from the centre, has then moved by half of its wavelength.
    """
    return 2 / radius


S = TypeVar("S", bound=Subject)


@dataclass(frozen=True)
class Climbs(Generic[S]):
    """Climbs to the tops of modes.

    A radius at a time, so that every climb starts within reach of the next. Modes that
    are held for possible are climbed side by side, until the image itself rules them
    out: what is left is weighed by Laplace's approximation.

    Attributes
    ----------
    subject : Subject
        What is shown, to the largest radius.
    prior : PosePrior
    radii : tuple of int
        Fourier radii of the climbs, from low to high.
    lever_angstrom : float
        Of rotations: they move nothing farther than what is that far off.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the subject as it is, the identity among them.
    modes : int
        That are climbed at the first radius.
    draws : int
        From about what the climbs at a radius found, that are climbed beside it at the
        next: where an image says little, one top at a low radius is many at a higher.
    seed : int
        Of the draws.
    widening : Tensor of float64, shape (6 + c,), optional
        What standard deviations are multiplied by at the end; without it they are
        those of Laplace's approximation.
    """

    subject: S
    prior: PosePrior
    radii: tuple[int, ...]
    lever_angstrom: float
    symmetry: Tensor
    modes: int = 2
    draws: int = 0
    seed: int = 0
    widening: Tensor | None = None

    def from_modes(self, images: WhitenedImages, named: PoseMixture) -> PoseMixture:
        """Climb from the modes of a posterior of the same images.

        Returns
        -------
        PoseMixture
            ``modes`` each, best first; those that were given up have no weight.
        """
        n, count = named.weight.shape[0], min(self.modes, named.weight.shape[1])
        owner, start = self._starts(named, count)
        poses = LocalPoses.at(
            named.rotation[owner, start],
            named.shift_angstrom[owner, start],
            named.defocus_offset_angstrom[owner, start],
            named.conformation[owner, start],
        )
        for radius in self.radii:
            near = images.prefix(radius).select(owner)
            longest = climb_reach_radian(radius)
            poses = self.subject.climb(near, poses, self.prior, _STEPS, longest)
            evidence = laplace_log_evidence(poses, self.prior)
            kept = self._contenders(owner, poses, evidence, radius)
            owner, poses, evidence = owner[kept], poses.select(kept), evidence[kept]
            if self.draws and radius != self.radii[-1]:
                places = int(torch.bincount(owner).max())
                tops = mixture_of_tops(owner, poses, evidence, n, places)
                poses = LocalPoses.joined([poses, *self._drawn(tops)])
                owner = torch.cat([owner, torch.arange(n).repeat(self.draws)])
                count = places + self.draws
        found = mixture_of_tops(owner, poses, evidence, n, count)
        return found if self.widening is None else found.widened(self.widening)

    def _drawn(self, tops: PoseMixture) -> list[LocalPoses]:
        """Return draws from posteriors, all images' first draws first."""
        wide = replace(tops, covariance=tops.covariance * _WIDER_DRAWS**2)
        drawn = wide.sample(self.draws, torch.Generator().manual_seed(self.seed))
        return [LocalPoses.of(drawn[k]) for k in range(self.draws)]

    def _starts(self, named: PoseMixture, count: int) -> tuple[Tensor, Tensor]:
        """Return images and components, the densest that are a climb apart."""
        reach = climb_reach_radian(self.radii[0])
        # Likely ones first, so that no negligible one stands for its neighbours.
        order = (named.weight <= _LEAST_WEIGHT).byte().argsort(dim=1, stable=True)
        rows = torch.arange(len(order))[:, None]
        likely = named.weight[rows, order] > _LEAST_WEIGHT
        likely[:, 0] = True
        rotation, conformation = named.rotation, named.conformation
        chosen = likely & ~repeats(
            rotation[rows, order],
            reach,
            self.symmetry,
            conformation[rows, order],
            self.lever_angstrom,
        )
        chosen &= chosen.cumsum(1) <= count
        owner, place = torch.nonzero(chosen).unbind(1)
        return owner, order[owner, place]

    def _contenders(
        self, owner: Tensor, poses: LocalPoses, evidence: Tensor, radius: int
    ) -> Tensor:
        """Return which poses go on, those of an image together and best first."""
        # By image, and by falling evidence within.
        order = evidence.argsort(descending=True)
        order = order[owner[order].argsort(stable=True)]
        owner = owner[order]
        first = torch.searchsorted(owner, owner)
        rank = torch.arange(len(owner)) - first
        behind = evidence[order[first]] - evidence[order]
        # The best stays even where an image has overflowed and nothing is known.
        alive = (behind < _HOPELESS_NATS) | (rank == 0)
        for k in range(1, int(rank.max()) + 1):
            # Against each that is k places better.
            late = torch.nonzero(rank >= k).squeeze(1)
            pair = order[torch.stack([late - k, late], 1)]
            twin = repeats(
                poses.rotation[pair],
                0.5 / radius,
                self.symmetry,
                poses.conformation[pair],
                self.lever_angstrom,
            )[:, 1]
            alive[late[twin]] = False
        return order[alive]


def mixture_of_tops(
    owner: Tensor, poses: LocalPoses, evidence: Tensor, n: int, count: int
) -> PoseMixture:
    """Put modes into a table; empty places repeat the best mode, with no weight.

    Parameters
    ----------
    owner : Tensor of int64, shape (m,)
        The image of each mode, not falling; each of n at least once.
    poses : LocalPoses
        The modes, of an image best first.
    evidence : Tensor of float64, shape (m,)
        Log weights.
    n, count : int
        Images, and places for each.
    """
    first = torch.searchsorted(owner, torch.arange(n))
    rank = torch.arange(len(owner)) - first[owner]
    place = first[:, None].repeat(1, count)
    place[owner, rank] = torch.arange(len(owner))
    weighed = evidence.new_full((n, count), -torch.inf)
    weighed[owner, rank] = evidence
    return PoseMixture.of_modes(
        poses.rotation[place],
        poses.shift_angstrom[place],
        poses.defocus_offset_angstrom[place],
        torch.softmax(weighed, 1),
        covariance_of(poses.information)[place],
        poses.conformation[place],
    )
