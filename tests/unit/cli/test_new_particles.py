"""What is known of an encoder before it infers anything."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cryoinfer.cli.inference_sources import trials_beside
from cryoinfer.results.calibration_trial import (
    BINS,
    ENCODER,
    LEVELS,
    REFINED,
    CalibrationTrial,
)
from cryoinfer.results.layout import RECORD
from cryoinfer.results.run_record import RunRecord

RANKS = {"rotation": (5,) * BINS}
TRIAL = asdict(CalibrationTrial(100, 1.5, LEVELS, 0.01, RANKS, {"rotation": 0.5}))


def beside(folder: Path, trials: object) -> tuple[dict[str, object], list[str]]:
    record = RunRecord.of_now("train", {}, {}, 0, 1)
    replace(record, results={"trials": trials}).write(folder)
    return trials_beside(folder / "encoder.pt", ENCODER)


def test_the_trial_of_the_posteriors_that_are_given_is_found(tmp_path: Path) -> None:
    trials, doubts = beside(tmp_path, {ENCODER: TRIAL, REFINED: TRIAL})
    assert (list(trials), doubts) == ([ENCODER], [])
    for none in ({REFINED: TRIAL}, {}):
        trials, (doubt,) = beside(tmp_path, none)
        assert trials == {}
        assert "have not been tested" in doubt
    (tmp_path / RECORD).unlink()
    trials, (doubt,) = trials_beside(tmp_path / "encoder.pt", ENCODER)
    assert "not beside its file" in doubt


@pytest.mark.parametrize(
    "trials",
    [
        {ENCODER: {"images": 100, "coverage": [0.5]}},
        {ENCODER: TRIAL | {"coverage": [0.5]}},
        {ENCODER: None},
        [ENCODER],
        None,
    ],
)
def test_a_trial_of_another_version_is_none_and_told_of(
    tmp_path: Path, trials: object
) -> None:
    found, (doubt,) = beside(tmp_path, trials)
    assert found == {}
    assert "cannot be read" in doubt
    assert f"{tmp_path / RECORD} is damaged, or of another version" in doubt


def test_a_damaged_record_beside_an_encoder_is_told_of(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("{")
    found, (doubt,) = trials_beside(tmp_path / "encoder.pt", ENCODER)
    assert found == {}
    assert "cannot be read" in doubt


def test_the_trials_of_a_run_about_conformations_are_found(tmp_path: Path) -> None:
    record = RunRecord.of_now("heterogeneity", {}, {}, 0, 1)
    numbers = {
        "verdict": "z carries information",
        "encoder": {"trials": {REFINED: TRIAL}},
    }
    replace(record, results=numbers).write(tmp_path)
    trials, doubts = trials_beside(tmp_path / "encoder.pt", REFINED)
    assert (list(trials), doubts) == ([REFINED], [])
