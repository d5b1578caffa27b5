"""Aberrations and magnification as RELION 3.1 and later have them.

Beam tilt is in mrad along x and y. ``rlnOddZernike`` and ``rlnEvenZernike`` hold lists
in brackets, in the order and scale of :mod:`cryoinfer.physics.zernike`. Where a file
has a beam tilt, RELION lets it replace the two odd coefficients of coma
(``TiltHelper::insertTilt``), and so does this program.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.io.star import text_column
from cryoinfer.io.star_text import STRING
from cryoinfer.physics.aberrations import shortest
from cryoinfer.records import COMA, Optics

BEAM_TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
ODD, EVEN = "rlnOddZernike", "rlnEvenZernike"
MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
NEUTRAL = {"rlnMagMat00": "1", "rlnMagMat11": "1", ODD: "[]", EVEN: "[]"}
"""What says nothing; of other columns it is 0."""
_LARGEST = 1e12
"""Radian: what files hold beyond it is no coefficient."""


def coefficient_lists(label: str, words: NDArray[Any]) -> Tensor:
    """Return lists of numbers in brackets, shape (n, a), the short ones filled with 0.

    Raises
    ------
    InputError
        If a word is no such list.
    """
    distinct, place = np.unique(words, return_inverse=True)
    lists = [_numbers(label, str(word)) for word in distinct]
    width = max((len(one) for one in lists), default=0)
    table = np.zeros((len(lists), width))
    for row, one in zip(table, lists, strict=True):
        row[: len(one)] = one
    # Columns that are 0 throughout say nothing, and cost time.
    return shortest(torch.from_numpy(table))[torch.from_numpy(place.reshape(-1))]


def _numbers(label: str, word: str) -> list[float]:
    inside = word.strip().removeprefix("[").removesuffix("]")
    try:
        numbers = [float(part) for part in inside.split(",") if part.strip()]
    except ValueError:
        numbers = [float("nan")]
    if not all(abs(number) < _LARGEST for number in numbers):
        raise InputError(
            f"{label} must hold a list of numbers such as [0.1,0,-2.5], found "
            f"{word[:100]!r}. Correct the column, or remove it."
        )
    return numbers


def without_coma(odd: Tensor) -> Tensor:
    """Return odd coefficients but those whose part a beam tilt takes."""
    kept = odd.clone()
    kept[:, COMA[0] : COMA[1] + 1] = 0
    return kept


def aberration_columns(optics: Optics) -> dict[str, NDArray[Any]]:
    """Return columns of ``data_optics``, of what there is, one row a group."""
    columns: dict[str, NDArray[Any]] = {}
    if bool(optics.beam_tilt_mrad.any()):
        for axis, label in enumerate(BEAM_TILT):
            values = optics.beam_tilt_mrad[:, axis].numpy()
            columns[label] = text_column(values, "%.9g")
    for label, coefficients in (
        (ODD, optics.odd_zernike_radian),
        (EVEN, optics.even_zernike_radian),
    ):
        if bool(coefficients.any()):
            columns[label] = _words(coefficients)
    return columns | magnification_columns(optics.magnification)


def magnification_columns(magnification: Tensor) -> dict[str, NDArray[Any]]:
    """Return columns of matrices, (n, 2, 2), if one of them is not the identity."""
    if bool((magnification == torch.eye(2).to(magnification)).all()):
        return {}
    elements = magnification.flatten(1).numpy().T
    return {
        label: text_column(values, "%.9g")
        for label, values in zip(MAGNIFICATION, elements, strict=True)
    }


def _words(coefficients: Tensor) -> NDArray[Any]:
    words = ["[" + ",".join(f"{x:.9g}" for x in row) + "]" for row in coefficients]
    return np.array(words, dtype=STRING)
