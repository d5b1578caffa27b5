"""A curved field of maps, taught by a linear subspace, and z of every particle in it.

The first field is that of least squares at the z of the subspace. Then z of all
particles is inferred in the field (E-step), and the field solved for again (M-step).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.inference.field_conformation import FieldConformation
from cryoinfer.inference.field_projector import FieldProjector
from cryoinfer.inference.hermite import HermiteFeatures
from cryoinfer.inference.local_refinement import reach_radian
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import (
    GivenPoses,
    LocalRefinement,
    PoseInference,
)
from cryoinfer.interfaces import Monitor
from cryoinfer.results.field import Field
from cryoinfer.workflows.field_update import FieldSums, field_projector, solve_field
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_pass import InferredBatch, ParticlePass, run_pass
from cryoinfer.workflows.principal_axes import principal_axes, turned_conformations
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.workflows.structure_update import particle_sphere

_STEPS = 4


@dataclass(frozen=True)
class FieldState:
    """What one iteration hands to the next.

    Attributes
    ----------
    posterior : ParticlePosterior
        Of pose, shift and z of all particles, best modes first.
    field : Field
    """

    posterior: ParticlePosterior
    field: Field


@dataclass(frozen=True)
class FieldLoop:
    """What stays the same through all iterations.

    Attributes
    ----------
    problem : Problem
        Its prior has a spread of one for each dimension of z.
    noise : tuple of Tensor
        Noise power per optics group and ring.
    mask : Tensor, shape (m, m, m)
        Of the maps.
    features : HermiteFeatures
    radius, map_radius : int
        Fourier radii that conformations are inferred at, and that maps reach.
    checkpoints : StageCheckpoints, optional
        Keep long passes, by the names of their stages, each of which comes once.
    """

    problem: Problem
    noise: tuple[Tensor, ...]
    mask: Tensor
    features: HermiteFeatures
    radius: int
    map_radius: int
    checkpoints: StageCheckpoints | None = None

    @classmethod
    def of(
        cls,
        problem: Problem,
        noise: tuple[Tensor, ...],
        features: HermiteFeatures,
        radius: int,
        map_radius: int,
    ) -> Self:
        """Return the loop whose z has unit spread, and whose maps a sphere masks."""
        mask = particle_sphere(problem, problem.map_box(map_radius))
        own = problem.of_dims(features.dims)
        return cls(own, noise, mask, features, radius, map_radius)

    def taught(
        self, posterior: ParticlePosterior, name: str, monitor: Monitor
    ) -> FieldState:
        """Return the field of least squares at the z of a subspace.

        Parameters
        ----------
        posterior : ParticlePosterior
            Of pose and z in a subspace of at least as many components, the first of
            which the field begins with.
        name : str
            Of the stage.
        monitor : Monitor
        """
        start = first_dimensions(posterior, self.features.dims)
        return self._iterated(start, None, GivenPoses(), name, monitor)

    def begun(self, posterior: ParticlePosterior, field: Field) -> FieldState:
        """Return the state of particles that a field is to meet for the first time.

        Parameters
        ----------
        posterior : ParticlePosterior
            As of :meth:`taught`; z is not looked at.
        field : Field
        """
        return FieldState(first_dimensions(posterior, self.features.dims), field)

    def iterated(
        self, state: FieldState, iterations: int, name: str, monitor: Monitor
    ) -> FieldState:
        """Alternate z and the field at the poses as they are."""
        for _ in range(iterations):
            inference = FieldConformation(GivenPoses())
            state = self._iterated(
                state.posterior, state.field, inference, name, monitor
            )
        return state

    def conformed(self, state: FieldState, monitor: Monitor) -> FieldState:
        """Infer z of all modes in the field as it is, at the radius of the maps."""
        name, inference = "conformations in the field", FieldConformation(GivenPoses())
        return self._at_last_radius(state, inference, name, monitor)

    def refined(self, state: FieldState, monitor: Monitor) -> FieldState:
        """Refine pose and z of the first modes together, at the radius of the maps."""
        name = "joint refinement of pose and z in the field"
        inference = LocalRefinement(_STEPS, reach_radian(self.map_radius))
        return self._at_last_radius(state, inference, name, monitor)

    def in_principal_axes(self, state: FieldState) -> FieldState:
        """Turn z so that the maps of z itself are orthogonal, the largest first."""
        linear = state.field.maps[1 : 1 + self.features.dims]
        z = state.posterior.mode().conformation
        axes = principal_axes(linear, z)
        still = torch.zeros_like(axes[0])
        posterior = turned_conformations(state.posterior, axes)
        return FieldState(posterior, state.field.moved(still, axes))

    def _at_last_radius(
        self,
        state: FieldState,
        inference: PoseInference[FieldProjector],
        name: str,
        monitor: Monitor,
    ) -> FieldState:
        projector = field_projector(state.field, self.map_radius)
        step = self._pass(name, projector, inference, self.map_radius, ())
        return replace(state, posterior=self._run(step, state.posterior, monitor))

    def _iterated(
        self,
        posterior: ParticlePosterior,
        field: Field | None,
        inference: PoseInference[FieldProjector],
        name: str,
        monitor: Monitor,
    ) -> FieldState:
        sums = FieldSums.empty(self.features, self.problem.grid.box, self.map_radius)
        # No image is compared with anything before there is a field.
        shown: Any = field and field_projector(field, self.radius)
        step = self._pass(name, shown, inference, self.radius, (sums,))
        found = self._run(step, posterior, monitor)
        return FieldState(found, solve_field(self.problem, sums, self.mask))

    def _pass(
        self,
        name: str,
        shown: FieldProjector,
        inference: PoseInference[FieldProjector],
        radius: int,
        accumulators: Sequence[FieldSums],
    ) -> ParticlePass[FieldProjector, ParticlePosterior]:
        return ParticlePass(
            name,
            StrictImages(self.problem.grid, self.map_radius, self.noise),
            (shown, shown),
            self.problem.prior,
            inference,
            _kept,
            accumulators,
            radius=radius,
        )

    def _run(
        self,
        step: ParticlePass[FieldProjector, ParticlePosterior],
        known: ParticlePosterior,
        monitor: Monitor,
    ) -> ParticlePosterior:
        kept = None
        if self.checkpoints is not None:
            kept = self.checkpoints.monitor(step.name)
        return run_pass(self.problem, step, known, known, monitor, kept)


def first_dimensions(posterior: ParticlePosterior, dims: int) -> ParticlePosterior:
    """Return posteriors that know the first dimensions of z alone."""
    modes, last = posterior.modes, 6 + dims
    return ParticlePosterior.of_modes(
        replace(modes, conformation=modes.conformation[..., :dims]),
        posterior.weight,
        posterior.covariance[..., :last, :last],
        posterior.log_likelihood,
    )


def _kept(one: InferredBatch[FieldProjector]) -> ParticlePosterior:
    # Modes without weight are not looked at, and come back: all rows are as wide.
    modes = one.known.weight.shape[1]
    return one.placed.best(modes).with_first_covariance()
