"""Which particles of a run are in its map, by the flags in their file."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.table import ParticleTable
from cryoinfer.results.run_record import RunRecord

UNREADABLE = 2
CONTRAST = "cryoinferContrast"
"""What the map's projection is multiplied by in an image, 1 in the median."""

OUTLIER_SCORE, FLAG = "cryoinferOutlierScore", "cryoinferFlag"
"""How little an image is like one of the map, in nats, and what follows: 0 in the map,
1 an outlier that is left out, 2 without a pose, as the image holds NaN or infinite
pixels."""

OUTLIER_SCORES = (OUTLIER_SCORE, "cryoinferNovelty")
"""The column of outlier scores, and what earlier versions called it in their files."""

LEFT_OUT = "left_out"
"""Key of the record: counts of what the run itself left out of its map."""

OBEYED = "flagged_left_out"
"""Key of the record: how many were left out for flags that they had brought along."""

_FLAGS = (0, 1, UNREADABLE)
"""Used, unlike the map of its encoder, and without finite pixels."""


def has_flags(record: RunRecord) -> bool:
    """Tell whether the flags of a run's particles say what it left out.

    They are its own, or were obeyed; others that particles have brought along are of an
    earlier run.
    """
    return LEFT_OUT in record.results or OBEYED in record.results


def is_posed(record: RunRecord, flags: Tensor) -> Tensor:
    """Return which particles of a run have poses in its map, a mask.

    An encoder gives outliers poses too; where flags were given, what they leave out has
    the pose that it had.
    """
    return flags == 0 if OBEYED in record.results else flags != UNREADABLE


def given_outlier_scores(table: ParticleTable) -> NDArray[Any] | None:
    """Return the outlier scores in a file, under either name, if it has any."""
    found = (table.results.get(name) for name in OUTLIER_SCORES)
    return next((one for one in found if one is not None), None)


def given_flags(particles: Particles) -> Tensor:
    """Return the flags that particles have brought along, int64, shape (n,).

    Raises
    ------
    InputError
        If one is not 0, 1 or 2.
    """
    return _flags(particles.table)


def read_flags(record: RunRecord, table: ParticleTable) -> Tensor:
    """Return what a run made of its particles: 0, 1 or 2, shape (n,).

    Zeros where the run had none.

    Raises
    ------
    InputError
        If one is something else.
    """
    if not has_flags(record):
        return torch.zeros(len(table), dtype=torch.int64)
    return _flags(table)


def _flags(table: ParticleTable) -> Tensor:
    """Return the column of flags, zeros where there is none."""
    found = table.results.get(FLAG)
    if found is None:
        return torch.zeros(len(table), dtype=torch.int64)
    is_number = found.dtype.kind in "iufb"
    known = np.isin(found, _FLAGS) if is_number else np.zeros(len(found), dtype=bool)
    bad = np.flatnonzero(~known)
    if len(bad):
        raise InputError(
            f"{FLAG} must hold 0, 1 or 2, but row {bad[0] + 1} holds "
            f"{str(found[bad[0]])[:100]} ({len(bad)} such rows). Correct them, or "
            "remove the column from the file"
        )
    return torch.from_numpy(found.astype(np.int64))
