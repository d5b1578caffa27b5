"""From particles to their conformations: a linear subspace of maps, and z of each.

Probabilistic principal component analysis of maps, from random z: images are inferred
in the subspace as it is (E-step), and mean and components solved for from all of them
(M-step). Noise that is overstated at first keeps posteriors wide until there is
something to see. Then all poses are searched again, with maps of several conformations:
the poses of one consensus map are wrong for a state that it does not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from cryoinfer.inference.conformation_search import ConformationSearch
from cryoinfer.inference.linear_conformation import LinearConformation
from cryoinfer.inference.local_refinement import reach_radian
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import (
    GivenPoses,
    LocalRefinement,
    PoseInference,
)
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.iteration import initial_search_plan
from cryoinfer.workflows.particle_pass import InferredBatch, ParticlePass, run_pass
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.subspace_update import (
    Subspace,
    SubspaceSums,
    solve_subspace,
)

_FIRST_INFLATION, _COOLING = 8.0, 0.6
"""Of the noise in the first iteration, and its factor from one to the next."""

_FIRST_SNR, _GROWING = 30.0, 4
"""Signal over noise of components before their halves are asked, and for so long."""

_SEARCHED_MAPS = 5
_SEARCHED_MODES = 3
_STEPS = 4


@dataclass(frozen=True)
class SubspaceConfig:
    """How a subspace is found.

    Attributes
    ----------
    dims : int
        Components, at least 1.
    radius : int
        Fourier radius of images and components.
    iterations : int
        At the poses that are known; a third as many follow each search.
    searches : int
        Of all poses with maps of several conformations.
    seed : int
    """

    dims: int
    radius: int
    iterations: int = 15
    searches: int = 2
    seed: int = 0


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
    mask : Tensor, shape (m, m, m)
        Of the maps.
    config : SubspaceConfig
    """

    problem: Problem
    noise: tuple[Tensor, ...]
    mask: Tensor
    config: SubspaceConfig

    def begun(self, poses: Latents) -> SubspaceState:
        """Return the state before the first iteration: random z at given poses."""
        generator = torch.Generator().manual_seed(self.config.seed)
        z = torch.randn(len(poses), self.config.dims, generator=generator).double()
        start = Latents(poses.pose, poses.defocus_offset_angstrom, z)
        return SubspaceState(ParticlePosterior.at(start, _SEARCHED_MODES))

    def found(self, poses: Latents, monitor: Monitor) -> SubspaceState:
        """Return the subspace that the particles show.

        Parameters
        ----------
        poses : Latents
            Of all particles; their conformation is not looked at.
        monitor : Monitor
        """
        config, state = self.config, self.begun(poses)
        known = GivenPoses()
        for number in range(config.iterations):
            inflation = max(1.0, _FIRST_INFLATION * _COOLING**number)
            name = f"subspace {number + 1}"
            state = self._iterated(state, name, known, inflation, monitor)
        for search in range(config.searches):
            state = self._searched(state, f"search {search + 1}", monitor)
            for number in range(config.iterations // 3):
                name = f"subspace after search {search + 1}, {number + 1}"
                state = self._iterated(state, name, known, 1.0, monitor)
        state = self._in_principal_axes(state)
        return self._refined(state, monitor)

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
        sums = SubspaceSums.empty(config.dims, self.problem.grid.box, config.radius)
        inference: PoseInference[SubspaceProjector] = LinearConformation(
            poses, inflation
        )
        if state.subspace is None:
            inference = GivenPoses()
        posterior = self._inferred(state, name, inference, (sums,), monitor)
        snr = _FIRST_SNR if state.done < _GROWING else None
        subspace = solve_subspace(self.problem, sums, self.mask, snr)
        return SubspaceState(posterior, subspace, state.done + 1)

    def _inferred(
        self,
        state: SubspaceState,
        name: str,
        inference: PoseInference[SubspaceProjector],
        accumulators: Sequence[SubspaceSums],
        monitor: Monitor,
    ) -> ParticlePosterior:
        radius, blank = self.config.radius, state.posterior
        # No image is compared with anything before the first iteration.
        shown: Any = state.subspace and state.subspace.projector(radius)
        step = ParticlePass(
            name,
            StrictImages(self.problem.grid, radius, self.noise),
            (shown, shown),
            self.problem.prior,
            inference,
            _kept,
            accumulators,
        )
        return run_pass(self.problem, step, state.posterior, blank, monitor)

    def _searched(
        self, state: SubspaceState, name: str, monitor: Monitor
    ) -> SubspaceState:
        """Search all poses with maps of several conformations."""
        assert state.subspace is not None
        problem, radius = self.problem, self.config.radius
        projector = state.subspace.projector(radius)
        z = state.posterior.mode().conformation
        centres, _ = kmeans2(z.numpy(), _SEARCHED_MAPS, seed=0, minit="++")
        conformation = torch.from_numpy(centres)
        step = problem.grid.resolution_at(radius) / 3
        shift_step = step if problem.max_shift_angstrom > 0 else 0.0
        search = ConformationSearch(
            conformation,
            tuple(projector.at(one).volume for one in conformation),
            initial_search_plan(radius, shift_step, problem.symmetry_rotation),
            problem.max_shift_angstrom,
            _SEARCHED_MODES,
        )
        return self._iterated(state, name, search, 1.0, monitor)

    def _in_principal_axes(self, state: SubspaceState) -> SubspaceState:
        """Turn the components to the axes of how particles spread, the widest first."""
        assert state.subspace is not None
        posterior, maps = state.posterior, state.subspace.maps
        z = posterior.mode().conformation
        axes = torch.linalg.eigh(torch.cov(z.T).view(z.shape[1], -1)).eigenvectors
        axes = axes.flip(1)
        # A sign that does not depend on the machine: the longer tail is positive.
        skew = ((z @ axes) ** 3).mean(0)
        axes = axes * torch.where(skew < 0, -1.0, 1.0)
        turned = torch.einsum("kzyx,kl->lzyx", maps[1:], axes.to(maps))
        whole = torch.eye(6 + len(axes), dtype=torch.float64)
        whole[6:, 6:] = axes
        modes = replace(
            posterior.modes, conformation=posterior.modes.conformation @ axes
        )
        posterior = replace(
            posterior, modes=modes, covariance=whole.mT @ posterior.covariance @ whole
        )
        subspace = replace(state.subspace, maps=torch.cat([maps[:1], turned]))
        return replace(state, posterior=posterior, subspace=subspace)

    def _refined(self, state: SubspaceState, monitor: Monitor) -> SubspaceState:
        """Refine pose and z together, whose posterior is then of both."""
        refinement = LocalRefinement(_STEPS, reach_radian(self.config.radius))
        posterior = self._inferred(
            state, "joint refinement of pose and z", refinement, (), monitor
        )
        return replace(state, posterior=posterior)


def _kept(one: InferredBatch[SubspaceProjector]) -> ParticlePosterior:
    return one.placed.best(_SEARCHED_MODES).with_first_covariance()
