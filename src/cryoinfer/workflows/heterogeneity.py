"""From particles to their conformations, with poses unknown or given.

A subspace of maps is learned from some of the particles
(:mod:`cryoinfer.workflows.subspace_learning`), and all of them, however many, are then
searched and refined in it.
"""

from dataclasses import replace

import torch

from cryoinfer.data.particles import Particles
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.calibration_trial import SEARCHED
from cryoinfer.results.heterogeneity import Heterogeneity
from cryoinfer.workflows.conformation_result import (
    ConformationMaps,
    found_conformations,
)
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.learned_subspace import LearnedSubspace
from cryoinfer.workflows.subspace_learning import SubspaceLearning
from cryoinfer.world import ALONE, World

_DEFAULTS = HeterogeneityConfig()


def heterogeneity(
    particles: Particles,
    config: HeterogeneityConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
    device: torch.device | str = "cpu",
) -> Heterogeneity:
    """Find a linear subspace of maps, and pose and z of every particle.

    Parameters
    ----------
    particles : Particles
        At least 50 a component that is tried, and 100 if poses are unknown.
    config : HeterogeneityConfig, optional
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.
    world : World
        The processes that share the particles, each of which calls this.
    device : torch.device or str, optional
        Where images are compared with maps. Operations without kernels of their own
        there run as plain PyTorch (:mod:`cryoinfer.operations`).

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
    learning = SubspaceLearning.begun(particles, config, monitor, world, device)
    learned = learning.learned()
    state = learning.last(learning.problem, learned)
    if config.poses == "given":  # z is then exact, as far as the poses are
        return finished_conformations(learning, learned, learning.maps_of(state))
    calibrated = learning.calibrated(state, learned)
    posterior = state.posterior.inflated(calibrated.inflation)
    maps = learning.maps_of(replace(state, posterior=posterior))
    found = finished_conformations(learning, learned, maps)
    return replace(found, trials={SEARCHED: calibrated.trial})


def finished_conformations(
    learning: SubspaceLearning, learned: LearnedSubspace, found: ConformationMaps
) -> Heterogeneity:
    """Return what is found, with outliers and the map of all particles.

    Parameters
    ----------
    learning : SubspaceLearning
    learned : LearnedSubspace
    found : ConformationMaps
        Of all particles.
    """
    return found_conformations(
        learning.problem,
        learned.noise,
        found,
        learned.gain,
        learning.map_radius,
        learning.monitor,
    )
