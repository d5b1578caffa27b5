"""The figures of poses, as SVG text that stands alone."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cryoinfer.report.style import (
    BLUE,
    COLUMN_INCHES,
    MUTED,
    ORANGE,
    PANEL_INCHES,
    figure_style,
    to_svg,
)

Array = NDArray[np.float64]


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
        figure = Figure(figsize=(COLUMN_INCHES, 3.3))
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
        bar = figure.colorbar(
            mesh, ax=axes, location="bottom", shrink=0.8, pad=0.04, aspect=30
        )
        bar.set_label("views, relative to an even spread")
        bar.outline.set_visible(False)
        return to_svg(figure)


def draw_uncertainty(panels: Sequence[tuple[Array, str, str]]) -> list[str]:
    """Draw histograms of each particle's posterior standard deviations.

    Parameters
    ----------
    panels : sequence of (values, label, unit)
        At least one; values have the shape (n,).

    Returns
    -------
    list of str
        One a panel.
    """
    drawn = []
    for values, label, unit in panels:
        with figure_style():
            figure = Figure(figsize=PANEL_INCHES)
            axes = figure.add_subplot()
            _histogram(axes, values, unit)
            axes.set(xlabel=f"sd of {label} ({unit})", ylabel="particles")
            drawn.append(to_svg(figure))
    return drawn


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
        figure = Figure(figsize=(4.2, 3.4))
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
