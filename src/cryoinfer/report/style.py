"""The look that all figures share, and the parts that several of them have.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; lines
differ in dashes as well. Every colour has a CSS variable, so that the page can
exchange it on a dark screen.
"""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, MUTED, GRID = "#1b2733", "#5d6b79", "#dde3e9"
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a97a3"

THEME_COLOURS: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    GREY: "--grey",
}
"""The CSS variable that the page puts in the place of each colour."""

COLUMN_INCHES = 4.9
"""Width of a drawing whose text is legible on a phone and not too large on a desk."""

PANEL_INCHES = (3.5, 2.8)
"""Of one of several drawings side by side, which a phone shows below each other."""

_RASTER_DPI = 120


def figure_style() -> AbstractContextManager[None]:
    """Return a context in which figures get the report's fonts, lines and colours."""
    return mpl.rc_context(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": MUTED,
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.labelsize": 10,
            "axes.linewidth": 0.8,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlecolor": INK,
            "axes.titlelocation": "left",
            "axes.titlesize": 10.5,
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "legend.fontsize": 9.5,
            "legend.frameon": False,
            "legend.labelcolor": INK,
            "lines.linewidth": 1.8,
            "svg.fonttype": "path",
            "svg.hashsalt": "cryoinfer",
            "text.color": INK,
            "xtick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.color": MUTED,
            "ytick.labelcolor": INK,
        }
    )


def to_svg(figure: Figure) -> str:
    """Return a figure as SVG text, the same for the same figure every time."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        dpi=_RASTER_DPI,
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def label_resolution(axes: Axes, nyquist_per_angstrom: float) -> None:
    """Give an axis of spatial frequencies ticks that read as resolutions."""
    ticks = np.linspace(0, nyquist_per_angstrom, 9)[1:]
    axes.set_xlim(0, nyquist_per_angstrom)
    axes.set_xticks(ticks, [f"{1 / t:.3g}" for t in ticks])
    axes.set_xlabel("resolution (Å)")


def tick_round_numbers(axes: Axes, values: NDArray[np.float64]) -> None:
    """Fit a logarithmic y axis to values, with ticks at round numbers."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return
    low, high = known.min(), known.max()
    round_numbers = np.outer((1, 10, 100, 1000), (1, 1.5, 2, 3, 4, 5, 7)).ravel()
    inside = (round_numbers >= 0.85 * low) & (round_numbers <= 1.15 * high)
    axes.set_yticks(round_numbers[inside])
    axes.set_ylim(0.85 * low, 1.15 * high)


def add_scale_bar(axes: Axes, box: int, pixel_size_angstrom: float) -> None:
    """Draw a bar of a round length, about a quarter of the picture's width."""
    length_angstrom = _round_length(box * pixel_size_angstrom / 4)
    length_px = length_angstrom / pixel_size_angstrom
    start, height = 0.06 * box, 0.07 * box
    axes.plot(
        [start, start + length_px],
        [height, height],
        color="white",
        linewidth=3,
        solid_capstyle="butt",
    )
    axes.text(
        start + length_px / 2,
        height + 0.025 * box,
        f"{length_angstrom:g} Å",
        color="white",
        ha="center",
        va="bottom",
    )


def coverage_axes(figure: Figure, count: int, label: str) -> Axes:
    """Return axes for the share of truths in sets by their level, with what is exact.

    The band is what 95 of 100 exactly calibrated sets of as many truths would show.
    """
    level = np.linspace(0, 1, 101)
    spread = 1.96 * np.sqrt(level * (1 - level) / count)
    axes = figure.add_subplot()
    axes.fill_between(
        level,
        (level - spread).clip(0, 1),
        (level + spread).clip(0, 1),
        color=GREY,
        alpha=0.35,
        linewidth=0,
        label=label,
    )
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set(
        xlabel="stated probability",
        ylabel="truth inside",
        xlim=(0, 1),
        ylim=(0, 1.02),
        aspect="equal",
    )
    return axes


def _round_length(length: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten below a length."""
    decade = 10.0 ** np.floor(np.log10(length))
    return float(max(m * decade for m in (1, 2, 5) if m * decade <= length))
