"""K maps and the class of every particle, alternated.

Images of one half-set are compared with maps of the *other* one: a map that an image is
in holds some of its noise, and would keep the image whatever it shows. So classes are
judged by evidence that is held out, and so is their number.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.inference.class_maps import ClassMaps, InEveryClass, ScoredPoses
from cryoinfer.inference.local_refinement import reach_radian
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.pose_inference import (
    GivenPoses,
    LocalRefinement,
    PoseInference,
)
from cryoinfer.inference.pose_search import GlobalSearch
from cryoinfer.inference.prior import PosePrior
from cryoinfer.interfaces import Monitor
from cryoinfer.results.classes import maximum_populations
from cryoinfer.workflows.class_state import (
    ClassRecord,
    ClassState,
    ClassSums,
    reseeded,
)
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.iteration import noise_of_residuals
from cryoinfer.workflows.particle_pass import ParticlePass, run_pass
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.search_plan import global_search_plan
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.workflows.structure_update import MapUpdate

_STEPS = 4  # of local refinement

_FEW = 0.01
"""Share of the particles that change their class in the last of iterations."""

_LEAST_SHARE = 1e-9  # of a class that nothing is in yet

FEWEST_IN_CLASS = 20
"""Particles of a class: with fewer its half-maps say nothing, and it is begun anew."""

InferenceOf = Callable[[], PoseInference[MapProjector]]


@dataclass(frozen=True)
class ClassLoop:
    """What stays the same through all iterations.

    Attributes
    ----------
    problem : Problem
    radius : int
        Fourier radius that classes and poses are inferred at, and of the maps.
    searches : bool
        Whether poses are unknown.
    wanted : int
        Classes that there are to be at least: a class that has become empty is begun
        anew where there would be fewer, and left out where there are more.
    checkpoints : StageCheckpoints, optional
        Keep long passes, by the names of their stages, each of which comes once.
    """

    problem: Problem
    radius: int
    searches: bool
    wanted: int = 1
    checkpoints: StageCheckpoints | None = None

    def begun(self, maps: Tensor, noise: tuple[Tensor, ...]) -> ClassState:
        """Return the state before any image is seen; both halves have the maps."""
        classes = len(maps)
        share = torch.full((classes,), 1 / classes, dtype=torch.float64)
        record = ClassRecord.unknown(len(self.problem.particles), classes)
        return ClassState(torch.stack([maps, maps]), share, record, noise)

    def begun_at(
        self, record: ClassRecord, noise: tuple[Tensor, ...], monitor: Monitor
    ) -> ClassState:
        """Return the state whose maps are of classes that are given by evidence."""
        classes = record.log_evidence.shape[1]
        share = self.population(record)
        nothing = torch.zeros(2, classes, 2, 2, 2)
        state = ClassState(nothing, share, record, noise)
        return self.solved(state, self.radius, monitor)

    def searched(self, state: ClassState, name: str, monitor: Monitor) -> ClassState:
        """Search all poses in all classes, and make the maps anew."""
        return self.iterated(state, name, self._search, monitor)

    def settled(
        self, state: ClassState, name: str, iterations: int, monitor: Monitor
    ) -> ClassState:
        """Refine poses where they are, and classes with them, until few change."""
        for _ in range(iterations):
            state = self.iterated(state, name, self._local(self.radius), monitor)
            if state.changed < _FEW:
                break
        return state

    def iterated(
        self, state: ClassState, name: str, inference: InferenceOf, monitor: Monitor
    ) -> ClassState:
        """Infer all particles in the maps of the other half, and make the maps anew."""
        first, second = state.maps
        state = self.inferred(
            state, name, inference, ((second, None), (first, None)), monitor
        )
        return self.solved(self._without_empty(state), self.radius, monitor)

    def split(self, state: ClassState, monitor: Monitor) -> ClassState:
        """Return the state with one class more, a part of the largest."""
        record, share = state.record, state.population
        place = torch.cat([torch.arange(state.count), share.argmax()[None]])
        record = record.in_order(place)
        share = torch.cat([share, share.new_full((1,), _LEAST_SHARE)])
        record = reseeded(record, share / share.sum())
        share = self.population(record)
        state = replace(state, record=record, population=share, changed=1.0)
        return self.solved(state, self.radius, monitor)

    def measured(self, state: ClassState, monitor: Monitor) -> ClassState:
        """Measure the noise on what maps leave of images of the other half."""
        first, second = (self.projectors(one) for one in state.maps)
        shown = tuple(ClassMaps(one, state.population) for one in (second, first))
        known = state.record.posterior(state.population)
        # Maps of the other half have learned nothing of the noise.
        noise = noise_of_residuals(
            self.problem, state.noise, (shown[0], shown[1]), known, self.radius, monitor
        )
        return replace(state, noise=noise)

    def inferred(
        self,
        state: ClassState,
        name: str,
        inference: InferenceOf,
        shown: tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]],
        monitor: Monitor,
        radius: int | None = None,
    ) -> ClassState:
        """Infer all particles; their populations follow.

        Parameters
        ----------
        state : ClassState
        name : str
            Of the stage.
        inference : callable
            Makes the inference of one class.
        shown : tuple of two
            Of each half-set: maps that poses are inferred in, and those that classes
            are judged by, (K, m, m, m).
        monitor : Monitor
        radius : int, optional
            By default that of the loop.
        """
        radius, prior = radius or self.radius, self._prior
        first, second = (
            ClassMaps(
                self.projectors(maps, radius),
                state.population,
                None if judges is None else self.projectors(judges, radius),
            )
            for maps, judges in shown
        )
        step = ParticlePass(
            name,
            StrictImages(self.problem.grid, radius, state.noise),
            (first, second),
            prior,
            InEveryClass([inference() for _ in range(state.count)]),
            lambda one: ClassRecord.of(one, prior),
        )
        known = state.record.posterior(state.population)
        kept = None if self.checkpoints is None else self.checkpoints.monitor(name)
        record = run_pass(self.problem, step, known, state.record, monitor, kept)
        share = self.population(record)
        before = (state.record.log_evidence + state.population.log()).argmax(1)
        after = (record.log_evidence + share.log()).argmax(1)
        changed = float((before != after).double().mean())
        changed = self.problem.world.of_first(changed)
        return replace(state, record=record, population=share, changed=changed)

    def projectors(
        self, maps: Tensor, radius: int | None = None
    ) -> tuple[MapProjector, ...]:
        """Return the forward models of maps (K, m, m, m)."""
        update = MapUpdate(self.problem)
        return tuple(update.projector(one, radius or self.radius) for one in maps)

    def solved(self, state: ClassState, radius: int, monitor: Monitor) -> ClassState:
        """Return the state with the maps of its particles, to a Fourier radius."""
        sums, update = self.sums(state, radius, monitor), MapUpdate(self.problem)
        made = [update.solve(one, self.radius).maps for one in sums.of_class]
        maps = torch.stack(
            [torch.stack([one[half] for one in made]) for half in (0, 1)]
        )
        return replace(state, maps=self.problem.world.of_first(maps))

    def sums(self, state: ClassState, radius: int, monitor: Monitor) -> ClassSums:
        """Return the sums of all particles, weighed by their responsibilities."""
        problem = self.problem
        box, device = problem.grid.box, problem.device
        sums = ClassSums.empty(state.count, box, radius, device)
        known = state.record.posterior(state.population)
        step = ParticlePass(
            "maps of the classes",
            StrictImages(problem.grid, radius, state.noise),
            (None, None),
            self._prior,
            GivenPoses(),
            lambda one: one.posterior,
            (sums,),
        )
        run_pass(problem, step, known, known, monitor)
        return sums

    @property
    def _prior(self) -> PosePrior:
        """The number of a class is told by evidence, and held by refinements."""
        return replace(self.problem.prior, conformation_sd_angstrom=(0.0,))

    def _search(self) -> PoseInference[MapProjector]:
        plan = global_search_plan(self.problem, self.radius)
        return GlobalSearch(plan, self.problem.max_shift_angstrom)

    def _local(self, radius: int) -> InferenceOf:
        if not self.searches:
            return ScoredPoses
        return lambda: LocalRefinement(_STEPS, reach_radian(radius))

    def refined(self, state: ClassState, radius: int, monitor: Monitor) -> ClassState:
        """Refine poses in the maps of a particle's own half, to a larger radius.

        Classes are still judged by the other half's.
        """
        first, second = state.maps
        return self.inferred(
            state,
            "classes and poses to the finer radius",
            self._local(radius),
            ((first, second), (second, first)),
            monitor,
            radius,
        )

    def _without_empty(self, state: ClassState) -> ClassState:
        """Return the state without empty classes, begun anew where they are wanted."""
        while (empty := self._empty_class(state)) is not None:
            if state.count <= self.wanted:
                record = reseeded(state.record, state.population)
                share = self.population(record)
                return replace(state, record=record, population=share, changed=1.0)
            state = state.without(empty)
        return state

    def _empty_class(self, state: ClassState) -> int | None:
        """Return the smallest class if it is too small for a map, and not the only."""
        n = len(self.problem.particles)
        few = float(state.population.min()) * n < FEWEST_IN_CLASS
        found = int(state.population.argmin()) if few and state.count > 1 else None
        return self.problem.world.of_first(found)

    def population(self, record: ClassRecord) -> Tensor:
        """Return the shares of the classes, those that the first process finds."""
        share = maximum_populations(record.log_evidence).share
        return self.problem.world.of_first(share)
