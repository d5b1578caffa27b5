"""Maps and classes to begin with, from nothing.

A rough subspace at the poses of a consensus map tells particles apart although poses of
many are wrong. Those that lie together are mostly of one class: an ab initio run of
each cluster makes a map that owes nothing to the consensus.
"""

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.workflows.class_config import ClassConfig
from cryoinfer.workflows.class_loop import ClassLoop
from cryoinfer.workflows.class_state import ClassRecord, ClassState
from cryoinfer.workflows.conformation_result import on_voxels
from cryoinfer.workflows.consensus import Consensus
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.workflows.state_maps import Clusters, maps_of_clusters
from cryoinfer.workflows.subspace_loop import (
    FIRST_INFLATION,
    SubspaceConfig,
    SubspaceLoop,
)

_MOST_DIMS, _FEWEST_EACH = 4, 150  # components, and particles for each
_ITERATIONS = 8  # of the rough subspace
_SURE_NATS = 100.0
"""Evidence by which a particle begins in the class of its cluster."""


def rough_coordinates(
    loop: ClassLoop,
    poses: Latents,
    noise: tuple[Tensor, ...],
    seed: int,
    monitor: Monitor,
) -> Tensor:
    """Return where particles lie in a rough subspace of maps, float64, (n, q).

    Along axes of equal units: a component counts for as much as it changes the map.
    """
    problem, radius = loop.problem, loop.radius
    dims = max(1, min(_MOST_DIMS, len(problem.particles) // _FEWEST_EACH))
    config = SubspaceConfig(dims, radius, radius, seed)
    rough = SubspaceLoop.of(problem, noise, config)
    state = rough.at_poses(
        rough.begun(poses), "rough subspace", _ITERATIONS, FIRST_INFLATION, monitor
    )
    state = rough.in_principal_axes(state)
    assert state.subspace is not None
    return state.posterior.mode().conformation * state.subspace.relative_sizes


def begun_from_nothing(
    loop: ClassLoop,
    consensus: Consensus,
    config: ClassConfig,
    parts: StageCheckpoints,
    monitor: Monitor,
) -> ClassState:
    """Return classes whose maps are of clusters, each from random poses."""
    problem = loop.problem
    count = config.begun_with(len(problem.particles))
    generator = torch.Generator().manual_seed(config.seed)
    z = rough_coordinates(loop, consensus.poses, consensus.noise, config.seed, monitor)
    clusters = problem.world.of_first(Clusters.of(z, count, generator))
    if len(clusters.rows) < 2:
        return _divided(loop, consensus.poses, z, consensus.noise, count, monitor)
    maps = maps_of_clusters(
        problem,
        clusters,
        consensus.density,
        config.abinitio(config.resolution_angstrom),
        parts,
    )
    box = problem.map_box(loop.radius)
    coarse = torch.stack([on_voxels(one, box) for one in maps])
    state = loop.searched(
        loop.begun(coarse, consensus.noise), "search with maps of clusters", monitor
    )
    while state.count < loop.wanted:
        state = loop.split(state, monitor)
    return state


def begun_at_poses(
    loop: ClassLoop,
    poses: Latents,
    noise: tuple[Tensor, ...],
    config: ClassConfig,
    monitor: Monitor,
) -> ClassState:
    """Return classes whose maps are of clusters, at poses that are given."""
    z = rough_coordinates(loop, poses, noise, config.seed, monitor)
    count = config.begun_with(len(z))
    return _divided(loop, poses, z, noise, count, monitor)


def _divided(
    loop: ClassLoop,
    poses: Latents,
    z: Tensor,
    noise: tuple[Tensor, ...],
    count: int,
    monitor: Monitor,
) -> ClassState:
    """Return classes of clusters in a subspace, at the poses that it is at."""
    label = torch.from_numpy(kmeans2(z.numpy(), count, seed=0, minit="++")[1]).long()
    label = loop.problem.world.of_first(label)
    evidence = _SURE_NATS * torch.nn.functional.one_hot(label, count).double()
    return loop.begun_at(ClassRecord.at(poses, evidence), noise, monitor)
