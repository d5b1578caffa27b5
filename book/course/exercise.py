"""Exercises: a question, and an answer that the page checks."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from course.text import html

_SCRIPT = Path(__file__).with_name("exercise.js")
_STYLE = Path(__file__).with_name("figure.css")


class Exercise(anywidget.AnyWidget):
    """A question whose answer is a number or one of several choices."""

    _esm = _SCRIPT
    _css = _STYLE
    data = traitlets.Dict().tag(sync=True)

    def is_right(self, answer: float) -> bool:
        """Say whether a number, or the number of a choice from 0, is the answer."""
        if self.data["choices"]:
            return int(answer) == self.data["answer"]
        right, tolerance = float(self.data["answer"]), float(self.data["tolerance"])
        return math.isfinite(answer) and abs(answer - right) <= tolerance


def exercise(
    question: str,
    answer: float,
    *,
    tolerance: float,
    unit: str = "",
    hint: str,
    explanation: str,
) -> Exercise:
    """Return a question for a number.

    Parameters
    ----------
    question, hint, explanation : str
        Markdown with formulas; the hint follows a wrong answer, the explanation a right
        one.
    answer : float
        Computed in the cell from the chapter's functions wherever it can be.
    tolerance : float
        What the answer may be off by, in its unit; more than 0.
    unit : str
        Shown behind the field.

    Raises
    ------
    ValueError
        If the tolerance is not positive.
    """
    if not tolerance > 0:
        raise ValueError(f"a tolerance is more than 0, and this one {tolerance}")
    return Exercise(
        data=_data(question, hint, explanation)
        | {
            "answer": float(answer),
            "tolerance": float(tolerance),
            "unit": unit,
            "choices": [],
        }
    )


def choose(
    question: str, choices: Sequence[str], right: int, *, hint: str, explanation: str
) -> Exercise:
    """Return a question with choices, of which number ``right`` (from 0) is true.

    Raises
    ------
    ValueError
        If there are fewer than two choices, or no such one.
    """
    if len(choices) < 2 or not 0 <= right < len(choices):
        raise ValueError(f"choice {right} of {len(choices)} cannot be the right one")
    return Exercise(
        data=_data(question, hint, explanation)
        | {
            "answer": right,
            "tolerance": 0.0,
            "unit": "",
            "choices": [html(one) for one in choices],
        }
    )


def _data(question: str, hint: str, explanation: str) -> dict[str, Any]:
    return {
        "question": html(question),
        "hint": html(hint),
        "explanation": html(explanation),
    }
