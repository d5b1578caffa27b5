"""Aberrations and magnification as cryoSPARC's tables have them.

cryoSPARC publishes no formulas. Its fields hold the coefficients, in angstrom, of the
wave aberration of microscopes (S. Uhlemann and M. Haider, Ultramicroscopy 72, 109,
1998), a function of the frequency ``w = lambda s`` at the angle alpha from x::

    chi = 2 pi / lambda * [w^3 (B2 . e(1) + A2 . e(3) / 3)
                           + w^4 (S3 . e(2) + A3 . e(4) / 4 + Cs / 4) + ...]
    e(m) = (cos(m alpha), sin(m alpha))

- ``ctf/tilt_A`` is B2, Cs times the beam tilt (its forum, topic 17411; pyem's
  ``csparc2star.py``, which takes the signs of RELION's beam tilt for the same).
- ``ctf/trefoil_A`` is A2, and ``ctf/tetra_A`` the four numbers of S3 and A3. So reads
  them specter (``extract_parameters_from_csfile``), whose author derived them from
  cryoSPARC's own code and compared with its simulator; in the axes that make its
  astigmatism RELION's, its factors and signs are those above: A2 goes with B2, S3 and
  A3 with Cs. It was not compared with images of cryoSPARC.
- ``ctf/shift_A`` moves the image by as much (pyem's branch ``convert_zernike``).
- ``ctf/anisomag`` is the magnification in Fourier space minus the identity, row by row
  (its forum, topic 11402).

RELION's polynomials hold lower orders as well: those of odd ones are shifts, and those
of even ones defocus, astigmatism, Cs and a phase shift, in whose fields they are
written.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import field_names, number_field
from cryoinfer.physics.aberrations import (
    EVEN_TERMS,
    STAR,
    STAR_LOWER,
    TETRAFOIL,
    TREFOIL,
    shortest,
    widened,
)
from cryoinfer.physics.ctf import CS_ANGSTROM_PER_MM, electron_wavelength_angstrom
from cryoinfer.records import COMA, Optics

TILT, SHIFT, ANISOMAG = "ctf/tilt_A", "ctf/shift_A", "ctf/anisomag"
_TREFOIL, _FOURTH_ORDER = "ctf/trefoil_A", "ctf/tetra_A"
_SIZES = {TILT: 2, SHIFT: 2, _TREFOIL: 2, _FOURTH_ORDER: 4, ANISOMAG: 4}
_ODD_TERMS = 6


def aberrations_told(fields: NDArray[Any]) -> list[str]:
    """Return fields that tell of aberrations, but for shifts."""
    return [
        field for field in (TILT, _TREFOIL, _FOURTH_ORDER) if _is_set(fields, field)
    ]


def magnification_of(fields: NDArray[Any]) -> Tensor:
    """Return the matrix of each particle, shape (n, 2, 2)."""
    matrix = torch.eye(2, dtype=torch.float64).repeat(len(fields), 1, 1)
    if _is_set(fields, ANISOMAG):
        matrix = matrix + _field(fields, ANISOMAG).unflatten(1, (2, 2))
    return matrix


def with_aberrations_of(fields: NDArray[Any], optics: Optics) -> Optics:
    """Return optics with the aberrations that a table tells of.

    Coma without spherical aberration, which no beam tilt makes, becomes that of odd
    polynomials.

    Parameters
    ----------
    fields : structured array, shape (n,)
    optics : Optics
        Of n particles, with their voltages and Cs.
    """
    shift, coma = _field(fields, SHIFT), _field(fields, TILT)
    trefoil, fourth = _field(fields, _TREFOIL), _field(fields, _FOURTH_ORDER)
    third_order, fourth_order = _radian_per_angstrom(optics)
    cs_angstrom = optics.cs_mm.double()[:, None] * CS_ANGSTROM_PER_MM
    tilt = torch.where(cs_angstrom == 0, 0.0, coma / cs_angstrom)
    odd = torch.zeros(len(optics), _ODD_TERMS, dtype=torch.float64)
    # Z(m, 3) is 3 s^3 - 2 s times the sine or cosine: y before x.
    own = (third_order * torch.where(cs_angstrom == 0, coma, 0.0)).flip(1)
    odd[:, COMA[0] : COMA[1] + 1] = own
    odd[:, :2] = 2 * own - 2 * math.pi * shift.flip(1)
    odd[:, [TREFOIL[1], TREFOIL[0]]] = third_order * trefoil
    even = torch.zeros(len(optics), EVEN_TERMS, dtype=torch.float64)
    star, tetrafoil = (fourth_order * fourth).split(2, dim=1)
    # Z(m, 4) is 4 s^4 - 3 s^2 times the cosine or sine of 2 alpha.
    even[:, STAR], even[:, STAR_LOWER] = star, 3 * star
    even[:, TETRAFOIL] = tetrafoil
    return replace(
        optics,
        beam_tilt_mrad=1e3 * tilt,
        odd_zernike_radian=shortest(odd),
        even_zernike_radian=shortest(even),
    )


def group_columns(fields: NDArray[Any]) -> list[NDArray[np.float64]]:
    """Return what the particles of an optics group share, each of shape (n,)."""
    return [
        column
        for field, size in _SIZES.items()
        if _is_set(fields, field)
        for column in number_field(fields, field, (size,)).T
    ]


def require_storable(optics: Optics) -> None:
    """Require images and aberrations that a table can tell of.

    Raises
    ------
    InputError
        If phases were flipped, images multiplied by their CTF, or aberrations are of
        the fifth order or beyond.
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
    beyond = (
        optics.odd_zernike_radian[:, _ODD_TERMS:],
        optics.even_zernike_radian[:, EVEN_TERMS:],
    )
    if any(bool(one.any()) for one in beyond):
        raise InputError(
            "These particles have aberrations of the fifth order or beyond, which a "
            ".cs table has no fields for. Write them as .star."
        )


def aberration_fields(optics: Optics) -> dict[str, NDArray[Any]]:
    """Return fields of a table, of what there is.

    Parameters
    ----------
    optics : Optics
        With no even terms but those of two and four periods of the fourth order and
        what goes along with them
        (:func:`cryoinfer.physics.aberrations.with_named_terms`).
    """
    third_order, fourth_order = _radian_per_angstrom(optics)
    odd = widened(optics.odd_zernike_radian, _ODD_TERMS)
    even = widened(optics.even_zernike_radian, EVEN_TERMS)
    own = odd[:, COMA[0] : COMA[1] + 1]
    cs_angstrom = optics.cs_mm.double()[:, None] * CS_ANGSTROM_PER_MM
    values = {
        TILT: optics.beam_tilt_mrad * 1e-3 * cs_angstrom + own.flip(1) / third_order,
        SHIFT: (2 * own - odd[:, :2]).flip(1) / (2 * math.pi),
        _TREFOIL: odd[:, [TREFOIL[1], TREFOIL[0]]] / third_order,
        _FOURTH_ORDER: even[:, [*STAR, *TETRAFOIL]] / fourth_order,
        ANISOMAG: (optics.magnification - torch.eye(2).double()).flatten(1),
    }
    return {
        field: one.numpy().astype(np.float32)
        for field, one in values.items()
        if bool(one.any())
    }


def _radian_per_angstrom(optics: Optics) -> tuple[Tensor, Tensor]:
    """Return coefficients of polynomials over those of a table, (n, 1) each.

    Of the third and of the fourth order. The leading coefficients of the polynomials,
    3, 1, 4 and 1, are what the terms of ``chi`` differ by.
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv.double())[:, None]
    return -2 * math.pi / 3 * wavelength**2, math.pi / 2 * wavelength**3


def _field(fields: NDArray[Any], field: str) -> Tensor:
    """Return a field, zeros where a table lacks it."""
    size = _SIZES[field]
    if not _is_set(fields, field):
        return torch.zeros(len(fields), size, dtype=torch.float64)
    return torch.from_numpy(number_field(fields, field, (size,)))


def _is_set(fields: NDArray[Any], field: str) -> bool:
    return field in field_names(fields) and bool(np.any(fields[field]))
