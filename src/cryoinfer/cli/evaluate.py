"""Judge a run on simulated particles by what they were made of."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box as borders
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cryoinfer.cli.conformation_words import say_conformations, say_junk
from cryoinfer.cli.inputs import require_truth
from cryoinfer.cli.map_inputs import MAP_OPTION, read_named_map
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.report_page import write_report
from cryoinfer.cli.results import CAUTIONS
from cryoinfer.cli.terminal import say, spelled
from cryoinfer.data.original_particles import Origin
from cryoinfer.data.particles import Particles
from cryoinfer.data.shards import is_prepared
from cryoinfer.errors import InputError
from cryoinfer.evaluation.against_truth import (
    NOMINAL,
    MapPair,
    TruthEvaluation,
    compare_with_truth,
)
from cryoinfer.evaluation.conformation_against_truth import (
    FoundConformations,
    PosePair,
    TrueConformation,
    evaluate_conformations,
)
from cryoinfer.evaluation.junk import JunkComparison, compare_junk
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.conventions.table import ParticleTable
from cryoinfer.records import Pose
from cryoinfer.results import layout
from cryoinfer.results.conformations import (
    read_conformations,
    read_pose_covariance,
    true_conformations,
    true_junk,
)
from cryoinfer.results.evaluation_files import write_evaluation
from cryoinfer.results.flags import (
    given_outlier_scores,
    has_flags,
    is_posed,
    read_flags,
)
from cryoinfer.results.posterior_files import Posteriors
from cryoinfer.results.run_files import read_run_map, read_run_mask
from cryoinfer.results.run_record import RunRecord, require_finished
from cryoinfer.results.truth import paired

_WITH_MAPS = ("abinitio", "refine", "reconstruct", "infer")
"""Commands whose runs have a map of their own to compare."""


@dataclass(frozen=True)
class _Matched:
    """Particles of a run whose truth is known.

    Attributes
    ----------
    estimated, true : Pose
    chosen : Tensor of int64
        Which particles of the run they are.
    truths : tuple of TrueConformation
        What is known of their conformations; empty if they are all alike.
    unreadable : int
        How many more there are without a pose: their images are not finite, or they
        were flagged before and left out.
    junk : JunkComparison or None
        None where all images show particles.
    """

    estimated: Pose
    true: Pose
    truths: tuple[TrueConformation, ...]
    chosen: Tensor
    unreadable: int
    junk: JunkComparison | None


def evaluate(
    run: Path,
    truth: Path,
    console: Console,
    reading: ParticleOptions = AS_WRITTEN,
    map_pixel_size: float | None = None,
) -> None:
    """Compare a run with the truth, print a table and renew the report.

    Poses and map are compared after one global alignment, for the hand of the truth
    and for the opposite one; the hand with the smaller median rotation error is the
    run's. Its uncertainties are judged by how often their credible sets hold the
    truth. Particles that an encoder could not read are left out.

    A run that has found conformations is judged by those, and has no map to compare.
    Where the truth has states, poses are compared state by state, too. Images that
    show no particle are judged by their outlier scores and flags, and by nothing else.

    Parameters
    ----------
    run : Path
        Folder of a finished run.
    truth : Path
        Folder with ``truth.star``, and ``truth.mrc`` for a run with a map, as
        ``cryoinfer simulate`` writes them.
    console : Console
    reading : ParticleOptions
        Of the particles of both.
    map_pixel_size : float or None
        Of the true map in angstrom, instead of what its header says.

    Raises
    ------
    InputError
        If one of them is absent or they do not belong together.
    """
    record = require_finished(run)
    conformations = read_conformations(run)
    if conformations is None:
        _require_map(record, run)
    matched = _match(record, run, truth, reading, conformations)
    chosen = matched.chosen
    maps = None
    if conformations is None:
        maps = _maps(run, truth, map_pixel_size, reading)
        posteriors = Posteriors.read(run)
        covariance = None if posteriors is None else posteriors.covariance()
    else:
        if matched.junk is None:
            _require_truths(matched.truths, truth)
        conformations = conformations.select(chosen)
        covariance = read_pose_covariance(run)
    symmetry = symmetry_rotations(record.symmetry(run))
    found = compare_with_truth(
        matched.estimated,
        matched.true,
        maps,
        symmetry,
        None if covariance is None else covariance[chosen],
    )
    compared = evaluate_conformations(
        conformations,
        matched.truths,
        PosePair(matched.estimated, matched.true),
        symmetry,
        has_map=maps is not None,
    )
    write_evaluation(run, found, compared, matched.junk, matched.unreadable)
    written = str(run / layout.EVALUATION)
    if maps is not None:  # the report of conformations shows no truth
        written += f" and {write_report(run)}"
    _say_reserve(console, record, matched.unreadable)
    _print(console, found)
    for caution in found.cautions():
        say(console, f"Caution: {caution}")
    say_conformations(console, compared)
    if matched.junk is not None:
        say_junk(console, matched.junk)
    say(console, f"Written to {written}")


def _say_reserve(console: Console, record: RunRecord, unreadable: int) -> None:
    """Say what asks for caution in the run, and what of it is not judged."""
    for text in record.results.get(CAUTIONS, ()):
        say(console, f"Caution: {text}")
    if unreadable:
        say(
            console,
            f"Left out: {unreadable:,} without a pose, whose images hold NaN "
            "or infinite pixels, or that an earlier run had flagged",
        )


def _maps(
    run: Path, truth: Path, pixel_size: float | None, reading: ParticleOptions
) -> MapPair:
    """Read the map of the run and its mask, and the true one.

    Raises
    ------
    InputError
        If it is sampled otherwise than the true one.
    """
    path = require_truth(truth / "truth.mrc")
    true = read_named_map(path, pixel_size, MAP_OPTION, reading.pixel_size)
    estimated = read_run_map(run)
    return paired(
        torch.tensor(estimated.density),
        torch.tensor(read_run_mask(run).density),
        estimated.pixel_size_angstrom,
        true,
        path,
    )


def _require_truths(truths: tuple[TrueConformation, ...], truth: Path) -> None:
    """Refuse a truth that says nothing of conformations.

    Raises
    ------
    InputError
    """
    if not truths:
        raise InputError(
            f"{truth / 'truth.star'} does not say which conformations these particles "
            "have: expected a column cryoinferMode1Angst (and so on), cryoinferFrame, "
            "cryoinferPath, cryoinferTurnDegrees or rlnClassNumber that differs "
            "between them"
        )


def _require_map(record: RunRecord, run: Path) -> None:
    """Refuse runs that make no map, and have found no conformations.

    Raises
    ------
    InputError
    """
    if record.workflow in _WITH_MAPS:
        return
    if record.workflow != "train":
        raise InputError(
            f"{run} holds no {layout.LATENTS}, in which a run of `cryoinfer "
            f"{record.workflow}` writes conformations: copy it again, or make the run "
            "anew"
        )
    raise InputError(
        f"{run} is a run of `cryoinfer train`: expected one that has made a map, of "
        f"{', '.join(_WITH_MAPS)}, or found conformations. Evaluate the run that it "
        "learned from"
    )


def _match(
    record: RunRecord,
    run: Path,
    truth: Path,
    reading: ParticleOptions,
    conformations: FoundConformations | None,
) -> _Matched:
    """Return estimated and true poses of the particles in both.

    Particles are matched by the image that they are, for a run may have been made on
    some of them or in another order.
    """
    estimated = reading.of_run(record).load(require_truth(run / layout.PARTICLES))
    true = reading.load(require_truth(truth / "truth.star"))
    if estimated.pose is None or true.pose is None:
        raise InputError(f"{run} and {truth} must both have poses; one has none.")
    place = {key: i for i, key in enumerate(_keys(true))}
    rows = [place.get(key, -1) for key in _keys(_as_simulated(estimated))]
    row = torch.tensor(rows)
    unreadable = ~is_posed(record, read_flags(record, estimated.table))
    if conformations is not None:
        unreadable |= ~conformations.is_known()
    if not bool((row >= 0).any()):
        raise InputError(
            f"None of the particles of {run} is in {truth / 'truth.star'}: is it the "
            "truth of another set?"
        )
    junk = torch.zeros(len(row), dtype=torch.bool)
    junk[row >= 0] = true_junk(true.table.select(row[row >= 0]))
    chosen = torch.nonzero((row >= 0) & ~unreadable & ~junk).squeeze(1)
    if len(chosen) == 0:
        raise InputError(
            f"No particle of {run} has a pose: all their images hold NaN or infinite "
            "pixels, or are flagged, or show no particle. Run `cryoinfer check` on the "
            "particles"
        )
    left_out = int(((row >= 0) & unreadable & ~junk).sum())
    table = true.table.select(row[chosen])
    assert table.pose is not None
    truths = tuple(true_conformations(table, truth / "truth.star"))
    found = _junk_comparison(record, estimated.table, junk, row >= 0)
    return _Matched(estimated.pose[chosen], table.pose, truths, chosen, left_out, found)


def _junk_comparison(
    record: RunRecord, table: ParticleTable, is_junk: Tensor, is_known: Tensor
) -> JunkComparison | None:
    """Compare outlier scores and flags with what images show.

    Parameters
    ----------
    record : RunRecord
    table : ParticleTable
        Of the run.
    is_junk, is_known : Tensor of bool, shape (n,)
        Which images show no particle, and of which a truth is known.
    """
    if not bool(is_junk.any()):
        return None
    score = given_outlier_scores(table)
    flags = read_flags(record, table) if has_flags(record) else None
    return compare_junk(
        is_junk[is_known],
        None if score is None else torch.from_numpy(score.astype(float))[is_known],
        None if flags is None else (flags != 0)[is_known],
    )


def _as_simulated(particles: Particles) -> Particles:
    """Return what prepared particles were made from; others as they are."""
    if not any(is_prepared(stack.path.parent) for stack in particles.stacks):
        return particles
    origin = Origin.of(particles)
    reading = ParticleOptions.of_arguments(origin.index.source["reading"])
    return reading.load(Path(origin.index.source["path"])).select(origin.rows)


def _keys(particles: Particles) -> list[tuple[Path, int]]:
    paths = [Path(os.path.realpath(stack.path)) for stack in particles.stacks]
    images = particles.table.images
    pairs = zip(images.path_index.tolist(), images.row.tolist(), strict=True)
    return [(paths[path], row) for path, row in pairs]


def _print(console: Console, found: TruthEvaluation) -> None:
    table = Table(box=borders.SIMPLE_HEAD, title="Against the truth")
    table.add_column("median (95th percentile)")
    for one in found.hands:
        mark = ", found" if one is found.best else ""
        table.add_column(f"{one.hand} hand{mark}", justify="right")
    for label, field in (
        ("rotation error (deg)", "geodesic_degrees"),
        ("view error (deg)", "view_degrees"),
        ("in-plane error (deg)", "in_plane_degrees"),
        (spelled(console, "shift error (A)"), "shift_angstrom"),
    ):
        sizes = [getattr(one.errors, field).abs().numpy() for one in found.hands]
        quantiles = [np.quantile(size, (0.5, 0.95)) for size in sizes]
        table.add_row(label, *(f"{q[0]:.3g} ({q[1]:.3g})" for q in quantiles))
    for level in found.best.resolution_angstrom:
        label = f"{spelled(console, 'resolution (A)')}, FSC {level}"
        reached = [one.resolution_angstrom[level] for one in found.hands]
        table.add_row(label, *("none" if r is None else f"{r:.2f}" for r in reached))
    console.print(table)
    if not found.coverage:
        return
    table = Table(box=borders.SIMPLE_HEAD, title="Truth inside the credible set")
    table.add_column("stated")
    for level in NOMINAL:
        table.add_column(f"{level:.0%}", justify="right")
    for region, values in found.coverage.items():
        table.add_row(region, *(f"{value:.1%}" for value in values))
    console.print(table)
