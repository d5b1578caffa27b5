"""The figures of the page about an encoder, as SVG text that stands alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from cryoinfer.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PANEL_INCHES,
    coverage_axes,
    figure_style,
    tick_round_numbers,
    to_svg,
)
from cryoinfer.results.calibration_trial import BINS, LEVELS, CalibrationTrial

_STYLES = ((ORANGE, (0, (5, 2))), (BLUE, "-"))
"""Colour and dashes of the first trial, and of another: refined from the first."""


def draw_learning(
    steps: Sequence[int], loss_nats: Sequence[float], median_degrees: Sequence[float]
) -> list[str]:
    """Draw loss and error of images that are not learned from, by step.

    Parameters
    ----------
    steps, loss_nats, median_degrees : sequence
        One or more of each.

    Returns
    -------
    list of str
        Two.
    """
    degrees = np.array(median_degrees)
    drawn = []
    for values, label, colour in (
        (np.array(loss_nats), "loss (nats an image)", GREEN),
        (degrees, "median error (°)", BLUE),
    ):
        with figure_style():
            figure = Figure(figsize=PANEL_INCHES)
            axes = figure.add_subplot()
            axes.plot(steps, values, color=colour, marker=".")
            axes.set(xlabel="step", ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
            if values is degrees:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
                tick_round_numbers(axes, degrees)
            drawn.append(to_svg(figure))
    return drawn


def draw_shares(trials: Mapping[str, CalibrationTrial]) -> str:
    """Draw the share of truths in credible sets, by their level.

    Parameters
    ----------
    trials : mapping of str to CalibrationTrial
        Of as many images each.

    Returns
    -------
    str
    """
    images = next(iter(trials.values())).images
    with figure_style():
        figure = Figure(figsize=(4.2, 3.7))
        axes = coverage_axes(figure, images, "exact, 95%")
        for name, trial, colour, dashes in _styled(trials):
            axes.plot(
                LEVELS, trial.coverage, color=colour, linestyle=dashes, label=name
            )
        axes.legend(loc="upper left")
        return to_svg(figure)


def draw_ranks(trials: Mapping[str, CalibrationTrial]) -> list[str]:
    """Draw how often the truth has each rank among draws, by unknown.

    Parameters
    ----------
    trials : mapping of str to CalibrationTrial
        Of as many images and the same unknowns each.

    Returns
    -------
    list of str
        One an unknown.
    """
    first = next(iter(trials.values()))
    expected = first.images / BINS
    spread = 1.96 * np.sqrt(expected * (1 - 1 / BINS))
    edges = np.linspace(0, 1, BINS + 1)
    drawn = []
    for unknown in first.ranks:
        with figure_style():
            figure = Figure(figsize=PANEL_INCHES)
            axes = figure.add_subplot()
            low, high = expected - spread, expected + spread
            axes.axhspan(low, high, color=GREY, alpha=0.35, linewidth=0)
            for name, trial, colour, dashes in _styled(trials):
                counts = trial.ranks[unknown]
                axes.stairs(
                    counts, edges, color=colour, linestyle=dashes, label=name, lw=1.4
                )
            axes.set(xlabel=f"rank of {unknown}", xlim=(0, 1), xticks=[0, 0.5, 1])
            axes.set(ylabel="images")
            axes.set_ylim(bottom=0)
            axes.legend(
                loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2
            )
            drawn.append(to_svg(figure))
    return drawn


def _styled(
    trials: Mapping[str, CalibrationTrial],
) -> Iterator[tuple[str, CalibrationTrial, str, Any]]:
    """Yield each trial with its name, colour and dashes."""
    styles = _STYLES[: len(trials)]
    for (name, trial), (colour, dashes) in zip(trials.items(), styles, strict=True):
        yield name, trial, colour, dashes
