"""One map for particles of all conformations, before these are told apart."""

from dataclasses import dataclass

from torch import Tensor

from cryoinfer.errors import NothingFoundError
from cryoinfer.records import Latents
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.problem import Problem, initial_noise
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints

_CONSENSUS = "consensus"


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
        found = abinitio(problem.particles, config, parts.monitor(_CONSENSUS))
        evidence = found.reconstruction.evidence
        if evidence is not None and not evidence.is_structure:
            raise NothingFoundError(
                "no structure was found in these particles: there is nothing that "
                f"could have {sought}. See what `cryoinfer abinitio` says"
            )
        kept = {
            "poses": found.latents.to_state(),
            "noise": list(found.noise_power),
            "map": found.reconstruction.density,
        }
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
