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

from cryoinfer.cli.inputs import require_truth
from cryoinfer.cli.map_inputs import MAP_OPTION, read_named_map
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.report_page import write_report
from cryoinfer.cli.results import CAUTIONS
from cryoinfer.cli.terminal import say, spelled
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.evaluation.against_truth import (
    FSC_LEVELS,
    NOMINAL,
    MapPair,
    TruthEvaluation,
    compare_with_truth,
)
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.mrc import MapFile
from cryoinfer.records import Pose
from cryoinfer.results import layout
from cryoinfer.results.evaluation_files import write_evaluation
from cryoinfer.results.flags import is_posed, read_flags
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
    unreadable : int
        How many more there are without a pose: their images are not finite, or they
        were flagged before and left out.
    """

    estimated: Pose
    true: Pose
    chosen: Tensor
    unreadable: int


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

    Parameters
    ----------
    run : Path
        Folder of a finished run.
    truth : Path
        Folder with ``truth.star`` and ``truth.mrc``, as ``cryoinfer simulate`` writes.
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
    _require_map(record, run)
    matched = _match(record, run, truth, reading)
    true_map = read_named_map(
        require_truth(truth / "truth.mrc"),
        map_pixel_size,
        MAP_OPTION,
        reading.pixel_size,
    )
    posteriors = Posteriors.read(run)
    found = compare_with_truth(
        matched.estimated,
        matched.true,
        _maps(run, truth, true_map),
        symmetry_rotations(record.symmetry(run)),
        None if posteriors is None else posteriors.covariance()[matched.chosen],
    )
    write_evaluation(run, found, matched.unreadable)
    page = write_report(run)
    _say_reserve(console, record, matched.unreadable)
    _print(console, found)
    say(console, f"Written to {run / layout.EVALUATION} and {page}")


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


def _maps(run: Path, truth: Path, true: MapFile) -> MapPair:
    """Read the map of the run and its mask.

    Raises
    ------
    InputError
        If it is sampled otherwise than the true one.
    """
    estimated = read_run_map(run)
    return paired(
        torch.tensor(estimated.density),
        torch.tensor(read_run_mask(run).density),
        estimated.pixel_size_angstrom,
        true,
        truth / "truth.mrc",
    )


def _require_map(record: RunRecord, run: Path) -> None:
    """Refuse runs that make no map.

    Raises
    ------
    InputError
    """
    if record.workflow in _WITH_MAPS:
        return
    advice = "Evaluate the run that it learned from"
    if record.workflow == "dynamics":
        advice = (
            "The amplitudes that it found stand in its particles.star, the true ones "
            "in truth.star, both as cryoinferMode1Angst and so on"
        )
    raise InputError(
        f"{run} is a run of `cryoinfer {record.workflow}`: expected one that has made "
        f"a map, of {', '.join(_WITH_MAPS)}. {advice}"
    )


def _match(
    record: RunRecord, run: Path, truth: Path, reading: ParticleOptions
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
    rows = [place.get(key, -1) for key in _keys(estimated)]
    row = torch.tensor(rows)
    unreadable = ~is_posed(record, read_flags(record, estimated.table))
    if not bool((row >= 0).any()):
        raise InputError(
            f"None of the particles of {run} is in {truth / 'truth.star'}: is it the "
            "truth of another set?"
        )
    chosen = torch.nonzero((row >= 0) & ~unreadable).squeeze(1)
    if len(chosen) == 0:
        raise InputError(
            f"No particle of {run} has a pose: all their images hold NaN or infinite "
            "pixels, or are flagged. Run `cryoinfer check` on the particles"
        )
    left_out = int(((row >= 0) & unreadable).sum())
    return _Matched(estimated.pose[chosen], true.pose[row[chosen]], chosen, left_out)


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
    for level in FSC_LEVELS:
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
