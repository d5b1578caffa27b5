"""What trials of posteriors on simulated images say, in words and in a section."""

import math
from collections.abc import Mapping

from cryoinfer.report.parts import Finding, figure, section, table
from cryoinfer.report.trial_figures import draw_ranks, draw_shares
from cryoinfer.workflows.trial import BINS, ENCODER, SEARCHED, Trial

_EXACT_SHARE = 0.03
"""Of truths, by which a credible set may miss its level before that is mentioned."""

_CHANCE_DEVIATIONS = 3.0  # by which a share may miss it too
_UNEVEN = 0.01  # p-value of the least of all
_JUDGED = (0.5, 0.9, 0.95)


def judge_trials(trials: Mapping[str, Trial]) -> list[Finding]:
    """Return what a user of the posteriors should know."""
    findings = []
    for name, trial in trials.items():
        findings.append(_judge_width(name, trial))
        least = _UNEVEN / (len(trial.p_values) * len(trials))
        uneven = [what for what, p in trial.p_values.items() if p < least]
        if uneven:
            findings.append(
                Finding(
                    "caution",
                    f"Posteriors of the {_spoken(name)}: the ranks of the true "
                    f"{' and '.join(uneven)} are less even than chance allows.",
                )
            )
    return findings


def _judge_width(name: str, trial: Trial) -> Finding:
    share = trial.share_in(0.9)
    over = {level: trial.share_in(level) - level for level in _JUDGED}
    text = (
        f"Posteriors of the {_spoken(name)}: {share:.1%} of the true poses lie in the "
        f"90 % sets, {trial.share_in(0.5):.1%} in the 50 % sets"
    )
    chance = {
        level: _CHANCE_DEVIATIONS * math.sqrt(level * (1 - level) / trial.images)
        for level in _JUDGED
    }
    if all(abs(over[level]) <= max(_EXACT_SHARE, chance[level]) for level in _JUDGED):
        return Finding("good", f"{text}.")
    narrow = min(over.values()) < -_EXACT_SHARE
    advice = "too narrow: trust them less" if narrow else "wider than they need be"
    return Finding("caution", f"{text}: the sets are {advice}.")


def trial_section(trials: Mapping[str, Trial]) -> str:
    """Return coverage, ranks and their p-values."""
    images = next(iter(trials.values())).images
    return section(
        "Are the uncertainties true?",
        f"{images:,} images were simulated, of random poses and through the particles' "
        "own CTFs and noise, and inferred. What is left out here is the error of the "
        "map, or of the model, itself.",
        figure(
            "trial-coverage",
            draw_shares(trials),
            "Share of truths in credible sets by level",
            "Of exact posteriors, the sets of every level hold that share of the "
            "truths: the diagonal; grey, what 95 of 100 such tests would show. Below "
            "it, sets are too small, above it too large.",
            "narrow",
        ),
        figure(
            "ranks",
            draw_ranks(trials),
            "Histograms of the ranks of truths among draws",
            f"The rank of the truth among draws from its posterior, in {BINS} bins: "
            "even, if posteriors are exact. A slope is a bias, a hill posteriors that "
            "are too wide, a valley ones that are too narrow. A rotation is ranked by "
            "its angle from the best mode: high on the left is too wide, on the right "
            "too narrow.",
        ),
        _trial_table(trials),
    )


def _trial_table(trials: Mapping[str, Trial]) -> str:
    unknowns = list(next(iter(trials.values())).p_values)
    rows = [
        [
            _spoken(name),
            *(f"{trial.share_in(level):.1%}" for level in _JUDGED),
            *(f"{trial.p_values[unknown]:.3f}" for unknown in unknowns),
            f"{trial.calibration_error:.3f}",
        ]
        for name, trial in trials.items()
    ]
    heads = ("Posteriors", "50% sets", "90% sets", "95% sets")
    values = (*(f"p: {unknown}" for unknown in unknowns), "TARP error")
    return table((*heads, *values), rows)


def _spoken(name: str) -> str:
    return {ENCODER: "encoder alone", SEARCHED: "search"}.get(name, f"encoder {name}")
