"""A figure with sliders: computed while one moves them, or once for the built page."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anywidget
import traitlets

from course.encode import ArrayTable, encoded
from course.plot import Plot

Value: TypeAlias = float | int | str
_SCRIPT = Path(__file__).with_name("figure.js")
_STYLE = Path(__file__).with_name("figure.css")
MAX_STATES = 4000


@dataclass(frozen=True)
class Slider:
    """A number that the reader chooses.

    Parameters
    ----------
    label : str
        What it is, with its unit: "defocus (um)".
    values : sequence of float
        Those that can be chosen, rising.
    start : float, optional
        Where it stands at first; by default the value in the middle.
    """

    label: str
    values: Sequence[float]
    start: float | None = None


@dataclass(frozen=True)
class Choice:
    """One of a few words. Parameters are those of :class:`Slider`."""

    label: str
    values: Sequence[str]
    start: str | None = None


Control: TypeAlias = Slider | Choice


class Explorer(anywidget.AnyWidget):
    """What :func:`explore` returns: the function, its controls, and what is drawn."""

    _esm = _SCRIPT
    _css = _STYLE
    controls: traitlets.List[Any] = traitlets.List().tag(sync=True)
    chosen: traitlets.List[Any] = traitlets.List().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self, function: Callable[..., Plot], controls: dict[str, Control]
    ) -> None:
        self.function, self.inputs = function, controls
        super().__init__(
            controls=[_described(one) for one in controls.values()],
            chosen=[_start(one) for one in controls.values()],
        )
        self._draw()
        self.observe(lambda _: self._draw(), names="chosen")

    def _draw(self) -> None:
        table = ArrayTable()
        plot = encoded(self.at(self.chosen), table)
        self.state = {"plot": plot, "arrays": table.packed}

    def at(self, chosen: Sequence[int]) -> Plot:
        """Return the drawing where the controls stand at these of their values."""
        values = {
            name: control.values[number]
            for (name, control), number in zip(self.inputs.items(), chosen, strict=True)
        }
        return self.function(**values)

    def everywhere(self) -> Iterator[tuple[tuple[int, ...], Plot]]:
        """Yield every position of the controls, and the drawing there."""
        counts = [range(len(one.values)) for one in self.inputs.values()]
        for chosen in itertools.product(*counts):
            yield chosen, self.at(chosen)

    def page_data(self) -> dict[str, Any]:
        """Return all states, for a page without Python."""
        table = ArrayTable()
        plots = {
            ",".join(map(str, chosen)): encoded(plot, table)
            for chosen, plot in self.everywhere()
        }
        return {
            "controls": self.controls,
            "chosen": self.chosen,
            "plots": plots,
            "arrays": table.packed,
        }


def explore(function: Callable[..., Plot], **controls: Control) -> Explorer:
    """Return a figure that follows its controls.

    Parameters
    ----------
    function : callable
        Takes the value of every control by name and returns what is to be drawn. The
        same values must give the same drawing: randomness comes from a fixed seed, or
        from a slider that is one.
    **controls : Slider or Choice
        At least one, each with at least two values; all positions together are at most
        4,000, for the built page carries each.

    Raises
    ------
    ValueError
        If there is no control, one has fewer than two values, or there are too many
        positions.
    """
    if not controls or any(len(one.values) < 2 for one in controls.values()):
        raise ValueError("a figure has at least one control of two values or more")
    states = math.prod(len(one.values) for one in controls.values())
    if states > MAX_STATES:
        raise ValueError(
            f"the controls have {states:,} positions together, at most "
            f"{MAX_STATES:,} are possible: leave some values out"
        )
    return Explorer(function, controls)


def _described(control: Control) -> dict[str, Any]:
    kind = "choice" if isinstance(control, Choice) else "slider"
    values: list[Value] = [
        one if isinstance(one, str) else _plain(one) for one in control.values
    ]
    return {"kind": kind, "label": control.label, "values": values}


def _plain(value: float) -> float | int:
    """Return a number as it is shown: 0.3, not 0.30000000000000004."""
    number = float(f"{float(value):.6g}")
    return int(number) if number.is_integer() else number


def _start(control: Control) -> int:
    values = list(control.values)
    if control.start is None:
        return 0 if isinstance(control, Choice) else len(values) // 2
    if isinstance(control, Choice):
        return values.index(control.start)
    return min(range(len(values)), key=lambda n: abs(values[n] - control.start))  # type: ignore[operator]
