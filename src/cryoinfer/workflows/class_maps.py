"""From particles to discrete classes, with poses unknown or given.

More classes than may be needed are begun with (:mod:`.class_start`); all poses are
searched in the maps of all of them, and classes and maps alternated
(:mod:`.class_loop`); those that say nothing of held-out images are given up
(:mod:`.class_evidence`); and one pass over all particles, however many, goes to a finer
radius.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import state_of_this_version
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.classes import (
    Classes,
    ClassGain,
    maximum_populations,
    responsibilities,
)
from cryoinfer.results.run_result import Reconstruction
from cryoinfer.workflows.class_config import ClassConfig, require_enough_for_classes
from cryoinfer.workflows.class_evidence import by_held_out_gain
from cryoinfer.workflows.class_loop import ClassLoop
from cryoinfer.workflows.class_start import (
    begun_at_poses,
    begun_from_nothing,
)
from cryoinfer.workflows.class_state import ClassRecord, ClassState
from cryoinfer.workflows.consensus import (
    LAST_FINER,
    drawn_problem,
    found_consensus,
    noise_of_all_groups,
)
from cryoinfer.workflows.final_maps import reconstruct_sums
from cryoinfer.workflows.problem import Problem, initial_noise
from cryoinfer.workflows.reconstruct import given_poses
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.world import ALONE, World

_BEGUN, _LEARNED = "first classes", "classes"
_ITERATIONS = 5  # of classes and maps, between two searches, at most

_DEFAULTS = ClassConfig()


def classes(
    particles: Particles,
    config: ClassConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
    device: torch.device | str = "cpu",
) -> Classes:
    """Find maps that particles are images of one each, and the class of every one.

    Parameters
    ----------
    particles : Particles
        At least 50 a class, and 100 if poses are unknown.
    config : ClassConfig, optional
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.
    world : World
        The processes that share the particles, each of which calls this.
    device : torch.device or str, optional
        Where images are compared with maps. Operations without kernels of their own
        there run as plain PyTorch (:mod:`cryoinfer.operations`).

    Returns
    -------
    Classes
        One, where no further one says anything of held-out images, unless their number
        was chosen.

    Raises
    ------
    InputError
        If the particles, or what was chosen, cannot be used.
    NothingFoundError
        If they show no structure.
    """
    require_enough_for_classes(len(particles), config)
    problem, rows = drawn_problem(particles, config, world, device)
    monitor = SharedMonitor(monitor, world)
    return _Run(problem, rows, config, StageCheckpoints(monitor), monitor).done()


@dataclass(frozen=True)
class _Learned:
    """What the learning particles have taught."""

    state: ClassState
    gain: ClassGain

    def to_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"state": self.state.to_state(), "gain": asdict(self.gain)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Invert :meth:`to_state`."""
        with state_of_this_version():
            return cls(ClassState.of_state(state["state"]), ClassGain(**state["gain"]))


@dataclass(frozen=True)
class _Run:
    """The parts of a run that stay the same.

    Attributes
    ----------
    problem : Problem
        Of all particles.
    rows : Tensor of int64
        Of the learning particles.
    config : ClassConfig
    parts : StageCheckpoints
    monitor : Monitor
    """

    problem: Problem
    rows: Tensor
    config: ClassConfig
    parts: StageCheckpoints
    monitor: Monitor

    def done(self) -> Classes:
        """Return what all particles show."""
        learned = self._kept_learned()
        state = self._of_all(learned.state)
        found = maximum_populations(state.record.log_evidence)
        found = self.problem.world.of_first(found)
        order = found.share.argsort(descending=True)
        record = state.record.in_order(order)
        share = found.share[order]
        state = replace(state, record=record, population=share)
        return Classes(
            record.posterior(share),
            responsibilities(record.log_evidence, share),
            replace(found, share=share, se=found.se[order]),
            self._reconstructed(state),
            self.problem.half + 1,
            learned.gain,
        )

    def _loop(self, problem: Problem, wanted: int) -> ClassLoop:
        radius = problem.grid.radius_at(self.config.resolution_angstrom)
        return ClassLoop(problem, radius, self.config.poses == "unknown", wanted)

    def _kept_learned(self) -> _Learned:
        """Return what the learning particles have taught, perhaps before."""
        kept = self.parts.kept(_LEARNED)
        if kept is None:
            learned = self._learned()
            self.parts.drop(_BEGUN)
            self.parts.keep(_LEARNED, learned.to_state())
            return learned
        return _Learned.of_state(kept)

    def _learned(self) -> _Learned:
        """Return the classes of some of the particles."""
        chosen = self.config.classes
        loop = self._loop(self.problem.of_rows(self.rows), chosen or 1)
        state = self._kept_begun(loop)
        state = self._settled(loop, state, "first classes")
        if loop.searches:
            state = loop.searched(state, "search of all poses", self.monitor)
            state = self._settled(loop, state, "classes")
        state, gain = by_held_out_gain(loop, state, chosen, self.monitor)
        return _Learned(state, gain)

    def _settled(self, loop: ClassLoop, state: ClassState, name: str) -> ClassState:
        state = loop.measured(state, self.monitor)
        return loop.settled(state, name, _ITERATIONS, self.monitor)

    def _kept_begun(self, loop: ClassLoop) -> ClassState:
        """Return the classes that iterations begin with, perhaps found before."""
        kept = self.parts.kept(_BEGUN)
        if kept is not None:
            return ClassState.of_state(kept)
        problem, config = loop.problem, self.config
        if loop.searches:
            coarse = config.abinitio(config.resolution_angstrom)
            consensus = found_consensus(problem, coarse, self.parts, "classes")
            consensus = replace(
                consensus,
                noise=noise_of_all_groups(self.problem, self.rows, consensus.noise),
            )
            state = begun_from_nothing(
                loop, consensus, config, self.parts, self.monitor
            )
        else:
            noise = initial_noise(self.problem)
            poses = given_poses(problem.particles)
            state = begun_at_poses(loop, poses, noise, config, self.monitor)
        self.parts.keep(_BEGUN, state.to_state())
        return state

    def _of_all(self, learned: ClassState) -> ClassState:
        """Return poses and classes of all particles, to the finer radius."""
        problem, n = self.problem, len(self.problem.particles)
        loop = self._loop(problem, self.config.classes or 1)
        loop = replace(loop, checkpoints=self.parts)
        radius = problem.grid.radius_at(self.config.resolution_angstrom * LAST_FINER)
        record = ClassRecord.unknown(n, learned.count)
        if not loop.searches:
            nothing = torch.zeros(n, learned.count, dtype=torch.float64)
            record = ClassRecord.at(given_poses(problem.particles), nothing)
        state = replace(learned, record=record)
        name = "all particles"
        state = (
            loop.searched(state, name, self.monitor)
            if loop.searches
            else (loop.settled(state, name, 1, self.monitor))
        )
        state = loop.solved(state, radius, self.monitor)
        return loop.refined(state, radius, self.monitor)

    def _reconstructed(self, state: ClassState) -> tuple[Reconstruction, ...]:
        """Return the maps of all classes, on the voxels of the particles."""
        problem = self.problem
        loop = self._loop(problem, state.count)
        sums = loop.sums(state, problem.grid.box // 2 - 1, self.monitor)
        shared = problem.grid.resolution_at(loop.radius)
        found = []
        for one in sums.of_class:
            halves = one.symmetrised(problem.symmetry_rotation)
            made = reconstruct_sums(problem, halves)
            # Half-sets are judged by each other's maps to the radius of classes.
            if loop.searches:
                made = replace(made, shared_resolution_angstrom=shared)
            found.append(made)
        return tuple(found)
