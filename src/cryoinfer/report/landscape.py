"""Drawings of densities and free energies, along one number or two."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoinfer.evaluation.free_energy import FreeEnergyPlane
from cryoinfer.evaluation.population_plane import PlanePopulation
from cryoinfer.report.style import BLUE, GREY, ORANGE, figure_style, to_svg

PANEL = (3.9, 2.9)  # inches, of a figure that stays legible on a telephone


@dataclass(frozen=True)
class Curve:
    """A curve and its band.

    Attributes
    ----------
    at, value, low, high : ndarray, shape (g,)
    """

    at: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def draw_curve(
    curve: Curve,
    labels: tuple[str, str],
    y_limits: tuple[float, float | None],
    x_limits: tuple[float, float] | None = None,
) -> str:
    """Draw a curve and its band, as SVG.

    Parameters
    ----------
    curve : Curve
    labels : tuple of str
        Of the axes x and y.
    y_limits, x_limits : tuple of float
        None leaves a limit to the drawing.
    """
    with figure_style():
        drawing = Figure(figsize=PANEL)
        axes = drawing.add_subplot()
        axes.fill_between(
            curve.at, curve.low, curve.high, color=GREY, alpha=0.35, linewidth=0
        )
        axes.plot(curve.at, curve.value, color=BLUE)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if x_limits is not None:
            axes.set_xlim(*x_limits)
        bottom, top = y_limits
        axes.set_ylim(bottom=bottom, top=top)
        return to_svg(drawing)


def draw_plane(
    plane: FreeEnergyPlane | PlanePopulation,
    labels: tuple[str, str],
    highest_kt: float,
    marks: NDArray[np.float64] | None = None,
) -> str:
    """Draw the free energy of two numbers, as SVG.

    Parameters
    ----------
    plane : FreeEnergyPlane or PlanePopulation
    labels : tuple of str
        Of the first and the second number.
    highest_kt : float
        That has a colour of its own.
    marks : ndarray, shape (m, 2), optional
        Places that get a cross.
    """
    with figure_style():
        drawing = Figure(figsize=PANEL)
        axes = drawing.add_subplot()
        shown = axes.pcolormesh(
            plane.first,
            plane.second,
            plane.energy.T,
            cmap="viridis_r",
            vmin=0,
            vmax=highest_kt,
            shading="nearest",
            rasterized=True,
        )
        drawing.colorbar(shown, ax=axes, label="kT")
        if marks is not None:
            axes.plot(*marks.T, "x", color=ORANGE, markersize=7)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        return to_svg(drawing)
