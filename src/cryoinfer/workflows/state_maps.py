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

from cryoinfer.evaluation.rigid_search import MapPair, likeliest_frame
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.random_start import FEWEST_PARTICLES
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints

_LARGEST_CLUSTER = 3000
"""Particles of a cluster that its map is made of."""


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
    best = max(found, key=lambda one: float(one.fsc.mean()))
    return transform_map(density, best.alignment, length_angstrom / density.shape[-1])
