"""Maps of several states, each from nothing, in one frame.

A consensus map shows one state, and the poses that it gives to particles of another are
wrong. Particles that lie together in a first, rough subspace are mostly of one state:
an ab initio run of each cluster finds that state's map from random poses, without
anything of the consensus. All maps are then turned onto the consensus map, in the hand
that fits: images of one state tell nothing of the frame or the hand of another's.
"""

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
    maps = []
    for number, rows in enumerate(clusters.rows):
        part = f"state {number + 1} of {len(clusters.rows)}"
        kept = parts.kept(part)
        if kept is None or "map" not in kept:
            found = abinitio(
                problem.particles.select(rows),
                replace(config, seed=config.seed + 1 + number),
                parts.monitor(part),
            )
            placed = _placed(found.reconstruction.density, consensus, problem)
            kept = {"map": placed}
            parts.keep(part, kept)
        maps.append(kept["map"])
    return maps


def _placed(density: Tensor, consensus: Tensor, problem: Problem) -> Tensor:
    """Return a map turned onto another."""
    length = problem.grid.length_angstrom
    frame = likeliest_frame(MapPair(consensus, density, None, length))
    return transform_map(density, frame, length / density.shape[-1])
