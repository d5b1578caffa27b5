"""Particles of all conformations, and one map of them, before these are told apart."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import NothingFoundError
from cryoinfer.records import Latents
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.heterogeneity_config import ConformationConfig
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.world import ALONE, World

_CONSENSUS = "consensus"
LAST_FINER = 0.45
"""Resolution of the last maps and poses over that of conformations or classes."""


@dataclass(frozen=True)
class Consensus:
    """One map for all particles.

    Attributes
    ----------
    poses : Latents
    noise : tuple of Tensor
        Noise power per optics group and ring.
    density : Tensor, shape (n, n, n)
    """

    poses: Latents
    noise: tuple[Tensor, ...]
    density: Tensor


def drawn_problem(
    particles: Particles,
    config: ConformationConfig,
    world: World = ALONE,
    device: torch.device | str = "cpu",
) -> tuple[Problem, Tensor]:
    """Return the problem of all particles, and which of them are learned from.

    Parameters
    ----------
    particles : Particles
    config : ConformationConfig
    world : World
        The processes that share the particles.
    device : torch.device or str, optional
        Where images are compared with maps.

    Returns
    -------
    problem : Problem
    rows : Tensor of int64
        Ascending.
    """
    generator = torch.Generator().manual_seed(config.seed)
    problem = define_problem(
        particles,
        "C1",
        config.particle_diameter_angstrom,
        config.max_shift_angstrom,
        0.0,
        generator,
    )
    drawn = torch.randperm(len(particles), generator=generator)
    problem = problem.shared_by(world).on(device)
    return problem, drawn[: config.learning_particles].sort().values


def found_consensus(
    problem: Problem, config: AbinitioConfig, parts: StageCheckpoints, sought: str
) -> Consensus:
    """Return the map that all particles show together, perhaps found before.

    Parameters
    ----------
    problem : Problem
    config : AbinitioConfig
    parts : StageCheckpoints
    sought : str
        What a structure could have, for the message where there is none.

    Raises
    ------
    NothingFoundError
        If they show none.
    """
    kept = parts.kept(_CONSENSUS)
    if kept is None or "poses" not in kept:
        world = problem.world
        found = abinitio(
            problem.particles, config, parts.monitor(_CONSENSUS), world, problem.device
        )
        evidence = world.of_first(found.reconstruction.evidence)
        if evidence is not None and not evidence.is_structure:
            raise NothingFoundError(
                "no structure was found in these particles: there is nothing that "
                f"could have {sought}. See what `cryoinfer abinitio` says"
            )
        state: dict[str, Any] = {
            "poses": found.latents.to_state(),
            "noise": list(found.noise_power),
            "map": found.reconstruction.density,
        }
        kept = world.of_first(state)
        parts.keep(_CONSENSUS, kept)
    return Consensus(Latents.of_state(kept["poses"]), tuple(kept["noise"]), kept["map"])


def noise_of_all_groups(
    problem: Problem, rows: Tensor, noise: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Return the noise of all optics groups, where it was found on some particles.

    Parameters
    ----------
    problem : Problem
        Of all particles.
    rows : Tensor of int64
        Of the particles that it was found on.
    noise : tuple of Tensor
        That of a group without any of these is measured before poses are known.
    """
    group = problem.particles.optics.group
    known = set(group[rows].tolist())
    if len(known) == int(group.max()) + 1:
        return noise
    first = initial_noise(problem)
    return tuple(
        noise[number] if number in known else one for number, one in enumerate(first)
    )
