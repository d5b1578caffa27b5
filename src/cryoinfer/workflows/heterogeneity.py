"""From particles to their conformations, with poses unknown or given.

A subspace of maps is learned from some of the particles
(:mod:`cryoinfer.workflows.subspace_learning`), and all of them, however many, are then
searched and refined in it.
"""

import torch

from cryoinfer.data.particles import Particles
from cryoinfer.inference.outlier_score import is_outlier
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.heterogeneity import Heterogeneity
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.conformation_result import (
    conformation_result,
    outlier_scores,
)
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.postprocess import reconstruct_sums
from cryoinfer.workflows.reconstruct import insert_all
from cryoinfer.workflows.subspace_learning import SubspaceLearning

_DEFAULTS = HeterogeneityConfig()


def heterogeneity(
    particles: Particles,
    config: HeterogeneityConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
) -> Heterogeneity:
    """Find a linear subspace of maps, and pose and z of every particle.

    Parameters
    ----------
    particles : Particles
        At least 50 a component that is tried, and 100 if poses are unknown.
    config : HeterogeneityConfig, optional
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.

    Returns
    -------
    Heterogeneity
        Without components where none says anything of held-out images, unless their
        number was chosen.

    Raises
    ------
    InputError
        If the particles, or what was chosen, cannot be used.
    NothingFoundError
        If they show no structure.
    """
    learning = SubspaceLearning.begun(particles, config, monitor)
    learned = learning.learned()
    problem, box = learning.problem, learning.problem.grid.box
    state = learning.last(problem, learned)
    assert state.subspace is not None
    low = state.subspace.projector(problem.grid.radius_at(config.resolution_angstrom))
    near = StrictImages(problem.grid, low.radius, learned.noise)
    strange = outlier_scores(problem, near, low, state.posterior, monitor)
    shows = torch.nonzero(~is_outlier(strange)).squeeze(1)
    poses = state.posterior.mode()
    source = StrictImages(problem.grid, box // 2 - 1, learned.noise)
    sums = insert_all(problem.of_rows(shows), source, poses[shows], monitor)
    run = RunResult(
        reconstruct_sums(problem, sums),
        state.posterior,
        problem.half + 1,
        learned.noise,
        iterations=(),
        outlier_score_nats=strange,
        unreadable=torch.zeros(len(particles), dtype=torch.bool),
    )
    maps = tuple(state.subspace.maps)
    radius = learning.map_radius
    return conformation_result(particles, run, maps, radius, learned.gain)
