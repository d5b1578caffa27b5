"""A linear subspace of maps, and the conformation z of every particle in it.

Probabilistic principal component analysis of maps, from random z: images are inferred
in the subspace as it is (E-step), and mean and components solved for from all of them
(M-step). Noise that is overstated at first keeps posteriors wide until there is
something to see. All poses can be searched again, with maps of several conformations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.evaluation.rigid_search import resampled
from cryoinfer.inference.conformation_search import ConformationSearch
from cryoinfer.inference.linear_conformation import LinearConformation
from cryoinfer.inference.local_refinement import reach_radian
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import (
    GivenPoses,
    LocalRefinement,
    PoseInference,
)
from cryoinfer.inference.search import SearchPlan
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.inference.subspace_search import SubspaceSearch
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.iteration import unknown_posterior
from cryoinfer.workflows.particle_contrast import without_contrast
from cryoinfer.workflows.particle_pass import InferredBatch, ParticlePass, run_pass
from cryoinfer.workflows.principal_axes import principal_axes, turned_conformations
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.search_plan import global_search_plan
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.workflows.structure_update import particle_sphere, reference_volume
from cryoinfer.workflows.subspace_update import (
    Subspace,
    SubspaceSums,
    solve_subspace,
)

FIRST_INFLATION = 8.0
"""Of the noise, while nothing is known of the subspace."""

_COOLING = 0.6  # factor of the inflation from one iteration to the next

_FIRST_SNR, _GROWING = 30.0, 4
"""Signal over noise of components before their halves are asked, and for so long."""

_FIRST_CONTRAST_SD = 0.1

SEARCHED_MODES = 3
"""Of each particle, that are kept."""

_STEPS = 4


@dataclass(frozen=True)
class SubspaceConfig:
    """How a subspace is found.

    Attributes
    ----------
    dims : int
        Components, at least 1.
    radius : int
        Fourier radius that conformations are inferred and poses searched at.
    map_radius : int
        That of the maps, at least as large: poses are refined at it.
    seed : int
    contrast : bool
        Whether that of every particle is inferred with z.
    """

    dims: int
    radius: int
    map_radius: int
    seed: int = 0
    contrast: bool = False

    @property
    def unknowns(self) -> int:
        """Numbers that the conformation of a particle has in inference."""
        return self.dims + self.contrast


@dataclass(frozen=True)
class SubspaceState:
    """What one iteration hands to the next.

    Attributes
    ----------
    posterior : ParticlePosterior
        Of pose, shift and z of all particles, best modes first.
    subspace : Subspace or None
        None before the first iteration.
    done : int
        Iterations.
    """

    posterior: ParticlePosterior
    subspace: Subspace | None = None
    done: int = 0


@dataclass(frozen=True)
class SubspaceLoop:
    """What stays the same through all iterations.

    Attributes
    ----------
    problem : Problem
        Its prior has a spread of one for each component.
    noise : tuple of Tensor
        Noise power per optics group and ring.
    mask : Tensor, shape (1 + q, m, m, m)
        Of the mean and the components.
    config : SubspaceConfig
    checkpoints : StageCheckpoints, optional
        Keep long passes, by the names of their stages, each of which comes once.
    """

    problem: Problem
    noise: tuple[Tensor, ...]
    mask: Tensor
    config: SubspaceConfig
    checkpoints: StageCheckpoints | None = None

    @classmethod
    def of(
        cls,
        problem: Problem,
        noise: tuple[Tensor, ...],
        config: SubspaceConfig,
        focus_mask: Tensor | None = None,
    ) -> Self:
        """Return the loop whose z has unit spread, and whose maps a sphere masks.

        A focus mask (n, n, n), from 0 to 1, masks the components as well.
        """
        box = problem.map_box(config.map_radius)
        sphere = particle_sphere(problem, box)
        of_component = sphere
        if focus_mask is not None:
            of_component = sphere * resampled(focus_mask, box).clamp(0, 1).to(sphere)
        mask = torch.stack([sphere, *(of_component for _ in range(config.dims))])
        return cls(problem.of_dims(config.unknowns), noise, mask, config)

    def begun(self, poses: Latents) -> SubspaceState:
        """Return the state before the first iteration: random z at given poses."""
        generator = torch.Generator().manual_seed(self.config.seed)
        z = torch.randn(len(poses), self.config.dims, generator=generator).double()
        start = Latents(poses.pose, poses.defocus_offset_angstrom, self._usual(z))
        return SubspaceState(ParticlePosterior.at(start, SEARCHED_MODES))

    def _usual(self, z: Tensor) -> Tensor:
        """Return z with the usual contrast before it, where that is modelled."""
        return torch.cat([z.new_zeros(len(z), self.config.unknowns - z.shape[1]), z], 1)

    def at_poses(
        self,
        state: SubspaceState,
        name: str,
        iterations: int,
        inflation: float,
        monitor: Monitor,
    ) -> SubspaceState:
        """Alternate z and the subspace at the poses as they are.

        Parameters
        ----------
        state : SubspaceState
        name : str
            Of the stage.
        iterations : int
        inflation : float
            Of the noise in the first iteration; it falls to 1.
        monitor : Monitor
        """
        for number in range(iterations):
            now = max(1.0, inflation * _COOLING**number)
            state = self._iterated(state, name, GivenPoses(), now, monitor)
        return state

    def _iterated(
        self,
        state: SubspaceState,
        name: str,
        poses: PoseInference[SubspaceProjector],
        inflation: float,
        monitor: Monitor,
    ) -> SubspaceState:
        """Infer all particles in the subspace as it is, and solve for the next."""
        config = self.config
        box = self.problem.grid.box
        contrast_sd = 0.0 if state.subspace is None else state.subspace.contrast_sd
        sums = SubspaceSums.empty(
            config.dims, box, config.map_radius, self.problem.device, contrast_sd
        )
        inference: PoseInference[SubspaceProjector] = LinearConformation(
            poses, inflation
        )
        if state.subspace is None:
            inference = GivenPoses()
        radius = config.radius
        posterior = self._inferred(state, name, inference, radius, (sums,), monitor)
        snr = _FIRST_SNR if state.done < _GROWING else None
        subspace = solve_subspace(self.problem, sums, self.mask, snr)
        if state.subspace is None and config.contrast:
            subspace = replace(subspace, contrast_sd=_FIRST_CONTRAST_SD)
        elif inflation > 1:  # the posteriors are too wide to tell
            subspace = replace(subspace, contrast_sd=contrast_sd)
        subspace = self.problem.world.of_first(subspace)
        return SubspaceState(posterior, subspace, state.done + 1)

    def _inferred(
        self,
        state: SubspaceState,
        name: str,
        inference: PoseInference[SubspaceProjector],
        radius: int,
        accumulators: Sequence[SubspaceSums],
        monitor: Monitor,
    ) -> ParticlePosterior:
        blank = state.posterior
        # No image is compared with anything before the first iteration.
        shown: Any = state.subspace and state.subspace.projector(
            radius, self.problem.device
        )
        step = ParticlePass(
            name,
            StrictImages(self.problem.grid, self.config.map_radius, self.noise),
            (shown, shown),
            self.problem.prior,
            inference,
            _kept,
            accumulators,
            radius=radius,
        )
        kept = None if self.checkpoints is None else self.checkpoints.monitor(name)
        return run_pass(self.problem, step, state.posterior, blank, monitor, kept)

    def searched(
        self, state: SubspaceState, name: str, monitor: Monitor
    ) -> SubspaceState:
        """Search all poses in the subspace, and solve for it again.

        Parameters
        ----------
        state : SubspaceState
            Its posterior is not looked at.
        name : str
            Of the stage.
        monitor : Monitor
        """
        return self._iterated(state, name, self.search, 1.0, monitor)

    def found_in(
        self, subspace: Subspace, name: str, monitor: Monitor
    ) -> SubspaceState:
        """Search and refine pose and z of all particles in a subspace that stays.

        Parameters
        ----------
        subspace : Subspace
        name : str
            Of the stage.
        monitor : Monitor
        """
        state = self.begun(unknown_posterior(len(self.problem.particles)).mode())
        state = replace(state, subspace=subspace)
        inference = LinearConformation(self.search)
        radius = self.config.radius
        posterior = self._inferred(state, name, inference, radius, (), monitor)
        return self.refined(replace(state, posterior=posterior), monitor)

    def searched_in(
        self, maps: Sequence[Tensor], conformation: Tensor, name: str, monitor: Monitor
    ) -> SubspaceState:
        """Search all poses with maps of states, and take z from the map that wins.

        Parameters
        ----------
        maps : sequence of Tensor, each of shape (m, m, m)
        conformation : Tensor of float64, shape (len(maps), q)
            The z that each stands for.
        name : str
            Of the stage.
        monitor : Monitor
        """
        radius = self.config.radius
        there = (one.to(self.problem.device) for one in maps)
        volumes = tuple(reference_volume(one, radius) for one in there)
        search = ConformationSearch(
            self._usual(conformation),
            volumes,
            self._plan(),
            self.problem.max_shift_angstrom,
            SEARCHED_MODES,
        )
        # The random z is not looked at.
        state = self.begun(unknown_posterior(len(self.problem.particles)).mode())
        found = self._inferred(state, name, search, radius, (), monitor)
        return SubspaceState(found)

    def z_of(self, state: SubspaceState) -> Tensor:
        """Return z of all particles, times the contrast, float64, (n, q)."""
        known = state.posterior.mode().conformation
        return known[:, self.config.unknowns - self.config.dims :]

    def without_contrast(self, state: SubspaceState) -> tuple[Self, SubspaceState]:
        """Return loop and state of particles that are all equally strong."""
        assert state.subspace is not None
        plain = replace(self.config, contrast=False)
        loop = replace(self, config=plain, problem=self.problem.of_dims(plain.dims))
        posterior, _ = without_contrast(state.posterior, state.subspace.contrast_sd)
        subspace = replace(state.subspace, contrast_sd=0.0)
        return loop, replace(state, posterior=posterior, subspace=subspace)

    @property
    def search(self) -> SubspaceSearch:
        """The search of all poses, at the radius of conformations."""
        return SubspaceSearch(self._plan(), self.problem.max_shift_angstrom)

    @property
    def refinement(self) -> LocalRefinement:
        """The refinement of pose and z together, at the radius of the maps."""
        return LocalRefinement(_STEPS, reach_radian(self.config.map_radius))

    def _plan(self) -> SearchPlan:
        return global_search_plan(self.problem, self.config.radius)

    def in_principal_axes(self, state: SubspaceState) -> SubspaceState:
        """Make the components orthogonal, those that change the map most first.

        z has unit spread in all directions, which leaves them free to turn.
        """
        if not self.config.dims:
            return state
        assert state.subspace is not None
        maps = state.subspace.maps
        axes = principal_axes(maps[1:], self.z_of(state))
        axes = self.problem.world.of_first(axes)
        turned = torch.einsum("kzyx,kl->lzyx", maps[1:], axes.to(maps))
        subspace = replace(state.subspace, maps=torch.cat([maps[:1], turned]))
        if self.config.contrast:
            axes = torch.block_diag(axes.new_ones(1, 1), axes)
        posterior = turned_conformations(state.posterior, axes)
        return replace(state, posterior=posterior, subspace=subspace)

    def refined(self, state: SubspaceState, monitor: Monitor) -> SubspaceState:
        """Infer z of all modes in the subspace as it is, then the first with its pose.

        The posterior of the first mode is then of pose and z together.
        """
        state = self.conformed(state, monitor)
        radius, name = self.config.map_radius, "joint refinement of pose and z"
        posterior = self._inferred(state, name, self.refinement, radius, (), monitor)
        return replace(state, posterior=posterior)

    def conformed(self, state: SubspaceState, monitor: Monitor) -> SubspaceState:
        """Infer z of all modes in the subspace as it is, at the radius of the maps."""
        radius, name = self.config.map_radius, "conformations at the last poses"
        inference = LinearConformation(GivenPoses())
        posterior = self._inferred(state, name, inference, radius, (), monitor)
        return replace(state, posterior=posterior)


def _kept(one: InferredBatch[SubspaceProjector]) -> ParticlePosterior:
    return one.placed.best(SEARCHED_MODES).with_first_covariance()
