"""The figures of the report, as SVG text that stands alone.

Every function draws one figure without pyplot, leaves no state behind and returns SVG.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.report.content import Coverage, IterationLike
from cryoinfer.report.style import (
    BLUE,
    GREEN,
    GREY,
    MUTED,
    ORANGE,
    add_scale_bar,
    coverage_axes,
    figure_style,
    format_duration,
    label_resolution,
    tick_round_numbers,
    to_svg,
)

Array = NDArray[np.float64]


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
        figure = Figure(figsize=(7.2, 3.9))
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
            axes.annotate(
                f"{threshold}",
                (nyquist_per_angstrom, threshold),
                xytext=(0, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                color=MUTED,
            )
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set(ylabel="Fourier shell correlation", ylim=(-0.15, 1.04))
        label_resolution(axes, nyquist_per_angstrom)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
        return to_svg(figure)


def draw_map(density: Array, pixel_size_angstrom: float) -> str:
    """Draw the projections and the central slices of a map along its three axes.

    Parameters
    ----------
    density : ndarray, shape (n, n, n)
        Axes (z, y, x).
    pixel_size_angstrom : float

    Returns
    -------
    str
    """
    box = density.shape[0]
    # The density's axes are (z, y, x); a picture lacks the one it is seen along.
    views = [("z", "x", "y"), ("y", "x", "z"), ("x", "y", "z")]
    with figure_style():
        figure = Figure(figsize=(7.2, 5.0))
        grid = figure.subplots(2, 3)
        for column, (along, right, up) in enumerate(views):
            axis = "zyx".index(along)
            pictures = density.sum(axis), np.take(density, box // 2, axis)
            for row, picture in enumerate(pictures):
                axes = grid[row][column]
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
                kind = "Projection" if row == 0 else "Central slice"
                axes.set_title(f"{kind} along {along}")
        add_scale_bar(grid[0][0], box, pixel_size_angstrom)
        return to_svg(figure)


def draw_views(directions: Array) -> str:
    """Draw how often each viewing direction occurs, on an equal-area map.

    Parameters
    ----------
    directions : ndarray, shape (n, 3)
        Unit vectors (x, y, z) of the beam in the frame of the map.

    Returns
    -------
    str
    """
    relative, longitude, latitude = _smooth_on_sphere(directions)
    with figure_style():
        figure = Figure(figsize=(7.2, 3.7))
        axes = figure.add_subplot(projection="mollweide")
        mesh = axes.pcolormesh(
            longitude,
            latitude,
            relative,
            cmap="cividis",
            vmin=0,
            vmax=max(2.0, float(relative.max())),
            rasterized=True,
        )
        axes.grid(True, color="white", alpha=0.25, linewidth=0.5)
        axes.set(xticklabels=[])
        axes.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]))
        axes.spines[:].set_edgecolor(MUTED)
        bar = figure.colorbar(mesh, ax=axes, shrink=0.8, pad=0.03)
        bar.set_label("views, relative to an even spread")
        bar.outline.set_visible(False)
        return to_svg(figure)


def draw_uncertainty(panels: Sequence[tuple[Array, str, str]]) -> str:
    """Draw histograms of each particle's posterior standard deviations.

    Parameters
    ----------
    panels : sequence of (values, label, unit)
        At least one; values have the shape (n,).

    Returns
    -------
    str
    """
    with figure_style():
        figure = Figure(figsize=(7.2, 2.7))
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (values, label, unit) in zip(row, panels, strict=True):
            _histogram(axes, values, unit)
            axes.set(xlabel=f"sd of {label} ({unit})")
        row[0].set_ylabel("particles")
        return to_svg(figure)


def draw_shifts(shift_angstrom: Array) -> str:
    """Draw where the particles sit in their boxes.

    Parameters
    ----------
    shift_angstrom : ndarray, shape (n, 2)
        Displacement (x, y) from the image centre.

    Returns
    -------
    str
    """
    reach = max(float(np.percentile(np.abs(shift_angstrom), 99.5)) * 1.15, 0.5)
    cells = int(np.clip(np.sqrt(len(shift_angstrom) / 8), 15, 60))
    counts, _, _ = np.histogram2d(
        shift_angstrom[:, 1],
        shift_angstrom[:, 0],
        bins=cells,
        range=[[-reach, reach]] * 2,
    )
    with figure_style():
        figure = Figure(figsize=(4.6, 3.7))
        axes = figure.add_subplot()
        picture = axes.imshow(
            np.where(counts > 0, counts, np.nan),
            cmap="cividis",
            origin="lower",
            extent=(-reach, reach, -reach, reach),
            interpolation="nearest",
        )
        axes.grid(False)
        axes.set(xlabel="shift along x (Å)", ylabel="shift along y (Å)")
        bar = figure.colorbar(picture, ax=axes, pad=0.03)
        bar.set_label("particles")
        bar.locator = MaxNLocator(integer=True, nbins=6)
        bar.outline.set_visible(False)
        return to_svg(figure)


def draw_progress(iterations: Sequence[IterationLike]) -> str:
    """Draw the resolution and the log likelihood of every iteration.

    Parameters
    ----------
    iterations : sequence of IterationLike
        At least one.

    Returns
    -------
    str
    """
    number = np.arange(1, len(iterations) + 1)
    resolution = np.array([i.resolution_angstrom for i in iterations])
    likelihood = np.array([i.log_likelihood for i in iterations])
    with figure_style():
        figure = Figure(figsize=(7.2, 2.9))
        left, right = figure.subplots(1, 2)
        left.plot(number, resolution, color=BLUE, marker="o", markersize=4)
        left.set(xlabel="iteration", ylabel="resolution (Å)", yscale="log")
        left.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        left.yaxis.set_minor_formatter(NullFormatter())
        tick_round_numbers(left, resolution)
        right.plot(number, likelihood, color=GREEN, marker="o", markersize=4)
        right.set(xlabel="iteration", ylabel="log likelihood a particle (nats)")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return to_svg(figure)


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
    names, seconds = list(stage_seconds), list(stage_seconds.values())
    with figure_style():
        figure = Figure(figsize=(7.2, 0.7 + 0.32 * len(names)))
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
        figure = Figure(figsize=(4.4, 3.9))
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
        figure = Figure(figsize=(7.2, 3.0))
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


def _smooth_on_sphere(directions: Array) -> tuple[Array, Array, Array]:
    """Return a density relative to an even one, and longitude and latitude edges.

    The kernel is von Mises and Fisher's, ``2 kappa / (1 - exp(-2 kappa)) *
    exp(kappa (cos - 1))`` relative to an even density.
    """
    # The kernel holds about 2 n / kappa particles: 100, for a noise of 10 %.
    kappa = float(np.clip(len(directions) / 50, 8, 300))
    latitude = np.linspace(-np.pi / 2, np.pi / 2, 61)
    longitude = np.linspace(-np.pi, np.pi, 121)
    height, turn = np.meshgrid(
        np.sin(_middles(latitude)), _middles(longitude), indexing="ij"
    )
    radius = np.sqrt(1 - height**2)
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=-1)
    points, directions = points.astype(np.float32), directions.astype(np.float32)
    density = np.zeros(height.shape)
    for few in np.array_split(directions, len(directions) // 500 + 1):
        density += np.exp(kappa * (points @ few.T - 1)).sum(-1)
    density *= 2 * kappa / -np.expm1(-2 * kappa) / len(directions)
    return density, longitude, latitude


def _middles(edges: Array) -> Array:
    return (edges[1:] + edges[:-1]) / 2


def _histogram(axes: Axes, values: Array, unit: str) -> None:
    known = values[np.isfinite(values)]
    top = float(np.percentile(known, 99)) if len(known) else 1.0
    # What lies beyond the 99th percentile is gathered in the last bar.
    cells = int(np.clip(np.sqrt(len(known)), 10, 50))
    edges = np.linspace(0, max(top, 1e-6), cells + 1)
    axes.hist(known.clip(max=edges[-1]), bins=edges.tolist(), color=BLUE)
    if len(known):
        middle = float(np.median(known))
        axes.axvline(middle, color=ORANGE, linewidth=1.5)
        space = "" if unit == "\N{DEGREE SIGN}" else " "
        axes.set_title(f"median {middle:.2g}{space}{unit}")
    axes.grid(False, axis="x")
