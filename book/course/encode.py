"""States of a figure as JSON that a page can carry: every different array once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from course.plot import Arrays, Heat, Panel, Plot, arrays_of, settings_of
from cryoinfer.report.packing import MISSING, MISSING_OF_8_BITS, encode, pack

LEVELS_16, LEVELS_8 = MISSING - 1, MISSING_OF_8_BITS - 1
"""Steps between the smallest and the largest value of an array; one more is NaN."""


class ArrayTable:
    """Arrays, each kept once, as numbers of one or two bytes."""

    def __init__(self) -> None:
        self.packed: list[dict[str, Any]] = []
        self._places: dict[tuple[bytes, int], int] = {}

    def place(self, array: NDArray[np.float64], levels: int) -> int:
        """Return the number under which an array is kept."""
        flat = np.ascontiguousarray(array, dtype=np.float64).ravel()
        key = (flat.tobytes(), levels)
        if key not in self._places:
            self._places[key] = len(self.packed)
            self.packed.append(packed(flat, levels))
        return self._places[key]


def packed(flat: NDArray[np.float64], levels: int) -> dict[str, Any]:
    """Return an array in steps of its range, as base64.

    Parameters
    ----------
    flat : array, shape (n,)
        Finite numbers and NaN.
    levels : {LEVELS_16, LEVELS_8}
        Steps of the range.

    Raises
    ------
    ValueError
        If a number is infinite.
    """
    if np.isinf(flat).any():
        raise ValueError("a figure has an infinite number in it")
    found = pack(flat, levels + 1)
    return {
        "least": found.least,
        "step": found.step,
        "missing": levels + 1,
        "data": encode(found.codes),
    }


def encoded(plot: Plot, table: ArrayTable) -> dict[str, Any]:
    """Return one state; its arrays are numbers of the table."""
    return {
        "says": plot.says,
        "panels": [_encoded_panel(panel, table) for panel in plot.panels],
    }


def _as_drawn(arrays: Arrays, panel: Panel) -> Arrays:
    """Return arrays with logarithms for logarithmic axes, whose steps are then even.

    What is not positive has no place on such an axis, and becomes NaN.
    """
    logarithmic = {"x": panel.log_x, "y": panel.log_y}
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: np.where(one > 0, np.log10(one), np.nan)
            if logarithmic.get(name)
            else one
            for name, one in arrays.items()
        }


def _encoded_panel(panel: Panel, table: ArrayTable) -> dict[str, Any]:
    marks = []
    for mark in panel.marks:
        levels = LEVELS_8 if isinstance(mark, Heat) else LEVELS_16
        arrays: Arrays = _as_drawn(arrays_of(mark), panel)
        places = {name: table.place(one, levels) for name, one in arrays.items()}
        marks.append(settings_of(mark) | places)
    return {
        "title": panel.title,
        "x": panel.x,
        "y": panel.y,
        "xRange": panel.x_range,
        "yRange": panel.y_range,
        "equal": panel.equal,
        "logX": panel.log_x,
        "logY": panel.log_y,
        "marks": marks,
    }
