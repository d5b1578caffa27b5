"""Aberrations beyond defocus, astigmatism and Cs, as RELION has them.

An aberration is a phase, in radian, at every spatial frequency ``s = (x, y)`` in
1/angstrom, in polynomials of the frequency (:mod:`cryoinfer.physics.zernike`;
``src/jaz/obs_model.cpp`` and ``tilt_helper.cpp`` of RELION 3.1). Odd ones turn the
phases of an image, as a shift does; even ones change its CTF::

    F(s) = exp(i odd(s)) CTF(s) P(s)
    odd  = -2 pi Cs lambda^2 (t . s) |s|^2 + sum of c Z     (t: beam tilt in radian)
    gamma of the CTF becomes gamma - sum of c Z             (as for the term of Cs)

with F of the sign ``exp(-2 pi i s r)``, so that the first two odd coefficients are
shifts of the image by ``-c / (2 pi)`` along y and x. All of it is a function of the
frequencies of the image without distortion (:mod:`cryoinfer.fourier.distortion`).
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.physics.ctf import (
    CS_ANGSTROM_PER_MM,
    electron_wavelength_angstrom,
    with_astigmatism,
)
from cryoinfer.physics.zernike import odd_polynomials
from cryoinfer.records import COMA, Optics

TREFOIL = (2, 5)
"""Odd coefficients of trefoil, ``sin 3 alpha`` and ``cos 3 alpha``."""

STAR, STAR_LOWER = (7, 5), (3, 1)
"""Even coefficients of ``cos 2 alpha`` and ``sin 2 alpha``, of the fourth order and of
the second."""

TETRAFOIL = (8, 4)
"""Even coefficients of ``cos 4 alpha`` and ``sin 4 alpha``."""

EVEN_TERMS = 9
"""Even coefficients up to the fourth order: tetrafoil and what Cs makes, and those of
lower orders, which go along with them."""


def coma_radian_angstrom3(optics: Optics) -> Tensor:
    """Return what a beam tilt multiplies ``x |s|^2`` and ``y |s|^2`` by, (n, 2).

    ``-2 pi Cs lambda^2 t``; differentiable.
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv.double())
    cs_angstrom = optics.cs_mm.double() * CS_ANGSTROM_PER_MM
    scale = -2 * math.pi * cs_angstrom * wavelength**2
    return scale[:, None] * (optics.beam_tilt_mrad.double() * 1e-3)


def coma_as_tilt_mrad(optics: Optics) -> Tensor:
    """Return the beam tilt that odd coefficients of coma stand for, (n, 2).

    Without spherical aberration there is none.
    """
    odd = widened(optics.odd_zernike_radian, COMA[1] + 1)
    along_y, along_x = odd[:, COMA[0]], odd[:, COMA[1]]
    one = replace(optics, beam_tilt_mrad=torch.ones(len(optics), 2).double())
    # Z(m, 3) is 3 s^3 - 2 s times the sine or cosine.
    tilt = 3 * torch.stack([along_x, along_y], 1) / coma_radian_angstrom3(one)
    return tilt.nan_to_num(nan=0.0)


def with_tilt(optics: Optics, tilt_mrad: Tensor, rows: Tensor) -> Optics:
    """Return optics whose coma is that of a beam tilt.

    Where a file has a beam tilt, the odd coefficients of coma say nothing: they are
    taken out of those particles. What else these make, shifts, stays.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    tilt_mrad : Tensor, shape (n, 2)
    rows : Tensor of bool, shape (n,)
        Particles whose tilt is new.
    """
    odd = optics.odd_zernike_radian.clone()
    coma = odd[rows, COMA[0] : COMA[1] + 1]
    if bool(coma.any()):
        odd[rows, : coma.shape[1]] -= 2 * coma
        odd[rows, COMA[0] : COMA[1] + 1] = 0
    return replace(optics, beam_tilt_mrad=tilt_mrad, odd_zernike_radian=odd)


def with_coefficients(optics: Optics, odd: Tensor, even: Tensor) -> Optics:
    """Return optics with other coefficients, where these are not NaN.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    odd, even : Tensor, shape (n, a) and (n, b)
        The first of ``odd_zernike_radian`` and ``even_zernike_radian``; those beyond
        stay.
    """
    changed = {}
    for name, new in (("odd_zernike_radian", odd), ("even_zernike_radian", even)):
        if bool(new.isnan().all()):
            continue
        own = widened(getattr(optics, name), new.shape[1])
        new = torch.nn.functional.pad(
            new, (0, own.shape[1] - new.shape[1]), value=torch.nan
        )
        changed[name] = torch.where(new.isnan(), own, new)
    return replace(optics, **changed)


def with_named_terms(optics: Optics) -> Optics:
    """Return optics of the same CTF with as few even coefficients as will do.

    What defocus, astigmatism, Cs and phase shift can say of the even polynomials up to
    the fourth order is theirs. What is left are terms of two and four periods of the
    fourth power of the frequency, the former with what they need of the second order.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    """
    even = widened(optics.even_zernike_radian, EVEN_TERMS)
    if not bool(even.any()):
        return optics
    wavelength = electron_wavelength_angstrom(optics.voltage_kv.double())
    # Z(0, 2) is 2 s^2 - 1, Z(0, 4) is 6 s^4 - 6 s^2 + 1, Z(2, 4) is 4 s^4 - 3 s^2.
    constant = even[:, 0] - even[:, 2] + even[:, 6]
    square = 2 * even[:, 2] - 6 * even[:, 6]
    star = even[:, STAR]
    periodic = even[:, STAR_LOWER] - 3 * star
    per_defocus = math.pi * wavelength
    changed = with_astigmatism(optics, -periodic / per_defocus[:, None])
    more = 12 * even[:, 6] / (math.pi * wavelength**3)  # of Cs, in angstrom
    cs_mm = optics.cs_mm + more / CS_ANGSTROM_PER_MM
    # The coma of a tilt is as large as the Cs that it is told with.
    ratio = torch.where(more == 0, 1.0, optics.cs_mm / cs_mm)
    left = even.clone()
    left[:, [0, 2, 6]] = 0
    left[:, STAR_LOWER] = 3 * star
    return replace(
        changed,
        defocus_u_angstrom=changed.defocus_u_angstrom - square / per_defocus,
        defocus_v_angstrom=changed.defocus_v_angstrom - square / per_defocus,
        cs_mm=cs_mm,
        phase_shift_radian=optics.phase_shift_radian - constant,
        beam_tilt_mrad=optics.beam_tilt_mrad * ratio[:, None],
        even_zernike_radian=left,
    )


def widened(coefficients: Tensor, width: int) -> Tensor:
    """Return coefficients (n, a) with zeros up to at least a width."""
    lacking = max(0, width - coefficients.shape[1])
    return torch.nn.functional.pad(coefficients.double(), (0, lacking))


def shortest(coefficients: Tensor) -> Tensor:
    """Return coefficients (n, a) without the last columns that are 0 throughout."""
    last = torch.nonzero(coefficients.any(0))
    return coefficients[:, : int(last[-1]) + 1 if len(last) else 0]


def has_odd_aberrations(optics: Optics) -> bool:
    """Return whether phases of some images are turned, or to be differentiated."""
    both = optics.beam_tilt_mrad, optics.odd_zernike_radian
    return any(one.requires_grad or bool(one.any()) for one in both)


def odd_phase(optics: Optics, frequency_x: Tensor, frequency_y: Tensor) -> Tensor:
    """Return by how much odd aberrations turn the phases of images.

    Differentiable in the beam tilt and the coefficients.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    frequency_x, frequency_y : Tensor, shape (p,) or (n, p)
        In 1/angstrom.

    Returns
    -------
    Tensor of float64, shape (n, p)
        In radian; antisymmetric.
    """
    x, y = frequency_x.double(), frequency_y.double()
    squared = x * x + y * y
    along_x, along_y = coma_radian_angstrom3(optics)[..., None].unbind(1)
    coma = along_x * (x * squared) + along_y * (y * squared)
    return coma + odd_polynomials(optics.odd_zernike_radian, x, y)


def turned_phases(optics: Optics, frequency_x: Tensor, frequency_y: Tensor) -> Tensor:
    """Return what odd aberrations multiply the coefficients of images by.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    frequency_x, frequency_y : Tensor, shape (p,) or (n, p)
        In 1/angstrom.

    Returns
    -------
    Tensor, complex, shape (n, p)
        Of modulus 1, in the precision of the frequencies.
    """
    phase = odd_phase(optics, frequency_x, frequency_y)
    # The sine of a large phase is right in double precision alone.
    turned = torch.polar(torch.ones_like(phase), phase)
    return turned.to(frequency_x.dtype.to_complex())
