"""Frequency marching: passes at a radius that the measured FSC allows.

The halves share the start's low-resolution map and no density after it: from the
first pass on each half is aligned to, and reconstructed from, itself alone, so that
their correlation beyond the start's radius measures the map and not the alignment.
The six numbers of their relative frame are all that they exchange (frames.py).
"""

import math
import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from cryoinfer.evaluation.fsc import resolution_at
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.projector import Projector
from cryoinfer.interfaces import Monitor
from cryoinfer.memory_allocator import return_freed_memory
from cryoinfer.results.run_result import Iteration
from cryoinfer.wording import agree_nowhere
from cryoinfer.workflows.acceleration import (
    AndersonStep,
    comparable,
    next_references,
)
from cryoinfer.workflows.iteration import (
    InferenceChoice,
    IterationOutcome,
    IterationPlan,
    IterationStart,
    run_iteration,
)
from cryoinfer.workflows.optics_refinement import refine_optics
from cryoinfer.workflows.particle_pass import Accumulator
from cryoinfer.workflows.problem import NO_TERMS, Problem
from cryoinfer.workflows.residual_noise import measured_noise
from cryoinfer.workflows.schedule_state import ScheduleState, state_to_dict
from cryoinfer.workflows.search_plan import global_search_plan
from cryoinfer.workflows.structure_update import (
    THRESHOLD,
    StructureUpdate,
    UpdatedStructure,
)

P = TypeVar("P", bound=Projector)
A = TypeVar("A", bound=Accumulator[Any])

_GLOBAL_PASSES = (2, 5)
"""Fewest and most passes that search all poses again."""

_STRAYS = 0.01
"""Share of particles that a global pass sends elsewhere, which calls for another."""

_SEARCH_GROWTH = 3
"""Largest radius of a global pass over that of the start: beyond it the search is
decided, and Gauss-Newton on every mode costs more than it brings."""

_MOST_PASSES = 24
_SETTLED = 0.15
"""Poses have settled when they move by less than this share of their posterior sd."""
_SAME = 1.05
"""Radii within this factor count as one."""

_PATIENCE = (5, 1)
"""Further passes at one radius, below and above half of Nyquist, that do not settle."""

_LAST_PATIENCE = 2
"""Further passes at the last radius after which the march ends, settled or not."""

_MEMORY = 3
"""Passes whose maps are mixed."""

_GROWTH, _REFINED_GROWTH = 1.6, 2.0
"""Map radius over the radius where the halves agree, of a global search and later: room
to see the FSC fall. With less of it refinement took a stage more."""


@dataclass(frozen=True)
class Alternated(Generic[A]):
    """The end of the iterations.

    Attributes
    ----------
    state : ScheduleState
    sums : Accumulator
        Of the last iteration, to the last Fourier radius of the box.
    mask : Tensor, shape (n, n, n)
    """

    state: ScheduleState
    sums: A
    mask: Tensor


def alternate(
    problem: Problem,
    state: ScheduleState,
    last_radius: int,
    inference: InferenceChoice[P],
    update: StructureUpdate[P, A],
    monitor: Monitor,
) -> Alternated[A]:
    """Alternate posteriors and structures until neither poses nor resolution move.

    Parameters
    ----------
    problem : Problem
    state : ScheduleState
    last_radius : int
        Largest Fourier radius that poses are inferred at.
    inference : callable
        Chooses the inference of an iteration by its plan.
    update : StructureUpdate
    monitor : Monitor

    Returns
    -------
    Alternated
    """
    while True:
        plan = _plan(problem, state, last_radius)
        alternated = _iterated(problem, state, plan, inference, update, monitor)
        if _is_over(problem, alternated.state, plan, last_radius):
            return alternated
        state = alternated.state
        del alternated  # its sums, which the next iteration has no room for
        if problem.optics_terms != NO_TERMS and not state.searching:
            seen = problem.seen_through(state.optics).of_contrast(state.contrast)
            state = refine_optics(seen, state, monitor).of_first(problem.world)
        monitor.save_checkpoint(state_to_dict(state))


def _iterated(
    problem: Problem,
    state: ScheduleState,
    plan: IterationPlan,
    inference: InferenceChoice[P],
    update: StructureUpdate[P, A],
    monitor: Monitor,
) -> Alternated[A]:
    """Return the state after an iteration, with its sums."""
    started = time.monotonic()
    first, second = (update.projector(one, state.map_radius) for one in state.maps)
    sums = update.empty(plan.map_radius)
    start = IterationStart(
        (first, second),
        state.map_radius,
        state.noise,
        state.posterior,
        state.flagged,
        state.contrast,
    )
    seen = problem.seen_through(state.optics)
    outcome = run_iteration(seen, start, plan, inference(plan), sums, monitor)
    del first, second, start  # as large as the sums, beside which maps are made now
    return_freed_memory()
    updated = update.solve(sums, state.radius)
    state = _advance(problem, state, plan, outcome, updated, started)
    state = state.of_first(problem.world)
    monitor.message(_describe(problem, state))
    return Alternated(state, sums, updated.mask)


def _is_over(
    problem: Problem, state: ScheduleState, plan: IterationPlan, last_radius: int
) -> bool:
    """Tell whether a pass at the last radius has left poses and resolution alone."""
    if state.done >= _MOST_PASSES:
        return True
    if problem.optics_terms != NO_TERMS and not state.optics_rested:
        return False
    full = problem.grid.box // 2 - 1
    complete = plan.search is None and plan.map_radius == full
    reached = _SAME * plan.radius >= min(state.radius, last_radius)
    rested = state.settled or state.stayed >= _LAST_PATIENCE
    return complete and reached and rested


def _plan(problem: Problem, state: ScheduleState, last_radius: int) -> IterationPlan:
    full = problem.grid.box // 2 - 1
    before = int(state.iterations[-1].radius_px) if state.iterations else 0
    radius = max(4, min(state.radius, state.map_radius, last_radius))
    if state.searching:
        radius = min(radius, _SEARCH_GROWTH * state.start_radius)
    elif before and radius > before and not _ready(state, before, full):
        radius = before
    growth = _GROWTH if state.searching else _REFINED_GROWTH
    grown = math.ceil(growth * radius) + 4
    map_radius = min(full, max(grown, state.map_radius))
    ends = radius >= min(state.radius, last_radius) and radius <= _SAME * before
    if (
        (ends and _rests_next(state))
        or radius > 0.8 * full
        or state.done + 1 >= _MOST_PASSES
    ):
        map_radius = full
    resolution = problem.grid.resolution_at(radius)
    if state.searching:
        plan = global_search_plan(problem, radius)
        name = f"global search to {resolution:.1f} A"
        return IterationPlan(name, radius, map_radius, 0, 0.0, plan)
    name = f"refinement to {resolution:.2f} A"
    return IterationPlan(name, radius, map_radius, 4, 1.0 / radius, None)


def _rests_next(state: ScheduleState) -> bool:
    """Tell whether the next pass may well be the last: it fills the whole sums.

    Those before see the FSC fall, which is all that they need, and are cheap.
    """
    return state.settled or state.stayed >= _LAST_PATIENCE - 1


def _ready(state: ScheduleState, radius: int, full: int) -> bool:
    """Tell whether poses have converged at their radius, or have had their time.

    Passes at a low radius are cheap, and poses and map settle as fast there.
    """
    patience = _PATIENCE[0] if radius < 0.5 * full else _PATIENCE[1]
    return state.settled or state.stayed >= patience


def _advance(
    problem: Problem,
    state: ScheduleState,
    plan: IterationPlan,
    outcome: IterationOutcome,
    updated: UpdatedStructure,
    started: float,
) -> ScheduleState:
    """Return the state after an iteration."""
    radius = agreement_radius(updated.fsc)
    latest = AndersonStep.of(plan.radius, state.maps, updated.maps)
    rounds = comparable((latest, *state.rounds)[:_MEMORY])
    change = math.degrees(outcome.pose_change_radian)
    iteration = Iteration(
        name=plan.name,
        seconds=time.monotonic() - started,
        radius_px=float(plan.radius),
        resolution_angstrom=_resolution(problem, updated.fsc),
        gain_nats=outcome.gain_nats,
        pose_change_degrees=change,
    )
    fewest, most = _GLOBAL_PASSES
    done = state.done + 1
    astray = outcome.far_share > _STRAYS and done < most
    searching = state.searching and (done < fewest or astray)
    before = state.iterations[-1].radius_px if state.iterations else 0.0
    width = float(_median_width_radian(outcome.posterior[~outcome.quality.flagged]))
    return ScheduleState(
        outcome.posterior,
        measured_noise(state.noise, outcome.noise_ratio, updated.overfitting),
        next_references(rounds),
        plan.map_radius,
        min(radius, plan.map_radius),
        state.start_radius,
        state.shared_radius,
        done,
        searching,
        plan.search is None and outcome.pose_change_radian < _SETTLED * width,
        state.stayed + 1 if plan.radius <= _SAME * before else 0,
        (*state.iterations, iteration),
        outcome.quality,
        rounds,
        state.optics,
        state.optics_rested,
    )


def _median_width_radian(posterior: ParticlePosterior) -> Tensor:
    """Return the median over particles of the posterior sd of the rotation."""
    variance = posterior.covariance[:, 0].diagonal(dim1=1, dim2=2)[:, :3].mean(1)
    return variance.sqrt().median()


def _resolution(problem: Problem, fsc: Tensor) -> float:
    box = 2 * (len(fsc) - 1)
    size = problem.grid.length_angstrom / box
    return resolution_at(fsc.double(), THRESHOLD, box, size)


def agreement_radius(fsc: Tensor) -> int:
    """Return the last shell before the correlation first falls below 0.143."""
    below = torch.nonzero(fsc[1:] < THRESHOLD)
    return int(below[0]) if len(below) else len(fsc) - 1


def _describe(problem: Problem, state: ScheduleState) -> str:
    """Say what a pass has led to, and what of it the halves have in common."""
    iteration = state.iterations[-1]
    shared = shared_resolution(problem, state)
    is_shared = shared is not None and iteration.resolution_angstrom >= shared
    box, pixel_size = problem.grid.box, problem.grid.pixel_size_angstrom
    nowhere = agree_nowhere(iteration.resolution_angstrom, box, pixel_size)
    reach = f"to {iteration.resolution_angstrom:.2f} A"
    return (
        f"iteration {len(state.iterations)}: {iteration.name}, halves agree "
        f"{'nowhere' if nowhere else reach}"
        f"{' (as the map that both began with)' if is_shared else ''}, poses moved by "
        f"{iteration.pose_change_degrees:.2f} degrees, {iteration.seconds:.1f} s"
    )


def shared_resolution(problem: Problem, state: ScheduleState) -> float | None:
    """Return to where the map that both halves began with makes them agree, if any.

    One shell beyond its radius, which the mask smears it into.
    """
    if state.shared_radius == 0:
        return None
    return problem.grid.resolution_at(state.shared_radius + 1)
