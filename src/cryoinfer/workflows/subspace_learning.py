"""A subspace of maps, learned from some particles, with poses unknown or given.

A consensus map by ab initio; a rough subspace at its poses; maps of the states that the
particles form in it, each from nothing (:mod:`cryoinfer.workflows.state_maps`); all
poses searched again with these maps; the subspace from there; and how many of its
components say anything of images that they were not made of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.results.heterogeneity import HeldOutGain
from cryoinfer.workflows.conformation_calibration import (
    CalibratedSearch,
    calibrate_search,
)
from cryoinfer.workflows.conformation_result import (
    ConformationMaps,
    maps_of_subspace,
)
from cryoinfer.workflows.consensus import (
    LAST_FINER,
    drawn_problem,
    found_consensus,
    noise_of_all_groups,
)
from cryoinfer.workflows.heterogeneity_config import (
    HeterogeneityConfig,
    require_enough,
    require_frame_of_mask,
)
from cryoinfer.workflows.iteration import unknown_posterior
from cryoinfer.workflows.learned_subspace import LearnedSubspace
from cryoinfer.workflows.problem import Problem, initial_noise
from cryoinfer.workflows.reconstruct import given_poses
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.workflows.state_maps import (
    Clusters,
    in_common_frames,
    maps_of_clusters,
)
from cryoinfer.workflows.subspace_evidence import held_out_gain
from cryoinfer.workflows.subspace_loop import (
    FIRST_INFLATION,
    SubspaceConfig,
    SubspaceLoop,
    SubspaceState,
)
from cryoinfer.world import ALONE, World

_LEARNED = "subspace"

_STATES = 4
_FIRST_ITERATIONS, _LATER_ITERATIONS, _SEARCHED_ITERATIONS = 12, 6, 3
_LATER_INFLATION = 3.0
_CONSENSUS_FINER = 0.65
"""Resolution of the consensus, whose poses the first subspace is at, over that of the
conformations."""

_LEAST_CONTRAST_SD = 0.03
"""Spread of the contrast that is worth another unknown: less of it makes the images of
a particle differ by less than a tenth of their signal's power."""

_MOST_SEARCHES = 12
_CHANGED_DEGREES, _FEW_CHANGES = 10.0, 0.003
"""Searches end where less than this share of poses has changed by so much. Where three
poor maps of one of two states lay in two frames, 16, 3, 2, 5, 6, 5, 1 and 0.3 % did in
turn, and of that state 62 % of the poses were off at first, 5 % in the end."""


@dataclass(frozen=True)
class SubspaceLearning:
    """What stays the same while a subspace is learned.

    Attributes
    ----------
    problem : Problem
        Of all particles.
    rows : Tensor of int64
        Of the learning particles.
    config : HeterogeneityConfig
    parts : StageCheckpoints
    monitor : Monitor
    """

    problem: Problem
    rows: Tensor
    config: HeterogeneityConfig
    parts: StageCheckpoints
    monitor: Monitor

    @classmethod
    def begun(
        cls,
        particles: Particles,
        config: HeterogeneityConfig,
        monitor: Monitor,
        world: World = ALONE,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Return a run before its first stage; refuse what cannot work."""
        require_frame_of_mask(config.focus_mask, config.poses)
        require_enough(len(particles), config)
        problem, rows = drawn_problem(particles, config, world, device)
        monitor = SharedMonitor(monitor, world)
        return cls(problem, rows, config, StageCheckpoints(monitor), monitor)

    @property
    def particles(self) -> Particles:
        """The learning particles."""
        return self.problem.particles.select(self.rows)

    @property
    def low_radius(self) -> int:
        """Fourier radius that conformations are inferred at."""
        return self.problem.grid.radius_at(self.config.resolution_angstrom)

    @property
    def map_radius(self) -> int:
        """Fourier radius of the last maps and poses."""
        finest = self.config.resolution_angstrom * LAST_FINER
        return self.problem.grid.radius_at(finest)

    def loop(
        self,
        problem: Problem,
        noise: tuple[Tensor, ...],
        dims: int,
        finer: float,
        contrast: bool,
    ) -> SubspaceLoop:
        """Return a loop whose maps go farther than conformations, or as far."""
        resolution = self.config.resolution_angstrom
        radius = problem.grid.radius_at(resolution)
        map_radius = problem.grid.radius_at(resolution * finer)
        seed = self.config.seed
        config = SubspaceConfig(dims, radius, map_radius, seed, contrast)
        return SubspaceLoop.of(problem, noise, config, self.config.focus_mask)

    def learned(self) -> LearnedSubspace:
        """Return what the learning particles have taught, perhaps before."""
        kept = self.parts.kept(_LEARNED)
        if kept is None:
            learned = self.problem.world.of_first(self._found())
            self.parts.keep(_LEARNED, learned.to_state())
            return learned
        return LearnedSubspace.of_state(kept)

    def _found(self) -> LearnedSubspace:
        """Return the subspace of some of the particles."""
        config, problem = self.config, self.problem.of_rows(self.rows)
        poses, noise, consensus = self._consensus(problem)
        dims = config.tried_dims(len(problem.particles))
        loop = self.loop(problem, noise, dims, 1.0, config.contrast)
        state = loop.at_poses(
            loop.begun(poses),
            "first subspace",
            _FIRST_ITERATIONS,
            FIRST_INFLATION,
            self.monitor,
        )
        loop, state = self._with_contrast_if_it_varies(loop, state)
        if consensus is not None:
            loop, state = self._searched(loop, state, consensus)
        state = loop.in_principal_axes(state)
        assert state.subspace is not None
        gain = held_out_gain(loop, state.posterior.mode(), self.monitor)
        kept = gain.significant if config.dims is None else config.dims
        self.monitor.message(_gain_words(gain, kept))
        found = state.posterior.mode()
        return LearnedSubspace(
            state.subspace.first(kept),
            noise,
            gain,
            float(found.pose.shift_angstrom.square().mean().sqrt()),
        )

    def _consensus(
        self, problem: Problem
    ) -> tuple[Latents, tuple[Tensor, ...], Tensor | None]:
        """Return poses, noise, and the map of the poses if they were not given."""
        if self.config.poses == "given":
            # Of all particles: few of those that noise is measured on are here.
            return given_poses(problem.particles), initial_noise(self.problem), None
        config = self.config.abinitio(
            self.config.resolution_angstrom * _CONSENSUS_FINER
        )
        found = found_consensus(problem, config, self.parts, "conformations")
        return (
            found.poses,
            noise_of_all_groups(self.problem, self.rows, found.noise),
            found.density,
        )

    def _searched(
        self, loop: SubspaceLoop, state: SubspaceState, consensus: Tensor
    ) -> tuple[SubspaceLoop, SubspaceState]:
        """Return the subspace at poses that maps of several states have found."""
        state = loop.in_principal_axes(state)
        clusters = self._clusters(loop, state)
        if len(clusters.rows) > 1:
            config = self.config.abinitio(self.config.resolution_angstrom)
            maps = maps_of_clusters(
                loop.problem, clusters, consensus, config, self.parts
            )
            state = self._found_in(loop, maps, clusters.centre, "several states")
            # Wrong poses of a state had made its images weak.
            loop, state = self._with_contrast_if_it_varies(loop, state)
        return loop, self._settled(loop, state)

    def _with_contrast_if_it_varies(
        self, loop: SubspaceLoop, state: SubspaceState
    ) -> tuple[SubspaceLoop, SubspaceState]:
        """Go on without the contrast of particles that are all equally strong."""
        assert state.subspace is not None
        if not loop.config.contrast:
            return loop, state
        spread = state.subspace.contrast_sd
        if spread >= _LEAST_CONTRAST_SD:
            self.monitor.message(f"contrast varies by {spread:.1%} between particles")
            return loop, state
        return loop.without_contrast(state)

    def _clusters(self, loop: SubspaceLoop, state: SubspaceState) -> Clusters:
        """Divide particles in equal units of the map.

        In units of z, components of noise would count for as much as any.
        """
        assert state.subspace is not None
        generator = torch.Generator().manual_seed(self.config.seed)
        size = state.subspace.relative_sizes
        clusters = Clusters.of(loop.z_of(state) * size, _STATES, generator)
        clusters = replace(clusters, centre=clusters.centre / size)
        return loop.problem.world.of_first(clusters)

    def _found_in(
        self, loop: SubspaceLoop, maps: Sequence[Tensor], centre: Tensor, name: str
    ) -> SubspaceState:
        """Return the subspace at poses that are found with maps of states."""
        what = f"search with maps of {name}"
        state = loop.searched_in(maps, centre, what, self.monitor)
        return loop.at_poses(
            state,
            f"subspace of {name}",
            _LATER_ITERATIONS,
            _LATER_INFLATION,
            self.monitor,
        )

    def _in_common_frames(
        self, loop: SubspaceLoop, state: SubspaceState
    ) -> SubspaceState | None:
        """Return the subspace of states that are turned onto each other, if any is.

        Maps of clusters may be poor, and then lie in a wrong frame. Those of the
        subspace are of all particles, and tell of a better one.
        """
        state = loop.in_principal_axes(state)
        centre = self._clusters(loop, state).centre
        assert state.subspace is not None
        maps = state.subspace.maps
        shown = maps[0] + torch.einsum("sk,kzyx->szyx", centre.to(maps), maps[1:])
        length = loop.problem.grid.length_angstrom
        turned = in_common_frames(list(shown), length)
        turned = loop.problem.world.of_first(turned)
        if turned is None:
            return None
        self.monitor.message("a state was in another frame than the one nearest to it")
        return self._found_in(loop, turned, centre, "states in common frames")

    def _settled(self, loop: SubspaceLoop, state: SubspaceState) -> SubspaceState:
        """Alternate searches of all poses and the subspace until few poses change.

        A state whose map was poor has poses of several frames, and components that
        tell these apart; each search brings more of them into the frame that fits
        best. Which frame of another state's that is near to is looked at when the maps
        have become better, and at the end.
        """
        for number in range(1, _MOST_SEARCHES + 1):
            before = state.posterior.mode().pose.rotation
            name = f"search {number} in the subspace"
            state = loop.searched(state, name, self.monitor)
            name = f"subspace of search {number}"
            state = loop.at_poses(state, name, _SEARCHED_ITERATIONS, 1.0, self.monitor)
            after = state.posterior.mode().pose.rotation
            far = torch.rad2deg(geodesic_angle(after, before)) > _CHANGED_DEGREES
            share = loop.problem.world.of_first(float(far.double().mean()))
            self.monitor.message(
                f"search {number}: {share:.1%} of the poses changed by more than "
                f"{_CHANGED_DEGREES:.0f} degrees"
            )
            over = share < _FEW_CHANGES
            turned = None
            if number == 1 or over:
                turned = self._in_common_frames(loop, state)
            if turned is not None:
                state = turned
            elif over:
                break
        return state

    def maps_of(self, state: SubspaceState) -> ConformationMaps:
        """Return the maps of a state of all particles, and what is known of these."""
        assert state.subspace is not None
        return maps_of_subspace(
            state.subspace, state.posterior, self.low_radius, self.problem.device
        )

    def last(self, problem: Problem, learned: LearnedSubspace) -> SubspaceState:
        """Search particles in what was learned, and refine pose and z of each.

        Parameters
        ----------
        problem : Problem
            Of all particles, or of some.
        learned : LearnedSubspace

        Returns
        -------
        SubspaceState
            With a subspace of these particles, to the radius of the last maps.
        """
        varies = learned.subspace.contrast_sd > 0
        loop = self.loop(problem, learned.noise, learned.dims, LAST_FINER, varies)
        loop = replace(loop, checkpoints=self.parts)
        if self.config.poses == "given":
            state = loop.begun(given_poses(problem.particles))
            state = replace(state, subspace=learned.subspace, done=_FIRST_ITERATIONS)
            name = "subspace of all particles"
            state = loop.at_poses(state, name, 1, 1.0, self.monitor)
            state = loop.conformed(state, self.monitor)
            return loop.in_principal_axes(state)
        state = loop.begun(unknown_posterior(len(problem.particles)).mode())
        state = replace(state, subspace=learned.subspace, done=_FIRST_ITERATIONS)
        state = loop.searched(state, "search of all particles", self.monitor)
        state = loop.refined(state, self.monitor)
        return loop.in_principal_axes(state)

    def calibrated(
        self, state: SubspaceState, learned: LearnedSubspace
    ) -> CalibratedSearch:
        """Try posteriors of the last state on images of its maps."""
        assert state.subspace is not None
        varies = state.subspace.contrast_sd > 0
        problem, dims = self.problem, learned.dims
        loop = self.loop(problem, learned.noise, dims, LAST_FINER, varies)
        sd = learned.shift_sd_angstrom
        found = calibrate_search(loop, state.subspace, sd, self.monitor)
        return problem.world.of_first(found)


def _gain_words(gain: HeldOutGain, kept: int) -> str:
    """Say what components are worth to images that they were not made of."""
    steps = zip(gain.step_nats, gain.step_se_nats, strict=True)
    said = ", ".join(f"{step:+.2f} ({error:.2f})" for step, error in steps)
    return (
        f"held-out images gain by each component in turn {said} nats a particle (se); "
        f"{kept} kept"
    )
