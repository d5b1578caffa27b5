"""What trials of posteriors on simulated images say, in words and in a section."""

import math
from collections.abc import Iterator, Mapping, Sequence

from cryoinfer.report.parts import Finding, figure, section, table
from cryoinfer.report.trial_figures import draw_ranks, draw_shares
from cryoinfer.results.calibration_trial import (
    BINS,
    ENCODER,
    SEARCHED,
    VARIATIONAL,
    CalibrationTrial,
)

_EXACT_SHARE = 0.03
"""Of truths, by which a credible set may miss its level before that is mentioned."""

EXPLAINED_WELL = 0.1
"""Share of the particles' signal that a model may leave before it is called wrong."""

_CHANCE_DEVIATIONS = 3.0  # by which a share may miss it too
_JUDGED = (0.5, 0.9, 0.95)

_UNEVEN = 0.01
"""p-value of an unknown's ranks below which they are called uneven: exact posteriors
give less once in a hundred times. It is the same however many unknowns and trials there
are: a fault of one unknown is not to hide behind the number of the others."""


def judge_trials(
    trials: Mapping[str, CalibrationTrial], unexplained: float = 0.0
) -> list[Finding]:
    """Return what a user of the posteriors should know, one finding a trial.

    The one rule for posteriors of all workflows: good where credible sets of 50, 90
    and 95 % hold as many truths as they say, within 3 points or three standard
    deviations of chance, the ranks of no unknown have a p-value below 0.01, and what
    images were simulated from leaves no more than a tenth of the particles' signal.

    Parameters
    ----------
    trials : mapping of str to CalibrationTrial
    unexplained : float
        Share of the particles' signal that the model leaves, where that is known.
    """
    return [_judge(name, trial, unexplained) for name, trial in trials.items()]


def _judge(name: str, trial: CalibrationTrial, unexplained: float) -> Finding:
    text = (
        f"Posteriors of the {spoken(name)}: {trial.share_in(0.9):.1%} of "
        f"{trial.images:,} simulated truths lie in the 90 % sets, "
        f"{trial.share_in(0.5):.1%} in the 50 % sets"
    )
    wrong = [*_judge_width(trial), *_judge_ranks(trial)]
    if unexplained > EXPLAINED_WELL:
        wrong.append(
            "the images were simulated from the model, which leaves "
            f"{unexplained:.0%} of the particles' signal unexplained: the true "
            "uncertainties of the particles are larger"
        )
    if not wrong:
        return Finding("good", f"{text}.")
    return Finding("caution", f"{text}: {'; '.join(wrong)}.")


def _judge_width(trial: CalibrationTrial) -> Iterator[str]:
    """Yield what is wrong with the size of credible sets."""
    missed = []
    for level in _JUDGED:
        chance = math.sqrt(level * (1 - level) / trial.images)
        over = trial.share_in(level) - level
        if abs(over) > max(_EXACT_SHARE, _CHANCE_DEVIATIONS * chance):
            missed.append(over)
    if not missed:
        return
    narrow = min(missed) < 0
    advice = "too narrow: trust them less" if narrow else "wider than necessary"
    yield f"the sets are {advice}"


def _judge_ranks(trial: CalibrationTrial) -> Iterator[str]:
    """Yield what is wrong with the ranks of truths."""
    uneven = [
        f"{what} (p {_spoken_p(p)})"
        for what, p in trial.p_values.items()
        if not p >= _UNEVEN
    ]
    if uneven:
        yield (
            f"the ranks of the true {_listed(uneven)} are less even than chance "
            "allows: its posteriors are too narrow, too wide or biased (see the ranks "
            "in the report)"
        )


def trial_section(
    trials: Mapping[str, CalibrationTrial], unexplained: float | None = None
) -> str:
    """Return coverage, ranks and their p-values.

    Parameters
    ----------
    trials : mapping of str to CalibrationTrial
    unexplained : float, optional
        Share of the particles' signal that the model leaves.
    """
    leaves = (
        ""
        if unexplained is None
        else f", which leaves {unexplained:.0%} of the particles' signal unexplained"
    )
    images = next(iter(trials.values())).images
    return section(
        "Are the uncertainties true?",
        f"{images:,} images were simulated at random poses, with the particles' own "
        "CTFs and noise, and inferred. This does not test the error of the map, or of "
        f"the model, itself{leaves}.",
        figure(
            "trial-coverage",
            draw_shares(trials),
            "Share of truths in credible sets by level",
            "For exact posteriors, the sets of each level contain that share of the "
            "truths: the diagonal. Grey: 95 of 100 such tests. Below it, sets are too "
            "small, above it too large.",
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
            "panels",
        ),
        _trial_table(trials),
    )


def _trial_table(trials: Mapping[str, CalibrationTrial]) -> str:
    """Return a column a trial: there are fewer of them than of what is judged."""
    judged = trials.values()
    rows = [
        [f"{level:.0%} sets", *(f"{one.share_in(level):.1%}" for one in judged)]
        for level in _JUDGED
    ]
    rows += [
        [
            f"p: {unknown}",
            *(_spoken_p(one.p_values[unknown]).removeprefix("= ") for one in judged),
        ]
        for unknown in next(iter(judged)).p_values
    ]
    rows.append(["TARP error", *(f"{one.calibration_error:.3f}" for one in judged)])
    return table(("Posteriors", *map(spoken, trials)), rows)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def spoken(name: str) -> str:
    """Return how the posteriors of a trial are called in a sentence."""
    spoken_of = {
        ENCODER: "encoder alone",
        SEARCHED: "search",
        VARIATIONAL: "variational inference",
    }
    return spoken_of.get(name, f"encoder {name}")


def _spoken_p(p_value: float) -> str:
    return f"= {p_value:.3f}" if p_value >= 0.001 else "< 0.001"
