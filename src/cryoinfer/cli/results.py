"""What a run has found, written to its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from torch import Tensor

from cryoinfer.cli.nothing_found import OWN_CAUTIONS
from cryoinfer.cli.rejected_particles import LeftOut
from cryoinfer.cli.report_page import read_content, write_report
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.data.particles import Particles
from cryoinfer.io.replacing import replace_file
from cryoinfer.report.assessment import assess
from cryoinfer.report.parts import cautions
from cryoinfer.report.trials import judge_trials
from cryoinfer.results import layout, run_files
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.gallery import gallery_of
from cryoinfer.results.map_numbers import map_numbers
from cryoinfer.results.run_result import Reconstruction, RunResult
from cryoinfer.workflows.encoder_file import save_encoder
from cryoinfer.workflows.trained_encoder import TrainedEncoder

CAUTIONS = "cautions"
"""In the record of a run: what asks for caution, as in its report."""

OPTICS = "refined_optics"
"""In the record of a run: what was found of each optics group, with its sd."""

PREPARED = "prepared_particles"
"""In the record of a run: how many images had to be made like those of an encoder."""


def write_results(
    folder: RunFolder,
    particles: Particles,
    result: RunResult | Reconstruction,
    numbers: Mapping[str, Any] = MappingProxyType({}),
    used: Tensor | None = None,
) -> None:
    """Write what a run has found, its report last, and mark it as finished.

    Parameters
    ----------
    folder, particles, result, numbers, used
        As for :func:`write_found`.
    """
    write_found(folder, particles, result, numbers, used)
    folder.finish()


def write_encoder(
    folder: RunFolder, trained: TrainedEncoder, trials: Mapping[str, CalibrationTrial]
) -> dict[str, Any]:
    """Write an encoder, and return what the record of its run holds of how it did."""
    path = folder.path / layout.ENCODER
    replace_file(path, lambda part: save_encoder(part, trained))
    last = trained.checks[-1]
    return {
        "verdict": trained.verdict,
        "loss_nats": last.loss_nats,
        "median_degrees": last.median_degrees,
        "covariance_inflation": trained.covariance_inflation.tolist(),
        "trials": {name: asdict(trial) for name, trial in trials.items()},
        CAUTIONS: cautions(judge_trials(trials)),
    }


def write_found(
    folder: RunFolder,
    particles: Particles,
    result: RunResult | Reconstruction,
    numbers: Mapping[str, Any] = MappingProxyType({}),
    used: Tensor | None = None,
) -> None:
    """Write what a run has found so far, its report last.

    Parameters
    ----------
    folder : RunFolder
    particles : Particles
    result : RunResult or Reconstruction
    numbers : mapping
        What its record is to hold beside the numbers of the map.
    used : Tensor of bool, shape (n,), optional
        Which particles the run has used, by default all.
    """
    earlier_files = (layout.EVALUATION, layout.ERRORS, layout.GALLERY)
    for earlier in earlier_files:  # of another map
        (folder.path / earlier).unlink(missing_ok=True)
    reconstruction = result
    iterations = []
    left_out: dict[str, Any] = {}
    if isinstance(result, RunResult):
        if (counts := LeftOut.of_result(result, used)) is not None:
            left_out = counts.numbers()
        if result.prepared is not None:
            left_out[PREPARED] = int(result.prepared.sum())
        reconstruction = result.reconstruction
        if result.refined_optics is not None:
            left_out[OPTICS] = result.refined_optics.numbers()
        run_files.write_inference(folder.path, particles, result)
        iterations = [asdict(iteration) for iteration in result.iterations]
    else:
        path = folder.path / layout.PARTICLES
        run_files.save_particles(path, particles)
    assert isinstance(reconstruction, Reconstruction)
    run_files.write_reconstruction(folder.path, reconstruction)
    if (gallery := gallery_of(particles, result, used)) is not None:
        gallery.write(folder.path)
    results = {
        "particles": len(particles),
        **map_numbers(reconstruction),
        **left_out,
        **numbers,
    }
    _describe(folder, results, iterations)


def put_own_cautions(folder: RunFolder, own: Sequence[str]) -> None:
    """Replace what asks for caution in a run alone, in its record and its report."""
    record = folder.record
    _describe(folder, record.results | {OWN_CAUTIONS: list(own)}, record.iterations)


def _describe(
    folder: RunFolder,
    results: dict[str, Any],
    iterations: Sequence[Mapping[str, Any]],
) -> None:
    """Put into the record what was found and what asks for caution; write the report.

    The files of what was found are there.
    """
    folder.describe(results, iterations)
    found = cautions(assess(read_content(folder.path)))
    folder.describe(results | {CAUTIONS: found}, iterations)
    write_report(folder.path)
