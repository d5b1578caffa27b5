"""The page about an encoder: how it learned, and whether its uncertainties are true."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cryoinfer.report.parts import (
    Finding,
    figure,
    page,
    repeat_section,
    section,
    tiles,
    time_tile,
    times,
)
from cryoinfer.report.trial_figures import draw_learning
from cryoinfer.report.trials import judge_trials, trial_section
from cryoinfer.results.calibration_trial import ENCODER, CalibrationTrial


class CheckLike(Protocol):
    """A look at the images held back; the training's own record fits."""

    @property
    def step(self) -> int:
        """Return the steps that were taken before."""
        ...

    @property
    def loss_nats(self) -> float:
        """Return minus the mean log density of the truth."""
        ...

    @property
    def median_degrees(self) -> float:
        """Return the median error of the most probable pose."""
        ...


@dataclass(frozen=True)
class TrainingContent:
    """All that the page about an encoder shows.

    Attributes
    ----------
    title, created : str
    verdict : str
        Of the training, in plain words.
    converged : bool
        Whether it says so.
    checks : sequence of CheckLike
        In the order of their steps, one at least.
    trials : mapping of str to CalibrationTrial
    warnings : tuple of str
        Of what was learned from.
    stage_seconds : mapping from stage to seconds, in the order of the run
    arguments, versions : mapping
        How to repeat the training.
    """

    title: str
    created: str
    verdict: str
    converged: bool
    checks: Sequence[CheckLike]
    trials: Mapping[str, CalibrationTrial]
    stage_seconds: Mapping[str, float]
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def render_training_report(content: TrainingContent) -> str:
    """Write the training of an encoder as a self-contained HTML page."""
    alone = content.trials[ENCODER]
    last = content.checks[-1]
    return page(
        title=content.title,
        subtitle=f"Training of an encoder · {content.created}",
        verdict=f"{content.verdict[0].upper()}{content.verdict[1:]}.",
        tiles=tiles(
            ("Median error", f"{alone.median_degrees:.2f}°", "the encoder alone"),
            *(
                ("Median error", f"{trial.median_degrees:.2g}°", name)
                for name, trial in content.trials.items()
                if name != ENCODER
            ),
            ("Steps", f"{last.step:,}", f"{last.loss_nats:.2f} nats at the last"),
            time_tile(content.stage_seconds),
        ),
        findings=assess_training(content),
        sections=_sections(content),
    )


def assess_training(content: TrainingContent) -> list[Finding]:
    """Return what a user of the encoder should know."""
    findings = [Finding("caution", text) for text in content.warnings]
    if not content.converged:
        findings.append(Finding("caution", f"The training: {content.verdict}."))
    findings += judge_trials(content.trials)
    return findings


def _sections(content: TrainingContent) -> Iterator[str]:
    yield section(
        "Learning",
        "On simulated images of the map that the encoder does not learn from. One nat "
        "less means a posterior density 2.7 times as high at the truth.",
        figure(
            "learning",
            draw_learning(
                [check.step for check in content.checks],
                [check.loss_nats for check in content.checks],
                [check.median_degrees for check in content.checks],
            ),
            "Loss and error by step",
            shape="panels",
        ),
    )
    yield trial_section(content.trials)
    yield section("Course of the training", "", *times(content.stage_seconds))
    yield repeat_section(content.arguments, content.versions)
