"""What one iteration hands to the next, and how a checkpoint keeps it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.results.refined_optics import RefinedOptics
from cryoinfer.results.run_result import Iteration
from cryoinfer.workflows.acceleration import AndersonStep
from cryoinfer.workflows.particle_quality import ParticleQuality
from cryoinfer.world import World

_NUMBERS = (
    "map_radius",
    "radius",
    "start_radius",
    "shared_radius",
    "done",
    "searching",
    "settled",
    "stayed",
    "optics_rested",
)
"""Fields of a :class:`ScheduleState` that are plain numbers."""


@dataclass(frozen=True)
class ScheduleState:
    """All that one pass hands to the next; what a checkpoint keeps.

    Attributes
    ----------
    posterior : ParticlePosterior
    noise : tuple of Tensor
        Power per optics group and ring.
    maps : tuple of two Tensor, shape (m, m, m)
        References of the halves: filtered and masked.
    map_radius : int
        Fourier radius that the maps hold.
    radius : int
        Fourier radius to which the halves agree.
    start_radius : int
        Fourier radius of the first passes.
    shared_radius : int
        Fourier radius of the map that both halves began with; 0 if each had its own.
    done : int
        Passes behind us.
    searching : bool
        Whether the next pass searches all poses.
    settled : bool
        Whether poses moved by less than their posteriors' width at this radius.
    stayed : int
        Passes at this radius.
    iterations : tuple of Iteration
    quality : ParticleQuality
        How particles fit the maps of the pass before.
    rounds : tuple of AndersonStep
        The last passes, the latest first.
    optics : RefinedOptics or None
        What has been found of the optics; None before any was refined.
    optics_rested : bool
        Whether they changed by less than their sds when they were refined last.
    """

    posterior: ParticlePosterior
    noise: tuple[Tensor, ...]
    maps: tuple[Tensor, Tensor]
    map_radius: int
    radius: int
    start_radius: int
    shared_radius: int
    done: int
    searching: bool
    settled: bool
    stayed: int
    iterations: tuple[Iteration, ...]
    quality: ParticleQuality
    rounds: tuple[AndersonStep, ...] = ()
    optics: RefinedOptics | None = None
    optics_rested: bool = False

    @classmethod
    def searching_from(
        cls,
        posterior: ParticlePosterior,
        noise: tuple[Tensor, ...],
        maps: tuple[Tensor, Tensor],
        radius: int,
    ) -> "ScheduleState":
        """Return the state before all poses are searched.

        Parameters
        ----------
        posterior : ParticlePosterior
            Of all particles, unknown.
        noise : tuple of Tensor
        maps : tuple of two Tensor, shape (..., m, m, m)
            One structure for both halves.
        radius : int
            Fourier radius that they hold.
        """
        return cls(
            posterior,
            noise,
            maps,
            map_radius=radius,
            radius=radius,
            start_radius=radius,
            shared_radius=radius,
            done=0,
            searching=True,
            settled=False,
            stayed=0,
            iterations=(),
            quality=ParticleQuality.unknown(len(posterior)),
        )

    @property
    def flagged(self) -> Tensor:
        """Which particles the next structure is made without, shape (n,).

        None of them while all poses are searched.
        """
        return self.quality.flagged & (not self.searching)

    @property
    def contrast(self) -> Tensor:
        """What is believed that particles show of the structure, shape (n,).

        1 while all poses are searched: an image at a wrong pose shows little of the
        map.
        """
        believed = self.quality.believed_contrast
        return torch.ones_like(believed) if self.searching else believed

    def of_first(self, world: World) -> "ScheduleState":
        """Return the state with all that the first process has decided.

        Processes compute alike, but on different machines the last bits may differ, and
        none must march on while another rests. Posteriors have been gathered already.
        """
        if world.size == 1:
            return self
        decided = world.of_first(replace(self, posterior=self.posterior[:0]))
        return replace(decided, posterior=self.posterior)


def state_to_dict(state: ScheduleState) -> dict[str, object]:
    """Return the state as tensors, numbers and strings, for a checkpoint."""
    return {
        "posterior": state.posterior.to_state(),
        "quality": state.quality.to_state(),
        "optics": {} if state.optics is None else state.optics.to_state(),
        "noise": list(state.noise),
        "maps": list(state.maps),
        "rounds": [one.to_state() for one in state.rounds],
        "numbers": {name: getattr(state, name) for name in _NUMBERS},
        "iterations": [dict(vars(iteration)) for iteration in state.iterations],
    }


def state_from_dict(saved: dict[str, object]) -> ScheduleState:
    """Invert :func:`state_to_dict`."""
    values: dict[str, Any] = saved
    posterior = ParticlePosterior.of_state(values["posterior"])
    iterations = tuple(Iteration(**entry) for entry in values["iterations"])
    first, second = values["maps"]
    optics = values["optics"]
    return ScheduleState(
        posterior,
        quality=ParticleQuality.of_state(values["quality"]),
        noise=tuple(values["noise"]),
        maps=(first, second),
        rounds=tuple(AndersonStep.of_state(one) for one in values["rounds"]),
        iterations=iterations,
        optics=RefinedOptics.of_state(optics) if optics else None,
        **values["numbers"],
    )
