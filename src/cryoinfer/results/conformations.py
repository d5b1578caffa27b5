"""Conformations of particles: those that a run has found, and those that are true."""

import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.junk import JUNK
from cryoinfer.data.simulated_path import FRAME, PATH, TURN
from cryoinfer.errors import InputError
from cryoinfer.evaluation.conformation_against_truth import (
    FoundConformations,
    TrueConformation,
)
from cryoinfer.io.conventions.relion_columns import IMAGE
from cryoinfer.io.conventions.table import ParticleTable
from cryoinfer.io.files import require_file
from cryoinfer.io.latents import read_columns
from cryoinfer.results import layout
from cryoinfer.results.posterior_files import require_known
from cryoinfer.results.run_arrays import run_arrays
from cryoinfer.results.run_files import read_image_names

_COORDINATE = re.compile(r"(?:z|mode)_([1-9]\d*)")
_CLASS = "class"
_AMPLITUDE = re.compile(r"cryoinferMode[1-9]\d*Angst")
_CLASS_NUMBER = "rlnClassNumber"
_HALF_TURN_DEGREES = 180.0


def read_conformations(folder: Path) -> FoundConformations | None:
    """Return what a run has found of the conformations, or None if it asked for none.

    Parameters
    ----------
    folder : Path
        Of a run.

    Returns
    -------
    FoundConformations or None
        Of all particles of the run, in the order of ``particles.star``; NaN, and class
        0, of those that were not inferred. Of ``dynamics``, z are the amplitudes; of
        classes there are none.

    Raises
    ------
    InputError
        If the file has neither coordinates nor classes, or is of other particles.
    """
    path = folder / layout.LATENTS
    if not path.exists():
        return None
    columns = read_columns(path)
    numbers = {
        int(match[1]): name
        for name in columns
        if (match := _COORDINATE.fullmatch(name)) is not None
    }
    names = [numbers[one] for one in sorted(numbers)]
    if not names and _CLASS not in columns:
        raise InputError(
            f"{path} has no coordinates of conformations: expected columns z_1 and so "
            f"on, or mode_1 and so on, found {', '.join(columns) or 'none'}. A run "
            "whose z carries nothing has none"
        )
    _require_rows_of(folder, path, columns.get(IMAGE))
    try:
        rows = len(next(iter(columns.values())))
        z = np.empty((rows, len(names)))
        for place, name in enumerate(names):
            z[:, place] = columns[name]
        classes = None
        if _CLASS in columns:
            number = np.nan_to_num(columns[_CLASS].astype(np.float64))
            classes = torch.from_numpy(number.astype(np.int64))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: expected numbers in the columns {', '.join(names)} and {_CLASS}"
        ) from error
    return FoundConformations(torch.from_numpy(z), classes)


def _require_rows_of(
    folder: Path, path: Path, found: NDArray[np.generic] | None
) -> None:
    """Refuse latents that are not of the particles of their run, row by row.

    Raises
    ------
    InputError
    """
    words = read_image_names(folder)
    if found is None:
        raise InputError(f"{path} has no column {IMAGE}: whose rows are these?")
    where = folder / layout.PARTICLES
    if len(found) != len(words):
        raise InputError(
            f"{path} has {len(found):,} rows, {where} {len(words):,}: expected a row "
            "for each particle. Copy both again, or repeat the run"
        )
    other = [
        row for row, name in enumerate(words.tolist()) if str(name) != str(found[row])
    ]
    if other:
        first = other[0]
        raise InputError(
            f"{path} is not of the particles of {where}: row {first + 1} is "
            f"{str(found[first])[:100]}, expected {str(words[first])[:100]} "
            f"({len(other):,} such rows). Copy both again, or repeat the run"
        )


def read_pose_covariance(folder: Path) -> Tensor | None:
    """Return how well a run knows the poses that it has found with conformations.

    Parameters
    ----------
    folder : Path
        Of a run that has found conformations.

    Returns
    -------
    Tensor of float64, shape (n, 5, 5), or None
        Of rotation vector (radian) and shift (angstrom); NaN where nothing was
        inferred. None if a part of the pose was given, and so has no width.

    Raises
    ------
    InputError
        If the file is missing or damaged, or of another version.
    """
    path = folder / layout.POSTERIORS
    require_file(path, "file of posteriors")
    with run_arrays(path) as arrays:
        require_known(arrays, path)
        covariance = arrays["covariance"]
        if covariance.ndim != 3 or covariance.shape[1] != covariance.shape[2]:
            raise ValueError(f"covariance has the shape {covariance.shape}")
        pose = torch.from_numpy(covariance[:, :5, :5]).double()
    is_held = pose.diagonal(dim1=1, dim2=2) <= 0
    return None if bool(is_held.any()) else pose


def true_conformations(table: ParticleTable, path: Path) -> list[TrueConformation]:
    """Return what a file says of the true conformations, as far as they differ.

    Parameters
    ----------
    table : ParticleTable
        Of the true particles.
    path : Path
        Of the file, for messages.

    Returns
    -------
    list of TrueConformation
        Of ``cryoinferMode1Angst`` and so on, ``cryoinferFrame``, ``cryoinferPath`` and
        ``cryoinferTurnDegrees``, as ``simulate`` writes them, and ``rlnClassNumber``,
        if not all particles have the same. Of angles over more than half a turn, which
        have no order, cosine and sine.

    Raises
    ------
    InputError
        If a column holds something else than numbers.
    """
    found = []
    for name, values in table.results.items():
        if not (name in (FRAME, PATH, TURN) or _AMPLITUDE.fullmatch(name)):
            continue
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise InputError(
                f"{path}: {name} must hold numbers, row {bad[0] + 1} of the particles "
                f"that were found holds none ({len(bad):,} such rows)"
            )
        value = torch.from_numpy(np.asarray(values, dtype=np.float64))
        if name == TURN and float(value.max() - value.min()) > _HALF_TURN_DEGREES:
            angle = torch.deg2rad(value)
            for part, of in (("cosine", angle.cos()), ("sine", angle.sin())):
                found.append(TrueConformation(f"{name} ({part})", of, is_ordered=True))
            continue
        found.append(TrueConformation(name, value, is_ordered=True))
    if table.class_number is not None:
        value = table.class_number.double()
        found.append(TrueConformation(_CLASS_NUMBER, value, is_ordered=False))
    return [one for one in found if one.varies()]


def true_junk(table: ParticleTable) -> Tensor:
    """Return which true images show no particle, a mask; none where nothing is said."""
    values = table.results.get(JUNK)
    if values is None:
        return torch.zeros(len(table), dtype=torch.bool)
    return torch.from_numpy(np.asarray(values, dtype=np.float64) != 0)
