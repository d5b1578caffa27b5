"""The figures of the report, as SVG text that stands alone.

Every function draws without pyplot, leaves no state behind and returns SVG: one
drawing, or those that lie side by side where there is room.
"""

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.evaluation.against_truth import Coverage
from cryoinfer.inference.outlier_score import FALSE_ALARMS
from cryoinfer.report.style import (
    BLUE,
    COLUMN_INCHES,
    GREEN,
    GREY,
    MUTED,
    ORANGE,
    PANEL_INCHES,
    add_scale_bar,
    coverage_axes,
    figure_style,
    label_resolution,
    tick_round_numbers,
    to_svg,
)
from cryoinfer.results.run_result import Iteration
from cryoinfer.wording import format_duration, spell_angstrom

Array = NDArray[np.float64]

_PICTURE_INCHES = (2.3, 2.5)
"""Of one view of a map: two are side by side on a phone."""

_NAME_CHARACTERS = 24
"""Of the name of a stage on one line."""


FSC_CAPTION = (
    "At 0.143 the map of all particles would correlate to 0.5 with a perfect one, if "
    "the halves share nothing but the structure (Rosenthal and Henderson, 2003): a "
    "convention, and an average over the map, which says nothing of its parts. At 0.5 "
    "as much of each half is signal as noise."
)
"""Of the curves of half-maps."""

MAP_CAPTION = (
    "Density is white. Each picture has its own grey scale, from its 0.5th to its "
    "99.8th percentile: noise looks as strong as a particle where there is none."
)
"""Of the pictures of a map."""


def draw_fsc(
    corrected: Tensor,
    unmasked: Tensor,
    pixel_size_angstrom: float,
    masked: Tensor | None = None,
    randomised: Tensor | None = None,
) -> str:
    """Draw the half-map FSC curves over the spatial frequency.

    Parameters
    ----------
    corrected, unmasked : Tensor, shape (n // 2 + 1,)
        The last shell is Nyquist.
    pixel_size_angstrom : float
    masked, randomised : Tensor, shape (n // 2 + 1,), optional
        What the corrected curve was made of.

    Returns
    -------
    str
    """
    nyquist_per_angstrom = 0.5 / pixel_size_angstrom
    frequency = np.linspace(0, nyquist_per_angstrom, len(corrected))
    with figure_style():
        figure = Figure(figsize=(COLUMN_INCHES, 3.5))
        axes = figure.add_subplot()
        for values, label, colour, dashes, width in (
            (unmasked, "no mask", GREY, "-", 1.5),
            (masked, "masked", ORANGE, (0, (5, 2)), 1.5),
            (randomised, "masked, random phases", GREEN, (0, (1, 1.3)), 1.5),
            (corrected, "masked, corrected", BLUE, "-", 2.4),
        ):
            if values is not None:
                axes.plot(
                    frequency[1:],
                    values.cpu().numpy()[1:],
                    color=colour,
                    linestyle=dashes,
                    linewidth=width,
                    label=label,
                )
        for threshold in (0.5, 0.143):
            axes.axhline(threshold, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            # On the left, where no curve is so low.
            axes.annotate(
                f"{threshold}",
                (0, threshold),
                xytext=(3, 2),
                textcoords="offset points",
                ha="left",
                va="bottom",
                color=MUTED,
            )
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set(ylabel="Fourier shell correlation", ylim=(-0.15, 1.04))
        label_resolution(axes, nyquist_per_angstrom)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        return to_svg(figure)


def draw_map(density: Array, pixel_size_angstrom: float) -> list[str]:
    """Draw the projection and the central slice of a map along each of its axes.

    Parameters
    ----------
    density : ndarray, shape (n, n, n)
        Axes (z, y, x).
    pixel_size_angstrom : float

    Returns
    -------
    list of str
        Projection and slice along z, then y, then x.
    """
    box = density.shape[0]
    drawn: list[str] = []
    # The density's axes are (z, y, x); a picture lacks the one it is seen along.
    for along, right, up in (("z", "x", "y"), ("y", "x", "z"), ("x", "y", "z")):
        axis = "zyx".index(along)
        for kind, picture in (
            ("Projection", density.sum(axis)),
            ("Slice", np.take(density, box // 2, axis)),
        ):
            with figure_style():
                figure = Figure(figsize=_PICTURE_INCHES)
                axes = _picture(figure, picture, right, up)
                axes.set_title(f"{kind} along {along}")
                if not drawn:
                    add_scale_bar(axes, box, pixel_size_angstrom)
                drawn.append(to_svg(figure))
    return drawn


def _picture(figure: Figure, picture: Array, right: str, up: str) -> Axes:
    axes = figure.add_subplot()
    low, high = np.percentile(picture, (0.5, 99.8))
    axes.imshow(
        picture,
        cmap="gray",
        origin="lower",
        vmin=low,
        vmax=max(high, low + np.finfo(np.float32).tiny),
        interpolation="lanczos",
    )
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"{right} \N{RIGHTWARDS ARROW}", color=MUTED)
    axes.set_ylabel(f"{up} \N{RIGHTWARDS ARROW}", color=MUTED)
    return axes


def draw_progress(iterations: Sequence[Iteration]) -> list[str]:
    """Draw where halves agree to, the gain and the change of poses of every iteration.

    The gain over no map and not the likelihood, which falls over a good run: it is that
    of ever more coefficients. So does either per coefficient, as those that are added
    hold less signal.

    Parameters
    ----------
    iterations : sequence of Iteration
        At least one.

    Returns
    -------
    list of str
        Three; two of a run of before gains were kept.
    """
    number = np.arange(1, len(iterations) + 1)
    resolution = np.array([i.resolution_angstrom for i in iterations])
    change = np.array([i.pose_change_degrees for i in iterations])
    gain = np.array([i.gain_nats for i in iterations])

    def drawn(values: Array, label: str, colour: str, scale: str = "log") -> str:
        with figure_style():
            figure = Figure(figsize=PANEL_INCHES)
            axes = figure.add_subplot()
            axes.plot(number, values, color=colour, marker="o", markersize=4)
            axes.set(xlabel="iteration", ylabel=label, yscale=scale)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            if values is resolution:
                tick_round_numbers(axes, resolution)
            return to_svg(figure)

    panels = [drawn(resolution, "halves agree to (Å)", BLUE)]
    if np.isfinite(gain).any():
        panels.append(drawn(gain, "gain (nats per particle)", ORANGE, "linear"))
    # Poses that have not moved at all have no place on a logarithmic scale.
    moved = np.where(change > 0, change, np.nan)
    return [*panels, drawn(moved, "poses moved by (°)", GREEN)]


def draw_times(stage_seconds: Mapping[str, float]) -> str:
    """Draw the time of every stage as horizontal bars, in the order of the run.

    Parameters
    ----------
    stage_seconds : mapping from stage to seconds
        At least one.

    Returns
    -------
    str
    """
    names = [_broken(spell_angstrom(name)) for name in stage_seconds]
    seconds = list(stage_seconds.values())
    lines = max(name.count("\n") + 1 for name in names)
    with figure_style():
        height = 0.8 + (0.17 + 0.15 * lines) * len(names)
        figure = Figure(figsize=(COLUMN_INCHES, height))
        axes = figure.add_subplot()
        bars = axes.barh(names, seconds, color=BLUE, height=0.62)
        axes.bar_label(bars, [format_duration(s) for s in seconds], padding=4)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(xlabel="seconds")
        axes.margins(x=0.12)
        return to_svg(figure)


def draw_coverage(coverage: Coverage) -> str:
    """Draw how often the truth lies inside the stated region, by its nominal level.

    Parameters
    ----------
    coverage : Coverage

    Returns
    -------
    str
    """
    with figure_style():
        figure = Figure(figsize=(4.2, 3.7))
        axes = coverage_axes(figure, coverage.n_particles, "calibrated, 95%")
        axes.plot(coverage.nominal, coverage.observed, color=BLUE, label="observed")
        axes.legend(loc="upper left")
        return to_svg(figure)


def draw_noise(spectrum: Array, box: int, pixel_size_angstrom: float) -> str:
    """Draw the noise power of every ring, one line an optics group.

    Parameters
    ----------
    spectrum : ndarray, shape (groups, rings)
        Power per Fourier coefficient; ring 0 is not drawn.
    box : int
    pixel_size_angstrom : float

    Returns
    -------
    str
    """
    frequency = np.arange(spectrum.shape[1]) / (box * pixel_size_angstrom)
    shown = np.flatnonzero(frequency <= 0.5 / pixel_size_angstrom)[1:]
    with figure_style():
        figure = Figure(figsize=(COLUMN_INCHES, 2.8))
        axes = figure.add_subplot()
        for power in spectrum:
            alpha = 1.0 if len(spectrum) == 1 else 0.5
            axes.plot(frequency[shown], power[shown], color=BLUE, alpha=alpha)
        low, high = spectrum[:, shown].min(), spectrum[:, shown].max()
        if low > 0 and high / low > 5:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(0, 1.1 * high if high > 0 else 1)
        axes.set_ylabel("noise power")
        label_resolution(axes, 0.5 / pixel_size_angstrom)
        return to_svg(figure)


def draw_outlier_scores(score: Array) -> str:
    """Draw the histogram of outlier scores, with the threshold and what is expected.

    Parameters
    ----------
    score : ndarray, shape (n,)
        In nats, at least one; infinite ones are in the last bar.

    Returns
    -------
    str
    """
    threshold = -np.log(FALSE_ALARMS)
    known = np.nan_to_num(score, nan=np.inf)
    finite = known[np.isfinite(known)]
    top = max(4 * threshold, float(finite.max(initial=0.0)) * 1.01)
    # Fine where all is that shows the map, in equal ratios beyond.
    edges = np.concatenate(
        ([0.0], np.geomspace(0.1, threshold, 14), np.geomspace(threshold, top, 12)[1:])
    )
    counts, _ = np.histogram(known.clip(max=edges[-1]), edges)
    expected = len(score) * -np.diff(np.exp(-edges))
    with figure_style():
        figure = Figure(figsize=(COLUMN_INCHES, 3.0))
        axes = figure.add_subplot()
        axes.stairs(counts, edges, fill=True, color=BLUE, label="images")
        axes.stairs(
            expected,
            edges,
            baseline=None,
            color=GREEN,
            linestyle=(0, (4, 2)),
            linewidth=1.5,
            label="if all were of the map",
        )
        axes.axvline(threshold, color=ORANGE, label=f"threshold {threshold:.1f}")
        axes.set_xscale("symlog", linthresh=0.1, linscale=0.4)
        axes.set(xlim=(0, top), xlabel="outlier score (nats)", ylabel="images")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
        return to_svg(figure)


def _broken(name: str) -> str:
    """Return a long name on several lines."""
    return "\n".join(wrap(name, _NAME_CHARACTERS))
