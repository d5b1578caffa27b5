"""The page about an encoder."""

from dataclasses import dataclass, replace

import pytest

from cryoinfer.report import TrainingContent, render_training_report
from cryoinfer.report.style import THEME_COLOURS
from cryoinfer.report.training import assess_training
from cryoinfer.report.trials import judge_trials, trial_section
from cryoinfer.results.calibration_trial import (
    BINS,
    ENCODER,
    LEVELS,
    REFINED,
    SEARCHED,
    CalibrationTrial,
)


@dataclass(frozen=True)
class Look:
    step: int
    loss_nats: float
    median_degrees: float


EVEN = CalibrationTrial(
    images=1000,
    median_degrees=1.23,
    coverage=LEVELS,
    calibration_error=0.01,
    ranks={"rotation": (50,) * BINS, "shift x": (50,) * BINS},
    p_values={"rotation": 0.5, "shift x": 0.7},
)
WIDE = replace(
    EVEN,
    median_degrees=4.56,
    coverage=tuple(min(1.0, 1.4 * level) for level in LEVELS),
    p_values={"rotation": 1e-9, "shift x": 0.7},
)


@pytest.fixture
def content() -> TrainingContent:
    return TrainingContent(
        title="encoder <1>",
        created="2024-05-02",
        verdict="converged: all is well",
        converged=True,
        checks=[Look(250, 5.0, 40.0), Look(500, 1.0, 3.0)],
        trials={ENCODER: EVEN, REFINED: replace(EVEN, median_degrees=0.07)},
        stage_seconds={"training": 61.0, "calibration": 9.0},
        arguments={"--steps": "500"},
        versions={"cryoinfer": "1.2.3"},
    )


def test_the_page_says_how_training_and_trials_went(content: TrainingContent) -> None:
    page = render_training_report(content)
    for text in (
        "encoder &lt;1&gt;",
        "Converged: all is well.",
        "1.23°",
        "0.07°",
        "1 min 10 s",
        "1,000 images were simulated",
        "<code>--steps</code>",
        "1.2.3",
    ):
        assert text in page
    assert page.count("<figure") == 4
    _, body = page.split("</style>", 1)
    assert not any(colour in body for colour in THEME_COLOURS)


def test_a_search_is_tried_alone() -> None:
    shown = trial_section({SEARCHED: EVEN})
    assert "<th>search</th>" in shown
    assert "encoder" not in shown
    (finding,) = judge_trials({SEARCHED: EVEN})
    assert finding.level == "good"
    assert finding.text.startswith("Posteriors of the search: 90.0% ")


def test_good_posteriors_are_called_good(content: TrainingContent) -> None:
    assert [finding.level for finding in assess_training(content)] == ["good"] * 2


def test_what_is_wrong_is_named(content: TrainingContent) -> None:
    wrong = replace(
        content,
        verdict="still learning: more steps will help",
        converged=False,
        trials={ENCODER: WIDE, REFINED: replace(WIDE, coverage=(0.0,) * len(LEVELS))},
    )
    findings = assess_training(wrong)
    assert {finding.level for finding in findings} == {"caution"}
    text = " ".join(finding.text for finding in findings)
    assert "The training: still learning" in text
    assert (
        "encoder alone: 100.0% of 1,000 simulated truths lie in the 90 % sets" in text
    )
    assert "wider than necessary" in text
    assert "encoder with local refinement: 0.0% of 1,000 simulated truths" in text
    assert "too narrow: trust them less" in text
    assert "ranks of the true rotation (p < 0.001) are less even" in text


@pytest.mark.parametrize("names", [(ENCODER, REFINED), (SEARCHED,)])
@pytest.mark.parametrize("unknowns", [2, 9])
@pytest.mark.parametrize(("p_value", "level"), [(0.003, "caution"), (0.02, "good")])
def test_one_rule_for_every_workflow(
    names: tuple[str, ...], unknowns: int, p_value: float, level: str
) -> None:
    # However many unknowns and trials a workflow has, 0.003 is below 0.01.
    p_values = {f"amplitude {k}": 0.5 for k in range(1, unknowns)}
    trial = replace(EVEN, p_values={"rotation": p_value, **p_values})
    found = judge_trials(dict.fromkeys(names, trial))
    assert [finding.level for finding in found] == [level] * len(names)
    assert all(
        ("true rotation (p = 0.003)" in finding.text) == (level == "caution")
        for finding in found
    )


def test_posteriors_with_uneven_ranks_are_nowhere_called_good() -> None:
    (finding,) = judge_trials({SEARCHED: replace(EVEN, p_values={"rotation": 1e-3})})
    assert finding.level == "caution"


def test_sets_that_chance_explains_are_called_neither_narrow_nor_wide() -> None:
    # Of 100 images a share of one half is known to 5 points: 0.4 is within three
    # deviations, and says nothing of sets whose 90 % hold all truths (3.3 deviations).
    coverage = tuple({0.5: 0.4, 0.9: 1.0}.get(level, level) for level in LEVELS)
    (finding,) = judge_trials({SEARCHED: replace(EVEN, images=100, coverage=coverage)})
    assert finding.text.endswith("the sets are wider than necessary.")
