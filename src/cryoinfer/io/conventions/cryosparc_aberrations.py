"""Aberrations and magnification as cryoSPARC's tables have them.

cryoSPARC publishes no formulas; these are what users and its developers have told:

- ``ctf/anisomag`` is the magnification in Fourier space minus the identity, row by row
  (its forum, topic 11402).
- ``ctf/tilt_A`` is Cs times the beam tilt, in angstrom (its forum, topic 17411; pyem's
  ``csparc2star.py``, which takes the signs of RELION's beam tilt for the same).
- ``ctf/shift_A`` moves the image by as much, in angstrom (pyem's branch
  ``convert_zernike``).

RELION's odd polynomials have y before x.
Sign and order of ``ctf/trefoil_A`` and ``ctf/tetra_A`` nobody has told, so that they
are refused. That branch of pyem, which was never merged, makes ``2 pi lambda^2`` times
the two of ``trefoil_A`` the coefficients of ``sin 3 alpha`` and ``cos 3 alpha``, and
``-pi / 2 lambda^3`` times those of ``tetra_A`` four of the fourth order. It settles
nothing: of ``tilt_A`` it makes coma of the other sign than RELION makes of the beam
tilt that it writes beside it, and of x what RELION has for y.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import field_names, number_field
from cryoinfer.records import Optics

TILT, SHIFT, ANISOMAG = "ctf/tilt_A", "ctf/shift_A", "ctf/anisomag"
_UNKNOWN = ("ctf/trefoil_A", "ctf/tetra_A")
_CS = "ctf/cs_mm"
_ANGSTROM_PER_MM = 1e7


def not_modelled(fields: NDArray[Any]) -> list[str]:
    """Return what a table has of aberrations that cannot be modelled, in words."""
    causes = [f"{field} is not 0" for field in _UNKNOWN if _is_set(fields, field)]
    if not _is_set(fields, TILT):
        return causes
    if _CS not in field_names(fields) or not np.all(fields[_CS]):
        causes.append(f"{TILT} is not 0, and {_CS} is")
    return causes


def magnification_of(fields: NDArray[Any]) -> Tensor:
    """Return the matrix of each particle, shape (n, 2, 2)."""
    matrix = torch.eye(2, dtype=torch.float64).repeat(len(fields), 1, 1)
    if _is_set(fields, ANISOMAG):
        given = torch.from_numpy(number_field(fields, ANISOMAG, (4,)))
        matrix = matrix + given.unflatten(1, (2, 2))
    return matrix


def aberrations_of(fields: NDArray[Any], cs_mm: Tensor) -> dict[str, Tensor]:
    """Return the fields of :class:`cryoinfer.records.Optics` that a table tells of."""
    found = {}
    if _is_set(fields, TILT):
        tilt = torch.from_numpy(number_field(fields, TILT, (2,)))
        found["beam_tilt_mrad"] = 1e3 * tilt / (cs_mm[:, None] * _ANGSTROM_PER_MM)
    if _is_set(fields, SHIFT):
        shift = torch.from_numpy(number_field(fields, SHIFT, (2,)))
        found["odd_zernike_radian"] = -2 * math.pi * shift.flip(1)
    return found


def group_columns(fields: NDArray[Any]) -> list[NDArray[np.float64]]:
    """Return what the particles of an optics group share, each of shape (n,)."""
    sizes = {TILT: 2, SHIFT: 2, ANISOMAG: 4}
    return [
        column
        for field, size in sizes.items()
        if _is_set(fields, field)
        for column in number_field(fields, field, (size,)).T
    ]


def aberration_fields(optics: Optics) -> dict[str, NDArray[Any]]:
    """Return fields of a table, of what there is.

    Raises
    ------
    InputError
        If there are aberrations that a table cannot tell of, phases were flipped, or
        images multiplied by their CTF.
    """
    for done, what in (
        (optics.phase_flipped, "had their phases flipped"),
        (optics.ctf_premultiplied, "were multiplied by their CTF"),
    ):
        if bool(done.any()):
            raise InputError(
                f"These images {what}, which a .cs table cannot say. Write them as "
                ".star, or extract them again without."
            )
    first, others = optics.odd_zernike_radian[:, :2], optics.odd_zernike_radian[:, 2:]
    if bool(others.any() or optics.even_zernike_radian.any()):
        raise InputError(
            "These particles have aberrations, such as trefoil or tetrafoil, whose "
            "signs in a .cs table are not known. Write them as .star."
        )
    first = torch.nn.functional.pad(first, (0, 2 - first.shape[1]))
    cs_angstrom = optics.cs_mm[:, None] * _ANGSTROM_PER_MM
    values = {
        TILT: optics.beam_tilt_mrad * 1e-3 * cs_angstrom,
        SHIFT: -first.flip(1) / (2 * math.pi),
        ANISOMAG: (optics.magnification - torch.eye(2).double()).flatten(1),
    }
    return {
        field: one.numpy().astype(np.float32)
        for field, one in values.items()
        if bool(one.any())
    }


def _is_set(fields: NDArray[Any], field: str) -> bool:
    return field in field_names(fields) and bool(np.any(fields[field]))
