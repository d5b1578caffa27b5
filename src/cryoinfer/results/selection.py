"""Some of many particles: by conditions, by what is near in z, by class, by number."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.cryodrgn import read_indices
from cryoinfer.io.files import read_bytes
from cryoinfer.io.number_words import integer_of
from cryoinfer.io.raw_text import decode
from cryoinfer.io.star_text import STRING
from cryoinfer.results.conditions import Condition
from cryoinfer.results.particle_numbers import ParticleNumbers, image_names

_ROWS = "rows"
"""Key of a selection file, as the report writes it."""


@dataclass(frozen=True)
class Neighbours:
    """The particles that are nearest to a point.

    Attributes
    ----------
    z : tuple of float
        One number a dimension.
    count : int
        How many particles.
    """

    z: tuple[float, ...]
    count: int


@dataclass(frozen=True)
class Selection:
    """What particles are to be, all of it.

    Attributes
    ----------
    where : Condition or None
    class_number : int or None
        From 1.
    rows : Path or None
        Of a file of particles' numbers from 0, or of names of their images.
    near : Neighbours or None
        Of those that are all the rest.
    invert : bool
        Whether the others are asked for.
    """

    where: Condition | None = None
    class_number: int | None = None
    rows: Path | None = None
    near: Neighbours | None = None
    invert: bool = False


@dataclass(frozen=True)
class Selected:
    """Which of n particles were asked for.

    Attributes
    ----------
    mask : array of bool, shape (n,)
    unknown : int
        How many lack a number that was asked for: they are never selected.
    """

    mask: NDArray[np.bool_]
    unknown: int


def select(numbers: ParticleNumbers, asked: Selection) -> Selected:
    """Return which particles are asked for.

    Raises
    ------
    InputError
        If a column, class or row is asked for that there is not, or z has another
        number of dimensions.
    """
    particles = numbers.particles
    mask = np.ones(len(particles), dtype=bool)
    known = mask.copy()
    if asked.rows is not None:
        mask &= _listed(asked.rows, particles)
    if asked.where is not None:
        columns = {name: numbers.column(name) for name in asked.where.names}
        mask &= asked.where.rows(columns)
        known &= asked.where.known(columns)
    if asked.class_number is not None:
        classes = numbers.of_class(asked.class_number)
        mask &= classes == asked.class_number
        known &= ~np.isnan(classes)
    if asked.near is not None:
        distance = _distance(numbers.coordinates(), asked.near.z)
        known &= ~np.isnan(distance)
        mask = _nearest(distance, mask & known, asked.near.count)
    if asked.invert:
        mask = ~mask
    return Selected(mask & known, int((~known).sum()))


def _distance(z: NDArray[np.float64], point: tuple[float, ...]) -> NDArray[np.float64]:
    if len(point) != z.shape[1]:
        raise InputError(
            f"--near gives {len(point)} numbers, and z has {z.shape[1]}: expected one "
            "for each, such as " + ",".join(["0.5"] * z.shape[1])
        )
    # One dimension after another: no second table of all.
    square = np.zeros(len(z))
    for k, value in enumerate(point):
        square += (z[:, k] - value) ** 2
    return np.sqrt(square)


def _nearest(
    distance: NDArray[np.float64], among: NDArray[np.bool_], count: int
) -> NDArray[np.bool_]:
    """Return the rows of the least distances; of equal ones the first rows."""
    rows = np.flatnonzero(among)
    order = np.argsort(distance[rows], kind="stable")
    mask = np.zeros(len(distance), dtype=bool)
    mask[rows[order[:count]]] = True
    return mask


def _listed(path: Path, particles: Particles) -> NDArray[np.bool_]:
    """Return which particles a file lists, by number or by the name of the image."""
    listed = _entries(path)
    if len(listed) == 0:
        raise InputError(f"{path} lists no particles")
    if listed.dtype.kind == "i":
        return _by_number(path, listed, len(particles))
    return _by_name(path, listed, particles)


def _by_number(path: Path, rows: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    bad = (rows < 0) | (rows >= n)
    if bad.any():
        raise InputError(
            f"{path} lists particle {rows[bad.argmax()]}, and there are {n:,}: "
            f"expected numbers from 0 to {n - 1} ({bad.sum():,} such numbers). Is it "
            "of this run?"
        )
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return mask


def _by_name(
    path: Path, wanted: NDArray[Any], particles: Particles
) -> NDArray[np.bool_]:
    own = image_names(particles)
    if own is None:
        raise InputError(
            f"{path} lists names of images, which a .cs file has not: expected numbers "
            "of particles from 0"
        )
    names = own.tolist()
    listed = set(wanted.tolist())
    missing = listed.difference(names)
    if missing:
        raise InputError(
            f"{path} lists {min(missing)[:200]!r}, which no particle is "
            f"({len(missing):,} such names). Is it of this run?"
        )
    return np.array([name in listed for name in names])


def _entries(path: Path) -> NDArray[Any]:
    """Return what a file lists: int64, or names as text."""
    if path.suffix == ".pkl":
        return read_indices(path)
    text = (
        decode(read_bytes(path)).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").strip()
    )
    if path.suffix == ".json" or text[:1] in ("{", "["):
        return _of_json(path, text)
    words = [line.strip() for line in text.splitlines()]
    words = [word for word in words if word and not word.startswith("#")]
    numbers = [integer_of(word) for word in words]
    if all(number is not None for number in numbers):
        return _numbers(path, numbers)
    if any(number is not None for number in numbers):
        raise _mixed(path)
    return np.array(words, dtype=STRING)


def _of_json(path: Path, text: str) -> NDArray[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON, or is damaged: {error}") from error
    rows = found.get(_ROWS) if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise InputError(
            f'{path} lists no particles: expected {{"rows": [..]}}, or a list of '
            "numbers from 0 or of rlnImageName"
        )
    if all(type(row) is int for row in rows):
        return _numbers(path, rows)
    if all(isinstance(row, str) for row in rows):
        return np.array(rows, dtype=STRING)
    raise _mixed(path)


def _numbers(path: Path, numbers: list[Any]) -> NDArray[np.int64]:
    try:
        return np.array(numbers, dtype=np.int64)
    except OverflowError as error:
        raise InputError(f"{path} lists a number that no particle has") from error


def _mixed(path: Path) -> InputError:
    return InputError(
        f"{path} lists other things than particles: expected whole numbers from 0, or "
        "names of images (rlnImageName), one a line"
    )
