"""From particles to their conformations in a curved field of maps.

A linear subspace is found first, with poses unknown or given
(:mod:`cryoinfer.workflows.heterogeneity`). It teaches fields of one to three
dimensions, and the one is kept in which images that it was not made of are likeliest;
none if the subspace does as well. Then z of all particles is inferred in it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, state_of_this_version
from cryoinfer.inference.hermite import HermiteFeatures
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.field import Field, FieldGain
from cryoinfer.results.heterogeneity import Heterogeneity
from cryoinfer.workflows.conformation_result import ConformationMaps, on_voxels
from cryoinfer.workflows.field_evidence import ITERATIONS, held_out_evidence
from cryoinfer.workflows.field_loop import FieldLoop, FieldState
from cryoinfer.workflows.field_update import field_projector
from cryoinfer.workflows.heterogeneity import finished_conformations
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.learned_subspace import LearnedSubspace
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.subspace_learning import SubspaceLearning

_DEFAULTS = HeterogeneityConfig()

_FIELD = "field"

_DEGREES = {1: 3, 2: 3, 3: 2}
"""Of the polynomials, by the number of dimensions: 4, 10 and 10 maps.

Of 5,000 images of a domain that turns by 150 degrees (benchmarks, section 28) held-out
images gained -0.12, +0.98 and +0.70 nats over four components; degree 5 in one -0.15,
degree 4 in two +1.12 with 15 maps.
"""

MOST_MAPS = max(len(HermiteFeatures(dims, _DEGREES[dims])) for dims in _DEGREES)
"""Of a field that is tried, which decides the memory that it needs."""


@dataclass(frozen=True)
class LearnedField:
    """What the learning particles have taught of fields.

    Attributes
    ----------
    gain : FieldGain
    field : Field or None
        None if no field says more than the subspace.
    """

    gain: FieldGain
    field: Field | None

    def to_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        field = None if self.field is None else self.field.to_state()
        return {"gain": asdict(self.gain), "field": field}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Invert :meth:`to_state`."""
        with state_of_this_version():
            field = state["field"]
            gain = FieldGain(**state["gain"])
            return cls(gain, None if field is None else Field.of_state(field))


def require_field_dims(config: HeterogeneityConfig) -> None:
    """Refuse fields of more dimensions than are tried.

    Raises
    ------
    InputError
    """
    if config.dims is not None and config.dims not in _DEGREES:
        raise InputError(
            f"a field has 1 to {len(_DEGREES)} dimensions, found {config.dims}: choose "
            "fewer with --dims, leave them open, or take --model subspace"
        )


def field_heterogeneity(
    particles: Particles,
    config: HeterogeneityConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
) -> Heterogeneity:
    """Find a curved field of maps, and pose and z of every particle.

    Parameters
    ----------
    particles : Particles
        As of :func:`cryoinfer.workflows.heterogeneity.heterogeneity`.
    config : HeterogeneityConfig, optional
        With ``dims``, the field has so many dimensions.
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.

    Returns
    -------
    Heterogeneity
        With the field; without one, and of the subspace, where the subspace says as
        much of held-out images. Components are the maps of z itself, to first order.

    Raises
    ------
    InputError
        If the particles, or what was chosen, cannot be used.
    NothingFoundError
        If they show no structure.
    """
    require_field_dims(config)
    config = replace(config, contrast=False)
    learning = SubspaceLearning.begun(particles, config, monitor)
    learned = learning.learned()
    linear = learning.last(learning.problem, learned)
    subspace = learning.maps_of(linear)
    if not learned.dims:
        return finished_conformations(learning, learned, subspace)
    fields = FieldLearning(learning, learned.noise)
    taught = fields.learned(learned, linear.posterior)
    if taught.field is None:
        found = finished_conformations(learning, learned, subspace)
        return replace(found, field_gain=taught.gain)
    state = fields.last(taught.field, linear.posterior)
    maps = tuple(state.field.maps[: 1 + state.field.features.dims])
    low = field_projector(state.field, learning.low_radius)
    found = finished_conformations(
        learning, learned, ConformationMaps(maps, low, state.posterior)
    )
    box = found.reconstruction.density.shape[-1]
    shown = state.field.on_voxels(lambda one: on_voxels(one, box))
    return replace(found, field=shown, field_gain=taught.gain)


@dataclass(frozen=True)
class FieldLearning:
    """What stays the same while a field is learned.

    Attributes
    ----------
    learning : SubspaceLearning
        Of the subspace that teaches it.
    noise : tuple of Tensor
    """

    learning: SubspaceLearning
    noise: tuple[Tensor, ...]

    def learned(
        self, learned: LearnedSubspace, posterior: ParticlePosterior
    ) -> LearnedField:
        """Return what the learning particles have taught, perhaps before.

        Parameters
        ----------
        learned : LearnedSubspace
            Of one component or more.
        posterior : ParticlePosterior
            Of all particles, in the subspace.
        """
        parts = self.learning.parts
        kept = parts.kept(_FIELD)
        if kept is None:
            found = self._found(learned, posterior[self.learning.rows])
            parts.keep(_FIELD, found.to_state())
            return found
        return LearnedField.of_state(kept)

    def _found(
        self, learned: LearnedSubspace, posterior: ParticlePosterior
    ) -> LearnedField:
        monitor, low = self.learning.monitor, self.learning.low_radius
        problem = self.learning.problem.of_rows(self.learning.rows)
        chosen, dims = self.learning.config.dims, learned.dims
        tried = [
            HermiteFeatures(count, degree)
            for count, degree in _DEGREES.items()
            if (count == chosen if chosen is not None else count <= dims)
        ]
        evidence = []
        for features in (HermiteFeatures(dims, 1), *tried):
            loop = self._loop(problem, features, low)
            name = f"field of degree {features.degree} in {features.dims} dimensions"
            evidence.append(held_out_evidence(loop, posterior, name, monitor))
        gain = FieldGain.of(tried, evidence)
        monitor.message(gain_words(gain))
        if gain.best is None:
            return LearnedField(gain, None)
        loop = self._loop(problem, tried[gain.best], low)
        state = loop.taught(posterior, "field", monitor)
        state = loop.iterated(state, ITERATIONS, "field", monitor)
        return LearnedField(gain, state.field)

    def _loop(
        self, problem: Problem, features: HermiteFeatures, map_radius: int
    ) -> FieldLoop:
        low = self.learning.low_radius
        return FieldLoop.of(problem, self.noise, features, low, map_radius)

    def last(self, field: Field, posterior: ParticlePosterior) -> FieldState:
        """Infer all particles in a field, and refine pose and z of each.

        Parameters
        ----------
        field : Field
        posterior : ParticlePosterior
            Of all particles, in the subspace.

        Returns
        -------
        FieldState
            With a field of these particles, to the radius of the last maps.
        """
        learning, monitor = self.learning, self.learning.monitor
        loop = self._loop(learning.problem, field.features, learning.map_radius)
        loop = replace(loop, checkpoints=learning.parts)
        state = loop.begun(posterior, field)
        state = loop.iterated(state, 1, "field of all particles", monitor)
        state = loop.conformed(state, monitor)
        if learning.config.poses == "unknown":
            state = loop.refined(state, monitor)
        return loop.in_principal_axes(state)


def gain_words(gain: FieldGain) -> str:
    """Say what fields are worth to images that they were not made of."""
    each = zip(gain.dims, gain.degrees, gain.mean_nats, gain.se_nats, strict=True)
    said = ", ".join(
        f"{mean:+.2f} ({se:.2f}) by one of degree {degree} in z of {dims}"
        for dims, degree, mean, se in each
    )
    verdict = "none says more than the subspace, which is kept"
    if gain.best is not None:
        verdict = f"that of {gain.dims[gain.best]} is kept"
    return (
        "held-out images gain over the subspace, in nats a particle (se), "
        f"{said}: {verdict}"
    )
