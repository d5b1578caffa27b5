"""From particles to their conformations, with poses unknown or given.

A consensus map by ab initio; a rough subspace at its poses; maps of the states that the
particles form in it, each from nothing (:mod:`cryoinfer.workflows.state_maps`); all
poses searched again with these maps; the subspace from there; and one pass over all
particles, however many, with what some of them have taught.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import NothingFoundError, state_of_this_version
from cryoinfer.evaluation.conformation_checks import predicted_share, rigid_share
from cryoinfer.evaluation.rigid_search import resampled
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.records import Latents
from cryoinfer.results.heterogeneity import HeldOutGain, Heterogeneity
from cryoinfer.workflows.abinitio import abinitio
from cryoinfer.workflows.heterogeneity_config import (
    HeterogeneityConfig,
    require_enough,
)
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.iteration import unknown_posterior
from cryoinfer.workflows.postprocess import reconstruct_sums
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.reconstruct import given_poses, insert_all
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.workflows.state_maps import Clusters, maps_of_clusters
from cryoinfer.workflows.subspace_evidence import held_out_gain
from cryoinfer.workflows.subspace_loop import (
    FIRST_INFLATION,
    SubspaceConfig,
    SubspaceLoop,
    SubspaceState,
)
from cryoinfer.workflows.subspace_update import Subspace

_CONSENSUS, _LEARNED = "consensus", "subspace"

_STATES = 4
_FIRST_ITERATIONS, _LATER_ITERATIONS = 12, 6
_LATER_INFLATION = 3.0
_CONSENSUS_FINER, _LAST_FINER = 0.65, 0.45
"""Resolutions over that of the conformations: of the consensus, whose poses the first
subspace is at, and of the last maps and poses."""

_SOFT_EDGE = 2.0  # voxels of the mask


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
    return _Run.begun(particles, config, monitor).done()


@dataclass(frozen=True)
class _Learned:
    """What the learning particles have taught.

    Attributes
    ----------
    subspace : Subspace
        Of as many components as are kept.
    noise : tuple of Tensor
    gain : HeldOutGain
    z : Tensor of float64, shape (k, tried components)
        Of the learning particles.
    """

    subspace: Subspace
    noise: tuple[Tensor, ...]
    gain: HeldOutGain
    z: Tensor

    def to_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "subspace": dict(vars(self.subspace)),
            "noise": list(self.noise),
            "gain": asdict(self.gain),
            "z": self.z,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Invert :meth:`to_state`."""
        with state_of_this_version():
            return cls(
                Subspace(**state["subspace"]),
                tuple(state["noise"]),
                HeldOutGain(**state["gain"]),
                state["z"],
            )


@dataclass(frozen=True)
class _Run:
    """The parts of a run that stay the same.

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
    ) -> Self:
        """Return a run before its first stage; refuse what cannot work."""
        require_enough(len(particles), config)
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
        rows = drawn[: config.learning_particles].sort().values
        return cls(problem, rows, config, StageCheckpoints(monitor), monitor)

    def done(self) -> Heterogeneity:
        """Return what all particles show."""
        learned = self._kept_learned()
        dims = len(learned.subspace.maps) - 1
        state = self._of_all(learned)
        posterior = state.posterior
        assert state.subspace is not None
        poses = posterior.mode()
        source = StrictImages(
            self.problem.grid, self.problem.grid.box // 2 - 1, learned.noise
        )
        sums = insert_all(self.problem, source, poses, self.monitor)
        box = self.problem.grid.box
        maps = [_on_voxels(one, box) for one in state.subspace.maps]
        optics = self.problem.particles.optics
        defocus = (optics.defocus_u_angstrom + optics.defocus_v_angstrom) / 2
        pose = poses.pose
        return Heterogeneity(
            posterior,
            torch.stack(maps),
            reconstruct_sums(self.problem, sums),
            self.problem.half + 1,
            learned.gain,
            predicted_share(
                poses.conformation, pose.rotation, pose.shift_angstrom, defocus
            )
            if dims
            else (),
            rigid_share(state.subspace.maps) if dims else (),
        )

    def _loop(
        self, problem: Problem, noise: tuple[Tensor, ...], dims: int, finer: float
    ) -> SubspaceLoop:
        """Return a loop whose maps go farther than conformations, or as far."""
        last = problem.grid.box // 2 - 1
        resolution = self.config.resolution_angstrom
        radius = min(last, problem.grid.radius_at(resolution))
        map_radius = min(last, problem.grid.radius_at(resolution * finer))
        prior = replace(problem.prior, conformation_sd_angstrom=(1.0,) * dims)
        box = problem.map_box(map_radius)
        voxel = problem.grid.length_angstrom / box
        mask = soft_sphere(box, problem.particle_radius_angstrom / voxel, _SOFT_EDGE)
        config = SubspaceConfig(dims, radius, map_radius, self.config.seed)
        return SubspaceLoop(replace(problem, prior=prior), noise, mask, config)

    def _kept_learned(self) -> _Learned:
        """Return what the learning particles have taught, perhaps before."""
        kept = self.parts.kept(_LEARNED)
        if kept is None:
            learned = self._learned()
            self.parts.keep(_LEARNED, learned.to_state())
            return learned
        return _Learned.of_state(kept)

    def _learned(self) -> _Learned:
        """Return the subspace of some of the particles."""
        config, problem = self.config, self.problem.of_rows(self.rows)
        poses, noise, consensus = self._consensus(problem)
        loop = self._loop(
            problem, noise, config.tried_dims(len(problem.particles)), 1.0
        )
        state = loop.at_poses(
            loop.begun(poses),
            "first subspace",
            _FIRST_ITERATIONS,
            FIRST_INFLATION,
            self.monitor,
        )
        if consensus is not None:
            state = self._searched(loop, state, consensus)
        state = loop.in_principal_axes(state)
        assert state.subspace is not None
        gain = held_out_gain(loop, state.posterior.mode(), self.monitor)
        kept = gain.significant if config.dims is None else config.dims
        self.monitor.message(_gain_words(gain, kept))
        z = state.posterior.mode().conformation
        return _Learned(state.subspace.first(kept), noise, gain, z)

    def _consensus(
        self, problem: Problem
    ) -> tuple[Latents, tuple[Tensor, ...], Tensor | None]:
        """Return poses, noise, and the map of the poses if they were not given."""
        if self.config.poses == "given":
            # Of all particles: few of those that noise is measured on are here.
            return given_poses(problem.particles), initial_noise(self.problem), None
        kept = self.parts.kept(_CONSENSUS)
        if kept is None or "poses" not in kept:
            found = abinitio(
                problem.particles,
                self.config.abinitio(
                    self.config.resolution_angstrom * _CONSENSUS_FINER
                ),
                self.parts.monitor(_CONSENSUS),
            )
            evidence = found.reconstruction.evidence
            if evidence is not None and not evidence.is_structure:
                raise NothingFoundError(
                    "no structure was found in these particles: there is nothing that "
                    "could have conformations. See what `cryoinfer abinitio` says"
                )
            kept = {
                "poses": found.latents.to_state(),
                "noise": list(self._of_all_groups(found.noise_power)),
                "map": found.reconstruction.density,
            }
            self.parts.keep(_CONSENSUS, kept)
        return Latents.of_state(kept["poses"]), tuple(kept["noise"]), kept["map"]

    def _of_all_groups(self, noise: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the noise of all groups: nothing may be learned from some."""
        group = self.problem.particles.optics.group
        known = set(group[self.rows].tolist())
        if len(known) == int(group.max()) + 1:
            return noise
        first = initial_noise(self.problem)
        return tuple(
            noise[number] if number in known else one
            for number, one in enumerate(first)
        )

    def _searched(
        self, loop: SubspaceLoop, state: SubspaceState, consensus: Tensor
    ) -> SubspaceState:
        """Return the subspace at poses that maps of several states have found."""
        generator = torch.Generator().manual_seed(self.config.seed)
        z = state.posterior.mode().conformation
        clusters = Clusters.of(z, _STATES, generator)
        if len(clusters.rows) > 1:
            config = self.config.abinitio(self.config.resolution_angstrom)
            maps = maps_of_clusters(
                loop.problem, clusters, consensus, config, self.parts
            )
            name = "search with maps of several states"
            state = loop.searched_in(maps, clusters.centre, name, self.monitor)
            state = loop.at_poses(
                state,
                "subspace of the states",
                _LATER_ITERATIONS,
                _LATER_INFLATION,
                self.monitor,
            )
        state = loop.searched(state, "search in the subspace", self.monitor)
        return loop.at_poses(
            state, "last subspace", _LATER_ITERATIONS // 2, 1.0, self.monitor
        )

    def _of_all(self, learned: _Learned) -> SubspaceState:
        """Return pose and z of all particles, and the subspace of all of them."""
        problem, dims = self.problem, len(learned.subspace.maps) - 1
        loop = self._loop(problem, learned.noise, dims, _LAST_FINER)
        loop = replace(loop, checkpoints=self.parts)
        if self.config.poses == "given":
            state = loop.begun(given_poses(problem.particles))
            state = replace(state, subspace=learned.subspace, done=_FIRST_ITERATIONS)
            state = loop.at_poses(
                state, "subspace of all particles", 1, 1.0, self.monitor
            )
            state = loop.conformed(state, self.monitor)
            return loop.in_principal_axes(state)
        state = loop.begun(unknown_posterior(len(problem.particles)).mode())
        state = replace(state, subspace=learned.subspace, done=_FIRST_ITERATIONS)
        known = learned.z[:, :dims]
        state = loop.searched(state, "search of all particles", self.monitor, known)
        state = loop.refined(state, self.monitor)
        return loop.in_principal_axes(state)


def _gain_words(gain: HeldOutGain, kept: int) -> str:
    """Say what components are worth to images that they were not made of."""
    steps = zip(gain.step_nats, gain.step_se_nats, strict=True)
    said = ", ".join(f"{step:+.2f} ({error:.2f})" for step, error in steps)
    return (
        f"held-out images gain by each component in turn {said} nats a particle (se); "
        f"{kept} kept"
    )


def _on_voxels(density: Tensor, box: int) -> Tensor:
    """Return a map on the voxels of the particles.

    A Fourier coefficient that maps of another box hold is theirs times the square of
    the ratio of the boxes, by the convention of slices.
    """
    return (resampled(density, box) * (density.shape[-1] / box) ** 2).float()
