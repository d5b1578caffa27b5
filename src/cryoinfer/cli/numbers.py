"""What numbers an option takes: one rule for every command, told where it is broken.

A plain lower bound lets NaN and infinity through, which compare with nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import typer

from cryoinfer.io.pixel_sizes import PIXEL_SIZE_RANGE_ANGSTROM

LARGEST_SEED = 2**63 - 1
"""What PyTorch's generators take, and what some steps add to a seed besides."""

MOST = 1_000_000_000
"""Of anything that is counted."""

MOST_THREADS = 4096
LARGEST_BOX = 4096
"""In pixels; the map of it takes 275 GB."""

_LONGEST_ANGSTROM = 1e6
_LARGEST_DEFOCUS_MICROMETRE = 50.0

Check = Callable[[Any], Any]


def between(low: float, high: float, *, above: bool = False) -> Check:
    """Return the callback of an option that refuses what is not between two numbers.

    Parameters
    ----------
    low, high : float
        Finite; both belong to what is accepted.
    above : bool
        Whether ``low`` itself is refused.
    """
    start = f"above {low:g} and at most" if above else f"from {low:g} to"
    expected = f"expected a number {start} {high:g}"

    def check(value: Any) -> Any:
        for number in value if isinstance(value, tuple) else (value,):
            if number is None:
                continue
            if not low <= number <= high or (above and number == low):
                raise typer.BadParameter(f"{expected}, found {number:g}")
        return value

    return check


def whole(low: int, high: int = MOST) -> Check:
    """Return the callback of a count or a number, both bounds of which are taken."""

    def check(value: Any) -> Any:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(
                f"expected a whole number from {low:,} to {high:,}, found {value:,}"
            )
        return value

    return check


def pixel_size() -> Check:
    """Return the callback of a pixel size, in angstrom."""
    return between(*PIXEL_SIZE_RANGE_ANGSTROM)


def length() -> Check:
    """Return the callback of a length, in angstrom, that cannot be 0."""
    return between(0.0, _LONGEST_ANGSTROM, above=True)


def distance() -> Check:
    """Return the callback of a distance or width, in angstrom, that may be 0."""
    return between(0.0, _LONGEST_ANGSTROM)


def finite() -> Check:
    """Return the callback of a number that may be any but NaN and infinity."""

    def check(value: Any) -> Any:
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"expected a finite number, found {value:g}")
        return value

    return check


def signal_to_noise(value: float | None) -> float | None:
    """Refuse what is no ratio of variances in decibels; infinity is no noise."""
    if value is None or value == math.inf:
        return value
    check: Check = between(-100.0, 100.0)
    found: float = check(value)
    return found


def defocus_range(value: tuple[float, float] | None) -> tuple[float, float] | None:
    """Refuse what is no range of defoci in micrometres, the lower one first."""
    check: Check = between(0.0, _LARGEST_DEFOCUS_MICROMETRE, above=True)
    check(value)
    if value is not None and value[0] > value[1]:
        raise typer.BadParameter(
            f"expected the lower defocus first, found {value[0]:g} {value[1]:g}"
        )
    return value
