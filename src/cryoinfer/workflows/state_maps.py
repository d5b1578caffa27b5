"""Maps of several states, each from nothing, in one frame.

A consensus map shows one state, and the poses that it gives to particles of another are
wrong. Particles that lie together in a first, rough subspace are mostly of one state:
an ab initio run of each cluster finds that state's map from random poses, without
anything of the consensus. Each map is then turned onto the consensus map, or onto one
that has been turned before and is more like it, in the hand that fits: images of one
state tell nothing of the frame or the hand of another's. Two maps of one state must get
one frame, or z would tell apart particles that differ in nothing but that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import (
    Agreement,
    MapPair,
    correlation_as_they_lie,
    frame_as_it_lies,
    likeliest_frame,
)
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.random_start import FEWEST_PARTICLES
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints

_LARGEST_CLUSTER = 3000
"""Particles of a cluster that its map is made of."""

_ALIKE = 0.97
"""Correlation of maps that are of one state, whatever else differs."""

_NEARER = 0.02
"""Mean shell correlation that another frame must gain: fits of maps that lie alike move
them by a degree, and gain less than a tenth of it."""


@dataclass(frozen=True)
class Clusters:
    """Particles grouped by their conformation.

    Attributes
    ----------
    centre : Tensor of float64, shape (k, q)
    rows : tuple of Tensor of int64
        Particles of each, ascending, drawn from the larger ones.
    """

    centre: Tensor
    rows: tuple[Tensor, ...]

    @classmethod
    def of(cls, z: Tensor, count: int, generator: torch.Generator) -> "Clusters":
        """Divide particles by k-means; clusters too small for a map are left out.

        Parameters
        ----------
        z : Tensor of float64, shape (n, q)
        count : int
        generator : torch.Generator
        """
        count = min(count, max(1, len(z) // (2 * FEWEST_PARTICLES)))
        centre, label = kmeans2(z.numpy(), count, seed=0, minit="++")
        rows, kept = [], []
        for number in range(count):
            own = torch.nonzero(torch.from_numpy(label) == number).squeeze(1)
            if len(own) < FEWEST_PARTICLES:
                continue
            drawn = torch.randperm(len(own), generator=generator)[:_LARGEST_CLUSTER]
            rows.append(own[drawn].sort().values)
            kept.append(number)
        return cls(torch.from_numpy(centre)[kept], tuple(rows))


def maps_of_clusters(
    problem: Problem,
    clusters: Clusters,
    consensus: Tensor,
    config: AbinitioConfig,
    parts: StageCheckpoints,
) -> list[Tensor]:
    """Return a map of each cluster, in the frame of the consensus map.

    Parameters
    ----------
    problem : Problem
    clusters : Clusters
        Of its particles.
    consensus : Tensor, shape (n, n, n)
    config : AbinitioConfig
        Of each run.
    parts : StageCheckpoints

    Returns
    -------
    list of Tensor, each of shape (n, n, n)
    """
    maps: list[Tensor] = []
    for number, rows in enumerate(clusters.rows):
        part = f"state {number + 1} of {len(clusters.rows)}"
        kept = parts.kept(part)
        if kept is None or "map" not in kept:
            found = abinitio(
                problem.particles.select(rows),
                replace(config, seed=config.seed + 1 + number),
                parts.monitor(part),
                problem.world,
                problem.device,
            )
            references = (consensus, *maps)
            placed = turned_onto_likeliest(
                found.reconstruction.density, references, problem.grid.length_angstrom
            )
            kept = {"map": problem.world.of_first(placed)}
            parts.keep(part, kept)
        maps.append(kept["map"])
    return maps


def in_common_frames(
    maps: Sequence[Tensor], length_angstrom: float
) -> list[Tensor] | None:
    """Return maps of states in the frames in which they differ least.

    The frame of a state is a matter of choice, as long as its particles have one. In
    any but the nearest, z tells frames apart more than states, and some particles of
    one state fit the map of another, as it lies, better than their own.

    Parameters
    ----------
    maps : sequence of Tensor, each of shape (n, n, n)
        The first stays as it lies; each of the others is turned onto the one before it
        that it then agrees with best.
    length_angstrom : float
        Of an edge of the box.

    Returns
    -------
    list of Tensor, or None
        None if they lie so already.
    """
    placed, frames, farther = [maps[0]], [GlobalAlignment.identity()], False
    for number, one in enumerate(maps[1:], start=1):
        pairs = [MapPair(m, one, None, length_angstrom) for m in maps[:number]]
        alike = [correlation_as_they_lie(pair) for pair in pairs]
        nearest = max(range(number), key=lambda n: alike[n])
        if alike[nearest] > _ALIKE:
            frame = frames[nearest]
        else:
            lying = max(_mean_fsc(frame_as_it_lies(pair)) for pair in pairs)
            found = [
                likeliest_frame(replace(pair, fixed=m))
                for pair, m in zip(pairs, placed, strict=True)
            ]
            best = max(found, key=_mean_fsc)
            farther |= _mean_fsc(best) > lying + _NEARER
            frame = best.alignment
        frames.append(frame)
        placed.append(transform_map(one, frame, length_angstrom / one.shape[-1]))
    return placed if farther else None


def _mean_fsc(found: Agreement) -> float:
    return float(found.fsc.mean())


def turned_onto_likeliest(
    density: Tensor, references: Sequence[Tensor], length_angstrom: float
) -> Tensor:
    """Return a map turned onto that of some others which it then agrees with best.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
    references : sequence of Tensor, each of shape (n, n, n)
    length_angstrom : float
        Of an edge of the box.
    """
    found = [
        likeliest_frame(MapPair(one, density, None, length_angstrom))
        for one in references
    ]
    best = max(found, key=_mean_fsc)
    return transform_map(density, best.alignment, length_angstrom / density.shape[-1])
