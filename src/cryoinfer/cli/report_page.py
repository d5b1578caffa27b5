"""The report of a run, made from the files in its folder and from nothing else."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cryoinfer.cli.arguments import spelled_arguments
from cryoinfer.cli.class_page import read_classes
from cryoinfer.cli.handedness import hand_words
from cryoinfer.cli.heterogeneity_page import read_heterogeneity
from cryoinfer.cli.nothing_found import (
    INHERITED,
    ONE_MAP,
    OWN_CAUTIONS,
    nothing_words,
    resolution_words,
    searched_words,
)
from cryoinfer.cli.rejected_particles import LeftOut
from cryoinfer.errors import InputError
from cryoinfer.evaluation.identifiability import Identifiability
from cryoinfer.inference.convergence import CONVERGED, Check
from cryoinfer.io.mrc import read_cube
from cryoinfer.io.replacing import replace_file
from cryoinfer.report import (
    DynamicsContent,
    ReportContent,
    TrainingContent,
    render_class_report,
    render_dynamics_report,
    render_heterogeneity_report,
    render_report,
    render_training_report,
)
from cryoinfer.report.dynamics import HalfMaps
from cryoinfer.results import layout
from cryoinfer.results.calibration_trial import ENCODER, REFINED, CalibrationTrial
from cryoinfer.results.evaluation_files import read_comparison
from cryoinfer.results.flags import (
    FLAG,
    LEFT_OUT,
    OBEYED,
    OUTLIER_SCORE,
    UNREADABLE,
    has_flags,
    is_posed,
)
from cryoinfer.results.gallery import Gallery
from cryoinfer.results.map_numbers import STRUCTURE_FOUND
from cryoinfer.results.posterior_files import PosedParticles, require_known
from cryoinfer.results.run import read_iterations
from cryoinfer.results.run_arrays import run_arrays
from cryoinfer.results.run_files import (
    CORRECTED,
    MASKED,
    RANDOMISED,
    UNMASKED,
    read_fsc,
    read_noise,
    read_numbers,
)
from cryoinfer.results.run_record import REMARKS, RunRecord
from cryoinfer.wording import spell_angstrom
from cryoinfer.workflows.evidence import FEWEST_IMAGES

_WORKFLOW_NAMES = {
    "abinitio": "Ab initio",
    "refine": "Refinement",
    "reconstruct": "Reconstruction",
    "infer": "Inference by an encoder",
}
_INDEPENDENCE = {
    "abinitio": "The half-maps come from two halves of the particles. Both began with "
    "the same coarse map and were refined against maps of their own from then on.",
    "refine": "The half-maps come from two halves of the particles, refined against "
    "maps of their own. Both still contain what they shared at the start, in the map "
    "or the poses.",
    "reconstruct": "The half-maps come from two halves of the particles. Their poses "
    "were given: the halves are as independent as in the run that found these.",
    "infer": "The half-maps come from two halves of the particles. The poses of both "
    "come from one encoder and one map, whose features are in both.",
}
_TRAINED_TOGETHER = (
    "The half-maps come from two halves of the particles. Poses of both were learned "
    "together with one map, whose features and noise are in both. The widths of "
    "posteriors are those of the image around the pose; they do not include the errors "
    "of the encoder."
)
_NOT_ASKED = (
    "Whether the images show a structure at all was not tested, since fewer than "
    f"{FEWEST_IMAGES} images cannot show it."
)

_USED = {"amortized": ENCODER, "semi-amortized": REFINED}
"""Which trial speaks for the posteriors of a method."""


def write_report(folder: Path) -> Path:
    """Render the report of a run from its folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
        Of the page.
    """
    record = RunRecord.read(folder)
    if record.workflow == "train":
        with record.trusted(folder):
            training = _training_content(folder, record)
        page = render_training_report(training)
    elif record.workflow == "dynamics":
        with record.trusted(folder):
            dynamics = read_dynamics(folder)
        page = render_dynamics_report(dynamics)
    elif record.has_classes:
        with record.trusted(folder):
            found = read_classes(folder)
        page = render_class_report(found)
    elif record.has_conformations:
        with record.trusted(folder):
            conformations = read_heterogeneity(folder)
        page = render_heterogeneity_report(conformations)
    else:
        page = render_report(read_content(folder))
    path = folder / layout.REPORT
    replace_file(path, lambda part: part.write_text(page, "utf-8", "replace"))
    return path


def read_content(folder: Path) -> ReportContent:
    """Collect what the report of a run shows.

    Raises
    ------
    InputError
        If the folder holds no run, or a file of it is missing.
    """
    record = RunRecord.read(folder)
    with record.trusted(folder):
        return _content(folder, record)


def _content(folder: Path, record: RunRecord) -> ReportContent:
    # Of particles that are all flagged the map is 0 throughout.
    map_file = read_cube(folder / layout.MAP)
    curves = read_fsc(folder)
    particles = PosedParticles.read(folder)
    # Flags are the one thing of particles.star that is shown of an inference.
    written = read_numbers(folder, FLAG) if has_flags(record) else None
    flags = np.zeros(len(particles.pose)) if written is None else written
    if not record.results or len(flags) != len(particles.pose):
        raise InputError(
            f"the run in {folder} is being written, or was interrupted then: wait for "
            "its end, or resume it"
        )
    posed = is_posed(record, torch.from_numpy(flags))
    if not bool(posed.any()):  # what is written instead is shown
        posed[:] = True
    return ReportContent(
        title=folder.absolute().name,
        workflow=_WORKFLOW_NAMES[record.workflow] + _method(record),
        created=record.created,
        symmetry=record.symmetry(folder),
        pixel_size_angstrom=map_file.pixel_size_angstrom,
        density=torch.tensor(map_file.density),
        fsc=curves[CORRECTED],
        fsc_unmasked=curves[UNMASKED],
        fsc_masked=curves.get(MASKED),
        fsc_randomised=curves.get(RANDOMISED),
        noise_spectrum=read_noise(folder),
        pose=particles.pose[posed],
        variance=particles.variance[posed],
        stage_seconds=record.stage_seconds,
        independence=_independence(record),
        warnings=_warnings(record),
        iterations=read_iterations(record),
        arguments=spelled_arguments(record.arguments),
        versions=record.versions,
        truth=read_comparison(folder),
        trials=_trials(record),
        halves=_halves(record),
        nothing_found=nothing_words(record.results),
        shared_resolution_angstrom=record.results.get("shared_resolution_angstrom"),
        handedness=hand_words(record),
        remarks=tuple(record.results.get(REMARKS, ())),
        gallery=Gallery.read(folder),
        outlier_score_nats=_outlier_scores(folder, record, flags),
    )


def _outlier_scores(
    folder: Path, record: RunRecord, flags: NDArray[np.float64]
) -> torch.Tensor | None:
    """Return the scores that this run has given to images that it could read."""
    found = read_numbers(folder, OUTLIER_SCORE) if LEFT_OUT in record.results else None
    return None if found is None else torch.from_numpy(found[flags != UNREADABLE])


def _training_content(folder: Path, record: RunRecord) -> TrainingContent:
    verdict = record.results.get("verdict")
    if verdict is None or not record.results.get("trials"):
        raise InputError(
            f"the training in {folder} has not been finished, or was made by another "
            "version of cryoinfer: there is nothing to report. Resume it with "
            "`cryoinfer train --resume`, or train again"
        )
    return TrainingContent(
        title=folder.absolute().name,
        created=record.created,
        verdict=verdict,
        converged=verdict.startswith(CONVERGED),
        checks=[Check(**values) for values in record.iterations],
        trials=_trials(record),
        stage_seconds=record.stage_seconds,
        arguments=spelled_arguments(record.arguments),
        versions=record.versions,
        warnings=tuple(record.results.get(INHERITED, ())),
    )


def read_dynamics(folder: Path) -> DynamicsContent:
    """Collect what the report of motions shows.

    Raises
    ------
    InputError
        If the folder holds no run, or one that has not come to its end.
    """
    record = RunRecord.read(folder)
    path = folder / layout.POSTERIORS
    if not record.results or not path.exists():
        raise InputError(
            f"the run in {folder} has not been finished: there is nothing to report. "
            "Resume it with `cryoinfer dynamics --resume`"
        )
    with run_arrays(path) as arrays:
        require_known(arrays, path)
        known = ~np.isnan(arrays["weight"])
        variance = arrays["covariance"][known].diagonal(axis1=1, axis2=2)
        turned = variance[:, :3].astype(np.float64)
        rotation_sd = np.degrees(np.sqrt(turned.sum(1) / (turned > 0).sum(1).clip(1)))
        return DynamicsContent(
            title=folder.absolute().name,
            created=record.created,
            mean=arrays["mean"][known].astype(np.float64),
            sd=arrays["sd"][known].astype(np.float64),
            prior_sd_angstrom=np.array(record.results["amplitude_prior_sd_angstrom"]),
            centre_angstrom=arrays["centre_angstrom"],
            rotation_sd_degrees=rotation_sd,
            node_coordinates_angstrom=arrays["node_coordinates_angstrom"],
            node_chain=arrays["node_chain"],
            node_displacement=arrays["node_displacement"],
            extent_angstrom=arrays["extent_angstrom"],
            identifiability=Identifiability(**record.results["identifiability"]),
            learned_angstrom=record.results["learned_angstrom"],
            unexplained=record.results["unexplained"],
            unexplained_sd=record.results.get("unexplained_sd") or 0.0,
            unreadable=record.results["unreadable"],
            flagged=record.results.get(OBEYED, 0),
            half_maps=_half_maps(folder, record),
            verdict=record.results["verdict"],
            trials=_trials(record),
            stage_seconds=record.stage_seconds,
            arguments=spelled_arguments(record.arguments),
            versions=record.versions,
            seed=record.seed,
            warnings=tuple(record.results.get(INHERITED, ())),
            remarks=tuple(record.results.get(REMARKS, ())),
        )


def _half_maps(folder: Path, record: RunRecord) -> HalfMaps | None:
    """Return how far the half-maps of motions agree, where there are any."""
    if not (folder / layout.FSC).exists():
        return None
    curves = read_fsc(folder)
    return HalfMaps(
        read_cube(folder / layout.MAP).density,
        curves[CORRECTED],
        curves[UNMASKED],
        record.results["pixel_size_angstrom"],
        resolution_words(record.results, ONE_MAP),
    )


def _halves(record: RunRecord) -> Literal["apart", "given", "one map"]:
    """Return how the halves of a run were posed."""
    if record.arguments.get("head") == "known":
        return "given"
    if record.workflow == "infer" or _method(record):
        return "one map"
    began_at_poses = record.workflow == "refine" and not record.arguments.get("map")
    given = record.workflow == "reconstruct" or began_at_poses
    return "given" if given else "apart"


def _trials(record: RunRecord) -> dict[str, CalibrationTrial]:
    """Return the trials of the run's encoder, none if it has none.

    Of a run that has posed particles with it, those of the posteriors that it gives.
    """
    found = record.results.get("trials", {})
    used = _USED.get(record.arguments.get("method", ""))
    return {
        name: CalibrationTrial.of_record(values)
        for name, values in found.items()
        if used is None or name == used
    }


def _method(record: RunRecord) -> str:
    method = record.arguments.get("method", "search")
    return "" if method == "search" else f", {method}"


def _independence(record: RunRecord) -> str:
    if not _method(record):
        return _left_out(record) + _INDEPENDENCE[record.workflow]
    found = record.results
    if "searched_particles" not in found:
        given = _halves(record) == "given"
        said = _INDEPENDENCE["reconstruct"] if given else _TRAINED_TOGETHER
        return _left_out(record) + said
    return (
        f"{_left_out(record)}{_INDEPENDENCE['infer']} That map comes from a search of "
        f"{found['searched_particles']:,} of the particles, whose halves were refined "
        f"apart; their resolution is {spell_angstrom(searched_words(found))}: quote "
        "that where the FSC here goes further."
    )


def _left_out(record: RunRecord) -> str:
    left_out = LeftOut.of_results(record.results)
    said = "" if left_out is None else f"{left_out.novel_words()}. "
    if flagged := record.results.get(OBEYED):
        said += f"{flagged:,} particles that an earlier run flagged are left out. "
    return said


def _warnings(record: RunRecord) -> tuple[str, ...]:
    """Return what is wrong with the encoder, or with what it was given."""
    found = record.results
    left_out = LeftOut.of_results(found)
    cautions = () if left_out is None else left_out.cautions()
    said = (*found.get(INHERITED, ()), *found.get(OWN_CAUTIONS, ()))
    cautions = (*said, *cautions)
    if record.workflow != "infer" and STRUCTURE_FOUND not in found:
        cautions = (*cautions, _NOT_ASKED)
    verdict = found.get("verdict", CONVERGED)
    if verdict.startswith(CONVERGED):
        return cautions
    return (f"The encoder that inferred the poses: {verdict}.", *cautions)
