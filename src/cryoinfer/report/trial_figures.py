"""The figures of the page about an encoder, as SVG text that stands alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from cryoinfer.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    coverage_axes,
    figure_style,
    tick_round_numbers,
    to_svg,
)
from cryoinfer.workflows.trial import BINS, LEVELS, Trial

_STYLES = ((ORANGE, (0, (5, 2))), (BLUE, "-"))
"""Colour and dashes of the first trial, and of another: a climb from the first."""


def draw_learning(
    steps: Sequence[int], loss_nats: Sequence[float], median_degrees: Sequence[float]
) -> str:
    """Draw loss and error of images that are not learned from, by step.

    Parameters
    ----------
    steps, loss_nats, median_degrees : sequence
        One or more of each.

    Returns
    -------
    str
    """
    degrees = np.array(median_degrees)
    with figure_style():
        figure = Figure(figsize=(7.2, 2.9))
        left, right = figure.subplots(1, 2)
        left.plot(steps, loss_nats, color=GREEN, marker=".")
        left.set(xlabel="step", ylabel="loss (nats an image)")
        right.plot(steps, degrees, color=BLUE, marker=".")
        right.set(xlabel="step", ylabel="median error (°)", yscale="log")
        right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        right.yaxis.set_minor_formatter(NullFormatter())
        tick_round_numbers(right, degrees)
        return to_svg(figure)


def draw_shares(trials: Mapping[str, Trial]) -> str:
    """Draw the share of truths in credible sets, by their level.

    Parameters
    ----------
    trials : mapping of str to Trial
        Of as many images each.

    Returns
    -------
    str
    """
    images = next(iter(trials.values())).images
    with figure_style():
        figure = Figure(figsize=(4.4, 3.9))
        axes = coverage_axes(figure, images, "exact, 95%")
        for name, trial, colour, dashes in _styled(trials):
            axes.plot(
                LEVELS, trial.coverage, color=colour, linestyle=dashes, label=name
            )
        axes.legend(loc="upper left")
        return to_svg(figure)


def draw_ranks(trials: Mapping[str, Trial]) -> str:
    """Draw how often the truth has each rank among draws, by unknown.

    Parameters
    ----------
    trials : mapping of str to Trial
        Of as many images and the same unknowns each.

    Returns
    -------
    str
    """
    first = next(iter(trials.values()))
    unknowns, expected = list(first.ranks), first.images / BINS
    spread = 1.96 * np.sqrt(expected * (1 - 1 / BINS))
    edges = np.linspace(0, 1, BINS + 1)
    with figure_style():
        figure = Figure(figsize=(7.2, 2.6))
        panels = figure.subplots(1, len(unknowns), sharey=True, squeeze=False)[0]
        for axes, unknown in zip(panels, unknowns, strict=True):
            low, high = expected - spread, expected + spread
            axes.axhspan(low, high, color=GREY, alpha=0.35, linewidth=0)
            for name, trial, colour, dashes in _styled(trials):
                counts = trial.ranks[unknown]
                axes.stairs(
                    counts, edges, color=colour, linestyle=dashes, label=name, lw=1.4
                )
            axes.set(xlabel=f"rank of {unknown}", xlim=(0, 1), xticks=[0, 0.5, 1])
            axes.set_ylim(bottom=0)
        panels[0].set_ylabel("images")
        panels[0].legend(fontsize=7, loc="lower left")
        return to_svg(figure)


def _styled(trials: Mapping[str, Trial]) -> Iterator[tuple[str, Trial, str, Any]]:
    """Yield each trial with its name, colour and dashes."""
    styles = _STYLES[: len(trials)]
    for (name, trial), (colour, dashes) in zip(trials.items(), styles, strict=True):
        yield name, trial, colour, dashes
