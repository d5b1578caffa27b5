"""What the chapters of the book are made of: text, figures with sliders, exercises."""

from course.chapter import closing, opening, source
from course.exercise import Exercise, choose, exercise
from course.explore import Choice, Explorer, Slider, explore
from course.plot import Bars, Heat, Line, Panel, Plot, Points

__all__ = [
    "Bars",
    "Choice",
    "Exercise",
    "Explorer",
    "Heat",
    "Line",
    "Panel",
    "Plot",
    "Points",
    "Slider",
    "choose",
    "closing",
    "exercise",
    "explore",
    "opening",
    "source",
]
