"""What is made of the last pass: maps, their FSC, and posteriors."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.errors import state_of_this_version
from cryoinfer.evaluation.fsc import masked_fsc, resolution_at
from cryoinfer.fourier.slices import SliceAccumulator
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.interfaces import Monitor
from cryoinfer.memory_allocator import return_freed_memory
from cryoinfer.reconstruction.backproject import signal_to_noise, solve
from cryoinfer.results.run_result import Evidence, Reconstruction, RunResult
from cryoinfer.workflows.calibrate import variance_inflation
from cryoinfer.workflows.evidence import structure_evidence
from cryoinfer.workflows.iteration import InferenceChoice, SearchOrRefinement
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.random_start import BEGINNING
from cryoinfer.workflows.resolution_schedule import (
    Alternated,
    alternate,
    shared_resolution,
)
from cryoinfer.workflows.schedule_state import (
    ScheduleState,
    state_from_dict,
    state_to_dict,
)
from cryoinfer.workflows.single_view import single_view_share
from cryoinfer.workflows.structure_update import (
    THRESHOLD,
    HalfMapSums,
    MapUpdate,
    find_mask,
)

_MASK_RADIUS = 1 / 8
"""Fourier radius that a mask is found at, over the box, a quarter of Nyquist: for maps
of which nobody knows beforehand how far their halves agree."""


def alternate_to_result(
    problem: Problem,
    begin: Callable[[], ScheduleState],
    resolution_angstrom: float | None,
    monitor: Monitor,
    inference: InferenceChoice[MapProjector] | None = None,
) -> RunResult:
    """Iterate from the monitor's checkpoint, or else from a beginning, to the end.

    Parameters
    ----------
    problem : Problem
    begin : callable
        Makes the state that the first pass starts from; not called on a run that is
        resumed after it, and itself going on from the checkpoint of one before.
    resolution_angstrom : float or None
        Finest resolution that poses are inferred at; None goes to Nyquist.
    monitor : Monitor
    inference : callable, optional
        Chooses the inference of an iteration by its plan; by default search and
        local refinement.

    Returns
    -------
    RunResult
    """
    if inference is None:
        inference = SearchOrRefinement(problem.max_shift_angstrom)
    saved = monitor.load_checkpoint()
    if saved is not None and BEGINNING not in saved:
        with state_of_this_version():
            state = state_from_dict(dict(saved))
    else:
        state = begin().of_first(problem.world)
        monitor.save_checkpoint(state_to_dict(state))
    last = problem.grid.box // 2 - 1
    if resolution_angstrom is not None:
        last = problem.grid.radius_at(resolution_angstrom)
    update = MapUpdate(problem)
    # No name for the sums here: they are gone once the maps are made.
    return finish(
        problem, alternate(problem, state, last, inference, update, monitor), monitor
    )


def finish(
    problem: Problem, over: Alternated[HalfMapSums], monitor: Monitor
) -> RunResult:
    """Return maps and posteriors after the last iteration."""
    state = replace(over.state, rounds=())
    problem = problem.seen_through(state.optics)
    sums, mask = over.sums.symmetrised(problem.symmetry_rotation), over.mask
    del over
    return_freed_memory()
    monitor.stage("maps and FSC", 1)
    known = problem.measured_without(state.quality.left_out)
    known = known.of_contrast(state.contrast)
    reconstruction = reconstruct_halves(problem, sums, mask)
    evidence = structure_evidence(known, state.noise, sums)
    del sums
    return_freed_memory()
    reconstruction = replace(
        reconstruction,
        evidence=_with_views(known, state, evidence),
        shared_resolution_angstrom=shared_resolution(problem, state),
    )
    inflation = _inflation(known, state, reconstruction).sqrt()
    posterior = state.posterior.inflated(inflation)
    result = RunResult(
        reconstruction=reconstruction,
        inferred=posterior,
        random_subset=problem.half + 1,
        noise_power=state.noise,
        iterations=state.iterations,
        outlier_score_nats=state.quality.outlier_score_nats,
        outlier=state.quality.left_out,
        contrast=state.quality.contrast,
        unreadable=torch.zeros_like(state.quality.left_out),
        refined_optics=state.optics,
    )
    monitor.advance()
    return result


def _with_views(
    problem: Problem, state: ScheduleState, found: Evidence | None
) -> Evidence | None:
    """Return the evidence of a structure with whether it is seen from all sides."""
    if found is None:
        return None
    update = MapUpdate(problem)
    first, second = (update.projector(one, state.radius) for one in state.maps)
    latents = state.posterior.mode()
    share = single_view_share(problem, state.noise, (first, second), latents)
    return replace(found, single_view_share=share)


def _inflation(
    problem: Problem, state: ScheduleState, reconstruction: Reconstruction
) -> Tensor:
    mask = reconstruction.mask
    return variance_inflation(
        problem,
        state.noise,
        state.posterior,
        state.maps,
        (reconstruction.half1 * mask, reconstruction.half2 * mask),
        state.map_radius,
    )


def reconstruct_sums(
    problem: Problem, sums: tuple[SliceAccumulator, SliceAccumulator]
) -> Reconstruction:
    """Return the maps of both halves and of all, in a mask that is found in them.

    Parameters
    ----------
    problem : Problem
    sums : tuple of two SliceAccumulator
        Of each half, symmetrised.
    """
    box = problem.grid.box
    first, second = (solve(one, None, box, box) for one in sums)
    mask = find_mask(problem, first + second, int(box * _MASK_RADIUS))
    return reconstruct_halves(problem, sums, mask)


def reconstruct_halves(
    problem: Problem, sums: tuple[SliceAccumulator, SliceAccumulator], mask: Tensor
) -> Reconstruction:
    """Return the maps of both halves and of all, and their correlation."""
    box, pixel_size = problem.grid.box, problem.grid.pixel_size_angstrom
    half1, half2 = (solve(s, None, box, box) for s in sums)
    curve = masked_fsc(half1, half2, mask, torch.Generator().manual_seed(0))
    # The outermost shells lie beyond the disc of coefficients in use: the halves have
    # nothing there, whatever the mask smears into them.
    last = sums[0].radius
    corrected = curve.corrected.clone()
    corrected[last + 1 :] = curve.masked[last + 1 :].clamp(max=0.0)
    filtered_by = corrected.clone()  # between shells, up to the edge of the disc
    filtered_by[last + 1 :] = corrected[last]
    snr = signal_to_noise(filtered_by.float(), joined=True)
    return Reconstruction(
        density=solve(sums[0], snr, box, box, others=sums[1]),
        half1=half1,
        half2=half2,
        mask=mask,
        fsc=corrected,
        fsc_masked=curve.masked,
        fsc_randomised=curve.randomised,
        fsc_unmasked=curve.unmasked,
        pixel_size_angstrom=pixel_size,
        resolution_angstrom=resolution_at(corrected, THRESHOLD, box, pixel_size),
        symmetry=problem.symmetry,
    )
