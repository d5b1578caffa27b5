"""Judge a run on simulated particles by what they were made of."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box as borders
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cryoinfer.cli.evaluation_files import write_comparison
from cryoinfer.cli.inputs import require_truth
from cryoinfer.cli.map_inputs import MAP_OPTION, read_named_map
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.report_page import write_report
from cryoinfer.cli.results import CAUTIONS
from cryoinfer.cli.terminal import say, spelled
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.evaluation import (
    GlobalAlignment,
    PoseErrors,
    align_map,
    align_poses,
    coverage_curve,
    fourier_shell_correlation,
    mahalanobis_levels,
    pose_errors,
    resolution_at,
    tangent_error,
    transform_map,
)
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.conventions.poses import flip_hand
from cryoinfer.io.mrc import MapFile
from cryoinfer.records import Pose
from cryoinfer.report import Coverage, TruthComparison
from cryoinfer.results import layout
from cryoinfer.results.flags import is_posed, read_flags
from cryoinfer.results.posterior_files import Posteriors
from cryoinfer.results.run_files import read_run_map, read_run_mask
from cryoinfer.results.run_record import RunRecord, require_finished
from cryoinfer.wording import agree_nowhere

_NOMINAL = (0.5, 0.9, 0.95)
_CURVE = torch.linspace(0, 1, 41, dtype=torch.float64)
_REGIONS = {"pose": range(5), "rotation": range(3), "shift": range(3, 5)}
_HANDS = ("same", "opposite")
_WITH_MAPS = ("abinitio", "refine", "reconstruct", "infer")
"""Commands whose runs have a map of their own to compare."""

_FITTED_DEGREES = 20.0
"""Median error of poses up to which the map is fitted: a fit comes back from about 5
degrees, and from far off it would wander for minutes and find nothing."""


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


@dataclass(frozen=True)
class _Hand:
    """How the run compares with the truth if its map has a given hand."""

    name: str
    errors: PoseErrors
    fsc: Tensor
    resolution_angstrom: dict[str, float | None]


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
    estimated, true, chosen = matched.estimated, matched.true, matched.chosen
    group = symmetry_rotations(record.symmetry(run))
    true_map = read_named_map(
        require_truth(truth / "truth.mrc"),
        map_pixel_size,
        MAP_OPTION,
        reading.pixel_size,
    )
    maps = _Maps.of(run, truth, true_map)
    errors = {name: _align(name, estimated, true, group) for name in _HANDS}
    better = min(_HANDS, key=lambda name: float(errors[name].geodesic_degrees.median()))
    hands = [_compare(name, errors[name], maps, name == better) for name in _HANDS]
    best = hands[_HANDS.index(better)]
    levels = _levels(run, chosen, estimated, true, best.errors.alignment, group)
    coverage = {
        region: coverage_curve(values, torch.tensor(_NOMINAL)).tolist()
        for region, values in levels.items()
    }
    curve = None
    if levels:
        observed = coverage_curve(levels["pose"], _CURVE).numpy()
        curve = Coverage(_CURVE.numpy(), observed, len(chosen))
    comparison = TruthComparison(
        rotation_error_degrees=best.errors.geodesic_degrees,
        shift_error_angstrom=best.errors.shift_angstrom,
        mirrored=best.name == "opposite",
        resolution_angstrom=best.resolution_angstrom["fsc_0.5"],
        coverage=curve,
    )
    summary = {
        "particles": len(chosen),
        "unreadable": matched.unreadable,
        "hand": best.name,
        "resolution_angstrom": best.resolution_angstrom["fsc_0.5"],
        "hands": {hand.name: _numbers(hand) for hand in hands},
        "fsc": best.fsc.tolist(),
        "nominal": list(_NOMINAL),
        "coverage": coverage,
    }
    write_comparison(run, comparison, summary)
    page = write_report(run)
    _say_reserve(console, record, matched.unreadable)
    _print(console, hands, best, coverage)
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


@dataclass(frozen=True)
class _Maps:
    """The map of the run and the true one, and the mask of the run."""

    estimated: Tensor
    true: Tensor
    mask: Tensor
    pixel_size_angstrom: float

    @classmethod
    def of(cls, run: Path, truth: Path, true: MapFile) -> "_Maps":
        """Read those of the run.

        Raises
        ------
        InputError
            If they are sampled differently.
        """
        estimated = read_run_map(run)
        pixel_size = estimated.pixel_size_angstrom
        same_pixel = abs(true.pixel_size_angstrom / pixel_size - 1) < 0.01
        if true.density.shape != estimated.density.shape or not same_pixel:
            raise InputError(
                f"{truth / 'truth.mrc'} has {true.density.shape[0]} voxels of "
                f"{true.pixel_size_angstrom:.4g} A, the map of {run} "
                f"{estimated.density.shape[0]} of {pixel_size:.4g} A: are they of the "
                "same particles?"
            )
        return cls(
            torch.tensor(estimated.density),
            torch.tensor(true.density),
            torch.tensor(read_run_mask(run).density),
            pixel_size,
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


def _align(name: str, estimated: Pose, true: Pose, group: Tensor) -> PoseErrors:
    """Return the errors of the poses, given the hand."""
    opposite = name == "opposite"
    # Fitting the mirrored truth gives the alignment to the mirrored frame.
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=group.dtype))
    alignment = align_poses(
        estimated,
        flip_hand(true) if opposite else true,
        torch.Generator().manual_seed(0),
        symmetry=mirror @ group @ mirror if opposite else group,
        allow_mirror=False,
    )
    alignment = replace(alignment, mirrored=opposite)
    return pose_errors(estimated, true, alignment, group)


def _compare(name: str, errors: PoseErrors, maps: _Maps, is_best: bool) -> _Hand:
    """Compare the maps, given the hand.

    Only for the better hand the map is fitted, if its poses are near enough; else
    there is nothing to be found, and the poses' alignment has to do.
    """
    pixel_size = maps.pixel_size_angstrom
    near = float(errors.geodesic_degrees.median()) <= _FITTED_DEGREES
    moved = (
        align_map(maps.true, maps.estimated, errors.alignment, pixel_size)
        if is_best and near
        else transform_map(maps.true, errors.alignment, pixel_size)
    )
    fsc = fourier_shell_correlation(maps.estimated * maps.mask, moved * maps.mask)
    resolution: dict[str, float | None] = {}
    for level in (0.5, 0.143):
        reached = resolution_at(fsc, level, len(maps.true), pixel_size)
        nowhere = agree_nowhere(reached, len(maps.true), pixel_size)
        resolution[f"fsc_{level}"] = None if nowhere else reached
    return _Hand(name, errors, fsc, resolution)


def _levels(
    run: Path,
    chosen: Tensor,
    estimated: Pose,
    true: Pose,
    alignment: GlobalAlignment,
    group: Tensor,
) -> dict[str, Tensor]:
    """Return, by region, the credible level at which each truth lies."""
    posteriors = Posteriors.read(run)
    if posteriors is None:
        return {}
    covariance = posteriors.covariance()[chosen][:, :5, :5]
    error = tangent_error(estimated, true, alignment, group)
    return {
        region: mahalanobis_levels(error, covariance, dims)
        for region, dims in _REGIONS.items()
    }


def _numbers(hand: _Hand) -> dict[str, Any]:
    alignment = hand.errors.alignment
    return {
        **hand.errors.summary(),
        **{f"resolution_angstrom_{k}": v for k, v in hand.resolution_angstrom.items()},
        "alignment_rotation": alignment.rotation.tolist(),
        "alignment_origin_angstrom": alignment.origin_angstrom.tolist(),
    }


def _print(
    console: Console,
    hands: list[_Hand],
    best: _Hand,
    coverage: dict[str, list[float]],
) -> None:
    table = Table(box=borders.SIMPLE_HEAD, title="Against the truth")
    table.add_column("median (95th percentile)")
    for hand in hands:
        mark = ", found" if hand is best else ""
        table.add_column(f"{hand.name} hand{mark}", justify="right")
    for label, field in (
        ("rotation error (deg)", "geodesic_degrees"),
        ("view error (deg)", "view_degrees"),
        ("in-plane error (deg)", "in_plane_degrees"),
        (spelled(console, "shift error (A)"), "shift_angstrom"),
    ):
        sizes = [getattr(hand.errors, field).abs().numpy() for hand in hands]
        quantiles = [np.quantile(size, (0.5, 0.95)) for size in sizes]
        table.add_row(label, *(f"{q[0]:.3g} ({q[1]:.3g})" for q in quantiles))
    for key in ("fsc_0.5", "fsc_0.143"):
        resolution = spelled(console, "resolution (A)")
        label = f"{resolution}, {key.replace('_', ' ').upper()}"
        found = [hand.resolution_angstrom[key] for hand in hands]
        table.add_row(label, *("none" if r is None else f"{r:.2f}" for r in found))
    console.print(table)
    if not coverage:
        return
    table = Table(box=borders.SIMPLE_HEAD, title="Truth inside the credible set")
    table.add_column("stated")
    for level in _NOMINAL:
        table.add_column(f"{level:.0%}", justify="right")
    for region, values in coverage.items():
        table.add_row(region, *(f"{value:.1%}" for value in values))
    console.print(table)
