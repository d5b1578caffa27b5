"""What the report of conformations shows, read from the folder of a run."""

from pathlib import Path

import numpy as np

from cryoinfer.cli.arguments import spelled_arguments
from cryoinfer.cli.nothing_found import (
    INHERITED,
    ONE_MAP,
    OWN_CAUTIONS,
    resolution_words,
)
from cryoinfer.cli.rejected_particles import OWN_CONFORMATIONS, LeftOut
from cryoinfer.errors import InputError
from cryoinfer.inference.convergence import CONVERGED
from cryoinfer.io.latents import read_columns
from cryoinfer.io.mrc import read_cube
from cryoinfer.report.heterogeneity import HeterogeneityContent
from cryoinfer.results import layout
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.field import FIELD
from cryoinfer.results.heterogeneity import ENCODER_NUMBERS, HeldOutGain
from cryoinfer.results.posterior_files import require_known
from cryoinfer.results.run_arrays import run_arrays
from cryoinfer.results.run_files import CORRECTED, UNMASKED, read_fsc
from cryoinfer.results.run_record import REMARKS, RunRecord


def read_heterogeneity(path: Path) -> HeterogeneityContent:
    """Collect what the report of conformations shows.

    Raises
    ------
    InputError
        If the folder holds no run, or one that has not come to its end.
    """
    record = RunRecord.read(path)
    arrays_path = path / layout.POSTERIORS
    if not record.results or not arrays_path.exists():
        raise InputError(
            f"the run in {path} has not been finished: there is nothing to report. "
            "Resume it with `cryoinfer heterogeneity --resume`"
        )
    results, curves = record.results, read_fsc(path)
    with run_arrays(arrays_path) as arrays:
        require_known(arrays, arrays_path)
        known = ~np.isnan(arrays["weight"])
        z, sd = arrays["mean"].astype(float), arrays["sd"].astype(float)
        tilt = np.degrees(np.arccos(np.clip(arrays["rotation"][:, 2, 2], -1, 1)))
        columns = {}
        for number in range(z.shape[1]):
            columns[f"z_{number + 1}"] = z[:, number]
            columns[f"z_{number + 1}_sd"] = sd[:, number]
        correlation = None
        if z.shape[1] > 1:
            both = arrays["covariance"][known][:, 6:8, 6:8].astype(float)
            sizes = np.sqrt(both[:, 0, 0] * both[:, 1, 1])
            correlation = np.clip(both[:, 0, 1] / sizes, -0.99, 0.99)
        columns["view tilt"] = tilt.astype(float)
        columns["log-likelihood"] = arrays["log_likelihood"].astype(float)
        columns["entropy"] = arrays["entropy_nats"].astype(float)
    latents = read_columns(path / layout.LATENTS)
    if "outlier_score" in latents:
        columns["outlier score"] = latents["outlier_score"].astype(float)
    names = [layout.MEAN] + [
        layout.COMPONENT.format(number + 1) for number in range(z.shape[1])
    ]
    gain = {name: tuple(values) for name, values in results["held_out_gain"].items()}
    return HeterogeneityContent(
        title=path.absolute().name,
        created=record.created,
        columns=columns,
        z=z[known],
        z_sd=sd[known],
        maps=np.stack([read_cube(path / name).density for name in names]),
        pixel_size_angstrom=results["pixel_size_angstrom"],
        gain=HeldOutGain(**gain),
        counted=_counted(record),
        unseen=record.workflow == "infer",
        pose_r2=tuple(results["pose_r2"]),
        rigid_share=tuple(results["rigid_share"]),
        fsc=curves[CORRECTED],
        fsc_unmasked=curves[UNMASKED],
        resolution=resolution_words(results, ONE_MAP),
        poses_given=record.arguments.get("poses") == "given",
        seed=record.seed,
        stage_seconds=record.stage_seconds,
        arguments=spelled_arguments(record.arguments),
        versions=record.versions,
        field_verdict=_field_words(record),
        warnings=_warnings(record),
        remarks=tuple(results.get(REMARKS, ())),
        trials=_trials(record),
        correlation=correlation,
    )


def _field_words(record: RunRecord) -> str:
    """Return what is to be known of a curved field, nothing where none was tried."""
    found = record.results.get(FIELD)
    if found is None:
        return ""
    said = str(found["verdict"])
    if found["kept"] is not None:
        said += (
            " The maps along axes on this page are those to first order in z; "
            "`cryoinfer volumes` makes maps of any z."
        )
    return said


def _trials(record: RunRecord) -> dict[str, CalibrationTrial]:
    """Return the trials of the encoder, or of the search."""
    of_encoder = record.results.get(ENCODER_NUMBERS, record.results)
    return {
        name: CalibrationTrial.of_record(values)
        for name, values in of_encoder.get("trials", {}).items()
    }


def _counted(record: RunRecord) -> str:
    if record.workflow == "infer":
        return "as learned"
    chosen = record.arguments.get("dims") is not None
    return "chosen" if chosen else "by held-out gain"


def _warnings(record: RunRecord) -> tuple[str, ...]:
    """Return what is wrong with what the run was given, its encoder and its images."""
    found = record.results
    said = [*found.get(INHERITED, ()), *found.get(OWN_CAUTIONS, ())]
    counts = LeftOut.of_results(found)
    if counts is not None:
        said += counts.cautions(OWN_CONFORMATIONS)
    verdict = found.get(ENCODER_NUMBERS, {}).get("verdict", CONVERGED)
    if not verdict.startswith(CONVERGED):
        said.append(f"The encoder that inferred the particles: {verdict}.")
    return tuple(said)
