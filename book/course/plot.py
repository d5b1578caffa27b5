"""A drawing as data: what is in it, not how it is drawn. ``figure.js`` draws it."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through points.

    Parameters
    ----------
    x, y : array-like
        Equally many numbers; where y is NaN the line is broken.
    label : str
        In the legend; empty: not there.
    dashed : bool
        Drawn in dashes, for what is a reference.
    """

    x: ArrayLike
    y: ArrayLike
    label: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class Points:
    """Dots. Parameters are those of :class:`Line`."""

    x: ArrayLike
    y: ArrayLike
    label: str = ""


@dataclass(frozen=True)
class Bars:
    """Bars from zero to y, centred at equally spaced x."""

    x: ArrayLike
    y: ArrayLike
    label: str = ""


@dataclass(frozen=True)
class Heat:
    """An image.

    Parameters
    ----------
    image : array-like
        Rows of pixels; row 0 is at the top, unless ``extent`` turns it.
    extent : four numbers, optional
        Left, right, bottom and top edge in the panel's coordinates; by default pixels,
        row 0 at the top.
    signed : bool
        Blue below zero, orange above it, white at zero; otherwise dark to light.
    limits : two numbers, optional
        Values of the darkest and lightest colour; by default those of the image.
    """

    image: ArrayLike
    extent: tuple[float, float, float, float] | None = None
    signed: bool = False
    limits: Range | None = None


Mark: TypeAlias = Line | Points | Bars | Heat


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Parameters
    ----------
    marks : tuple of marks
        Drawn in this order.
    title, x, y : str
        Words; units belong to ``x`` and ``y``.
    x_range, y_range : two numbers, optional
        By default what all states of the figure need.
    equal : bool
        One unit is as long along x as along y.
    log_x, log_y : bool
        Logarithmic axes.
    """

    marks: tuple[Mark, ...]
    title: str = ""
    x: str = ""
    y: str = ""
    x_range: Range | None = None
    y_range: Range | None = None
    equal: bool = False
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Plot:
    """Panels side by side (below each other on a phone).

    Parameters
    ----------
    panels : tuple of Panel
        At least one.
    says : str
        One line of plain words below, with the numbers of this state.
    """

    panels: tuple[Panel, ...]
    says: str = ""


Arrays: TypeAlias = dict[str, NDArray[np.float64]]


def arrays_of(mark: Mark) -> Arrays:
    """Return the arrays of a mark by name.

    Raises
    ------
    ValueError
        If x and y are not equally many numbers, or an image has no two axes.
    """
    if isinstance(mark, Heat):
        image = np.asarray(mark.image, dtype=float)
        if image.ndim != 2:
            raise ValueError(f"an image has 2 axes, and this one {image.ndim}")
        return {"image": image}
    x, y = (np.asarray(one, dtype=float) for one in (mark.x, mark.y))
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x and y are of shapes {x.shape} and {y.shape}")
    return {"x": x, "y": y}


def settings_of(mark: Mark) -> dict[str, Any]:
    """Return what is said of a mark beside its arrays, for the page."""
    if isinstance(mark, Heat):
        image = arrays_of(mark)["image"]
        rows, columns = image.shape
        limits = mark.limits
        if limits is None:
            limits = (float(np.nanmin(image)), float(np.nanmax(image)))
            if mark.signed:
                most = max(abs(limits[0]), abs(limits[1]))
                limits = (-most, most)
        extent = mark.extent or (-0.5, columns - 0.5, rows - 0.5, -0.5)
        return {
            "kind": "heat",
            "extent": [float(one) for one in extent],
            "signed": mark.signed,
            "limits": [float(one) for one in limits],
            "columns": columns,
        }
    kind = {Line: "line", Points: "points", Bars: "bars"}[type(mark)]
    dashed = isinstance(mark, Line) and mark.dashed
    return {"kind": kind, "label": mark.label, "dashed": dashed}
