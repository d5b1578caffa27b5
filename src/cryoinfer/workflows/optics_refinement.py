"""Optics of every group refined between iterations, at the poses that these have found.

As RELION alternates CtfRefine and refinement: one more pass over the images compares
those of each half-set with their half's map, and adds up what the terms are told from;
sums of both halves together give one value a group. The next iteration sees the images
through it.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.inference.aberration_estimate import PhaseSums, estimate_beam_tilt
from cryoinfer.inference.astigmatism_estimate import (
    AstigmatismSums,
    estimate_astigmatism,
)
from cryoinfer.inference.even_estimate import EvenSums, estimate_even
from cryoinfer.inference.magnification_estimate import (
    MagnificationSums,
    MapGradient,
    estimate_magnification,
)
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.whitening import image_radius
from cryoinfer.interfaces import Monitor
from cryoinfer.physics.aberrations import (
    EVEN_TERMS,
    TREFOIL,
    coma_as_tilt_mrad,
    coma_radian_angstrom3,
    widened,
)
from cryoinfer.records import Optics
from cryoinfer.results.refined_optics import (
    RefinedOptics,
    micrograph_index,
    micrograph_names,
)
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_pass import InferredBatch, ParticlePass, run_pass
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.schedule_state import ScheduleState
from cryoinfer.workflows.structure_update import padding_at

_LARGEST_PHASE_SD_RADIAN = 0.25
"""At the edge of what is compared: an error of it costs 3 % of the signal there. A term
that is known less well is left alone."""


@dataclass(frozen=True)
class _GroupSums:
    phases: PhaseSums
    stretch: MagnificationSums
    even: EvenSums


class OpticsSums:
    """What the terms are told from, group by group.

    An :class:`cryoinfer.workflows.particle_pass.Accumulator`.

    Parameters
    ----------
    problem : Problem
    flagged : Tensor of bool, shape (n,)
        Particles that are left out.
    micrographs : tuple of str
        Whose astigmatism is refined.
    radius : int
        Fourier radius that is compared.
    """

    def __init__(
        self,
        problem: Problem,
        flagged: Tensor,
        micrographs: tuple[str, ...],
        radius: int,
    ) -> None:
        self._problem, self._flagged = problem, flagged
        group = problem.particles.optics.group
        self.groups = {
            number: self._empty(int(torch.nonzero(group == number)[0, 0]), radius)
            for number in group.unique().tolist()
        }
        place = micrograph_index(problem.particles.table, micrographs)
        self._micrograph = place.to(problem.device)
        self.astigmatism = AstigmatismSums.empty(len(micrographs), problem.device)

    def _empty(self, row: int, radius: int) -> _GroupSums:
        problem = self._problem
        optics = problem.optics[row : row + 1]
        box, size = int(problem.particles.boxes[row]), float(optics.pixel_size_angstrom)
        reach = image_radius(radius, problem.grid.length_angstrom / (box * size), box)
        disc = FourierDisc.of_box(box, reach, problem.device)
        return _GroupSums(
            PhaseSums.empty(disc, optics),
            MagnificationSums.empty(disc, size),
            EvenSums.empty(disc, size),
        )

    def add(self, one: InferredBatch[MapGradient]) -> None:
        """Add those particles that show the map."""
        shows = torch.nonzero(~self._flagged[one.batch.index.cpu()]).squeeze(1)
        if not len(shows):
            return
        images = one.images.select(shows.to(one.images.device))
        latents = one.posterior.mode()[shows]
        sums, terms = self.groups[one.group], self._problem.optics_terms
        if terms.beam_tilt or terms.aberrations:
            sums.phases.add(images, one.projector.projector, latents)
        if terms.aberrations:
            sums.even.add(images, one.projector.projector, latents)
        if terms.magnification:
            sums.stretch.add(images, one.projector, latents)
        if terms.astigmatism:
            place = self._micrograph[one.batch.index[shows]]
            self.astigmatism.add(images, one.projector.projector, latents, place)

    @property
    def tensors(self) -> list[Tensor]:
        """What adds up over processes."""
        own = self.astigmatism.information, self.astigmatism.gradient
        of_groups = [
            tensor
            for one in self.groups.values()
            for tensor in (*one.phases.tensors, one.stretch.sums, one.even.sums)
        ]
        return [*of_groups, *own]


def refine_optics(
    problem: Problem, state: ScheduleState, monitor: Monitor
) -> ScheduleState:
    """Return the state with the optics refined at its poses and maps.

    Parameters
    ----------
    problem : Problem
        As the iteration before saw it.
    state : ScheduleState
        After that iteration.
    monitor : Monitor
    """
    radius = min(state.radius, state.map_radius)
    length = problem.grid.length_angstrom
    first, second = (
        MapGradient.of_map(
            one.to(problem.device), length / one.shape[-1], radius, padding_at(radius)
        )
        for one in state.maps
    )
    before = state.optics or _unknown(problem)
    flagged = state.quality.flagged
    sums = OpticsSums(problem, flagged, before.micrographs, radius)
    step = ParticlePass(
        "optics",
        StrictImages(problem.grid, radius, state.noise),
        (first, second),
        problem.prior,
        GivenPoses(),
        lambda one: one.posterior,
        (sums,),
    )
    run_pass(problem, step, state.posterior, state.posterior, monitor)
    found, largest, said = _estimated(problem, sums, before, radius)
    if problem.optics_terms.astigmatism:
        found, change = _with_astigmatism(found, sums.astigmatism)
        largest = max(largest, change)
        said.append(_astigmatism_words(found))
    for text in said:
        monitor.message(text)
    rested = largest < 1
    return replace(
        state,
        optics=found,
        optics_rested=rested,
        # Maps of other optics cannot be mixed with those to come, nor are poses those
        # that the new optics lead to.
        settled=state.settled and rested,
        stayed=state.stayed if rested else 0,
        rounds=state.rounds if rested else (),
    )


def _unknown(problem: Problem) -> RefinedOptics:
    table = problem.particles.table
    names = set(micrograph_names(table)) if problem.optics_terms.astigmatism else set()
    return RefinedOptics.unknown(
        1 + int(table.optics.group.max()), tuple(sorted(names))
    )


def _with_astigmatism(
    before: RefinedOptics, sums: AstigmatismSums
) -> tuple[RefinedOptics, float]:
    """Return the astigmatism of all micrographs, and its largest change in sds."""
    found = estimate_astigmatism(sums, before.astigmatism_angstrom)
    change = found.offset_angstrom - before.astigmatism_angstrom
    largest = float((change / found.sd_angstrom).abs().max())
    refined = replace(
        before,
        astigmatism_angstrom=found.offset_angstrom,
        astigmatism_sd_angstrom=found.sd_angstrom,
    )
    return refined, largest


def _astigmatism_words(found: RefinedOptics) -> str:
    offset, sd = found.astigmatism_angstrom, found.astigmatism_sd_angstrom
    count = f"{len(offset):,} micrograph{'s' if len(offset) > 1 else ''}"
    if not bool(offset.any()):
        return f"astigmatism of {count}: too little data, left alone"
    change, width = float(offset.square().mean().sqrt()), float(sd.median())
    return (
        f"astigmatism of {count}: changed by {change:.0f} A (rms of (dU - dV) / 2 "
        f"along two axes; median sd {width:.0f} A)"
    )


@dataclass(frozen=True)
class _GroupFound:
    """What was found of a term of one group.

    Attributes
    ----------
    words : str
    values : dict of str to Tensor
        Fields of :class:`RefinedOptics`; none where the term is left alone.
    change : float
        The largest, in sds.
    """

    words: str
    values: dict[str, Tensor] = field(default_factory=dict)
    change: float = 0.0


def _estimated(
    problem: Problem, sums: OpticsSums, before: RefinedOptics, radius: int
) -> tuple[RefinedOptics, float, list[str]]:
    """Return what was found, its largest change in sds, and words about it."""
    terms, found, changes, said = problem.optics_terms, before, [0.0], []
    edge = radius / problem.grid.length_angstrom
    lever = 2 * math.pi * edge * problem.particle_radius_angstrom
    optics = problem.optics
    for group, one in sums.groups.items():
        own = optics[torch.nonzero(optics.group == group)[0]]
        of_group = []
        if terms.beam_tilt or terms.aberrations:
            of_group.append(_tilt(one.phases, own, edge, terms.aberrations))
        if terms.aberrations:
            of_group.append(_even(one.even, own, edge))
        if terms.magnification:
            of_group.append(_magnification(one.stretch, own, lever))
        for new in of_group:
            changes.append(new.change)
            said.append(f"optics group {group + 1}: {new.words}")
            found = found.with_group(group, **new.values)
    return found, max(changes), said


def _tilt(sums: PhaseSums, optics: Optics, edge: float, trefoil: bool) -> _GroupFound:
    """Return the tilt of a group, where it shows, and its trefoil if wanted."""
    one = replace(optics, beam_tilt_mrad=torch.ones(1, 2, dtype=torch.float64))
    radian_per_mrad = coma_radian_angstrom3(one)[0].abs() * edge**3
    name = "a beam tilt and trefoil" if trefoil else "a beam tilt"
    alone = _GroupFound(f"too little data for {name}, left alone")
    if not bool(radian_per_mrad.any()) or not bool(sums.power.any()):
        return alone
    found = estimate_beam_tilt(sums, trefoil=trefoil)
    sd, other_sd = found.sd_mrad, found.trefoil_sd_radian
    phase_sd = torch.cat([sd * radian_per_mrad, other_sd * edge**3])
    if not bool((phase_sd < _LARGEST_PHASE_SD_RADIAN).all()):
        return alone
    # Odd coefficients of coma give way to the tilt.
    tilt = found.beam_tilt_mrad + coma_as_tilt_mrad(optics)[0]
    tilted = _GroupFound(
        f"beam tilt {_pair(tilt, sd, 3)} mrad",
        {"beam_tilt_mrad": tilt, "beam_tilt_sd_mrad": sd},
        float(((tilt - optics.beam_tilt_mrad[0]) / sd).abs().max()),
    )
    if not trefoil:
        return tilted
    own = widened(optics.odd_zernike_radian, TREFOIL[1] + 1)[0, TREFOIL]
    other = own + found.trefoil_radian
    return _GroupFound(
        f"{tilted.words}, trefoil {_pair(other, other_sd, 2)} radian A3",
        tilted.values | {"trefoil_radian": other, "trefoil_sd_radian": other_sd},
        max(tilted.change, float((found.trefoil_radian / other_sd).abs().max())),
    )


def _even(sums: EvenSums, optics: Optics, edge: float) -> _GroupFound:
    """Return the even aberrations of a group, where they show."""
    found = estimate_even(sums)
    sd = math.inf if found is None else found.phase_sd_radian(edge)
    if found is None or not sd < _LARGEST_PHASE_SD_RADIAN:
        return _GroupFound("too little data for even aberrations, left alone")
    own = widened(optics.even_zernike_radian, EVEN_TERMS)[0, :EVEN_TERMS]
    change = float((found.change_radian / found.sd_radian).abs().max())
    return _GroupFound(
        f"even aberrations changed by {change:.1f} sds (sd of the phase at "
        f"{1 / edge:.1f} A {sd:.3f} radian)",
        {
            "even_radian": own + found.change_radian,
            "even_sd_radian": found.sd_radian,
        },
        change,
    )


def _magnification(
    sums: MagnificationSums, optics: Optics, lever: float
) -> _GroupFound:
    """Return the magnification of a group, where it shows."""
    found = estimate_magnification(sums)
    if found is None or not bool((found.sd * lever < _LARGEST_PHASE_SD_RADIAN).all()):
        return _GroupFound(
            "too little data for an anisotropic magnification, left alone"
        )
    matrix = found.matrix @ optics.magnification[0]
    return _GroupFound(
        _magnification_words(matrix, found.sd),
        {"magnification": matrix, "stretch_sd": found.sd},
        float((found.stretch / found.sd).abs().max()),
    )


def _pair(values: Tensor, sd: Tensor, digits: int) -> str:
    x, y = (
        f"{value:.{digits}f} +- {width:.{digits}f}"
        for value, width in zip(values.tolist(), sd.tolist(), strict=True)
    )
    return f"({x}, {y})"


def _magnification_words(matrix: Tensor, sd: Tensor) -> str:
    largest, smallest = torch.linalg.svdvals(matrix).tolist()
    percent = 100 * (largest - smallest)
    return (
        f"magnification differs by {percent:.2f} % between two directions (sd of half "
        f"of it {100 * float(sd.max()):.2f} %)"
    )
