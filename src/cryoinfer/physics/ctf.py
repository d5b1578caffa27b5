"""The contrast transfer function, as RELION defines it.

::

    CTF(s) = scale * exp(-B s^2 / 4) * (sqrt(1 - w^2) sin(gamma) + w cos(gamma))
    gamma  = pi lambda dz(alpha) s^2 - (pi / 2) Cs lambda^3 s^4 + phase shift
             - even aberrations (cryoinfer.physics.aberrations)
    dz     = (dU + dV) / 2 + (dU - dV) / 2 * cos(2 (alpha - angle))

Frequencies are those of the image without distortion, where there is some.
Images whose phases were flipped show its modulus, times the scale with its sign.

Underfocus is positive, the value at zero frequency is ``+w`` (without a phase
plate), and an image is the CTF times the projection: particles white on black.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.physics.zernike import even_polynomials
from cryoinfer.records import Optics

CS_ANGSTROM_PER_MM = 1e7


def electron_wavelength_angstrom(voltage_kv: Tensor) -> Tensor:
    """Return the relativistic wavelength of electrons.

    ``h / sqrt(2 m e V (1 + e V / (2 m c^2)))`` with the constants that RELION
    rounds to (``src/ctf.cpp``), so that both programs use the same phase.

    Parameters
    ----------
    voltage_kv : Tensor, shape (...)
        Acceleration voltage, positive.

    Returns
    -------
    Tensor, shape (...)
        In angstrom: 0.0197 at 300 kV.
    """
    volt = voltage_kv * 1e3
    return 12.2643247 / torch.sqrt(volt * (1 + 0.978466e-6 * volt))


def evaluate_ctf(optics: Optics, frequency_x: Tensor, frequency_y: Tensor) -> Tensor:
    """Evaluate the contrast transfer function of every particle.

    Differentiable in every field of ``optics``, except in an amplitude contrast
    of exactly 1, where the formula itself has a vertical tangent.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    frequency_x, frequency_y : Tensor, shape (p,) or (n, p)
        Spatial frequencies in 1/angstrom, shared or one set a particle.

    Returns
    -------
    Tensor, shape (n, p)
        In the dtype of the frequencies. The coefficients of the phase are always
        computed in float64. In float32 the phase is then wrong by up to 2e-7 of
        itself, and the CTF by as much: against float64, 1e-5 rms and 1e-4 at most
        up to a phase of 670 rad (3 micrometres at 1.6 angstrom, 300 kV).
    """
    geometry = _geometry(frequency_x, frequency_y)
    wave = torch.sin(_whole_phase(optics, geometry, frequency_x, frequency_y))
    if optics.phase_flipped.any():
        wave = torch.where(optics.phase_flipped[:, None], wave.abs(), wave)
    return wave.mul_(_envelope(optics, geometry))


def of_magnification(optics: Optics, magnification: Tensor) -> Optics:
    """Return optics of another magnification, whose images show the same defocus.

    Defoci are fitted to rings that the lens has distorted too: with the frequency
    ``s' = D s`` of the image without distortion, the quadratic form Q of the defocus
    becomes ``D^-T Q D^-1`` (as RELION's ``MagnificationHelper::adaptAstigmatism``).
    The term of Cs is left as it is.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    magnification : Tensor, shape (n, 2, 2)
    """
    if bool((magnification == optics.magnification).all()):
        return optics
    mean, cosine, sine = _defocus_and_astigmatism(optics)
    form = torch.stack([mean + cosine, sine, sine, mean - cosine], 1)
    inverse = optics.magnification @ torch.linalg.inv(magnification)  # D^-1
    new = inverse.mT @ form.unflatten(1, (2, 2)) @ inverse
    mean = (new[:, 0, 0] + new[:, 1, 1]) / 2
    cosine = (new[:, 0, 0] - new[:, 1, 1]) / 2
    changed = _with_defocus(optics, mean, cosine, new[:, 0, 1])
    return replace(changed, magnification=magnification)


def with_astigmatism(optics: Optics, offset_angstrom: Tensor) -> Optics:
    """Return optics of the same mean defoci and another astigmatism.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    offset_angstrom : Tensor, shape (n, 2)
        Added to ``(dU - dV) / 2`` times the cosine and sine of twice its angle.
    """
    mean, cosine, sine = _defocus_and_astigmatism(optics)
    along, across = offset_angstrom.double().unbind(1)
    return _with_defocus(optics, mean, cosine + along, sine + across)


def _defocus_and_astigmatism(optics: Optics) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean defocus, and the terms of cos and sin 2 alpha, each (n,)."""
    u, v = optics.defocus_u_angstrom.double(), optics.defocus_v_angstrom.double()
    mean, half_difference = (u + v) / 2, (u - v) / 2
    twice_angle = 2 * optics.defocus_angle_radian.double()
    cosine = half_difference * torch.cos(twice_angle)
    return mean, cosine, half_difference * torch.sin(twice_angle)


def _with_defocus(optics: Optics, mean: Tensor, cosine: Tensor, sine: Tensor) -> Optics:
    """Invert :func:`_defocus_and_astigmatism`."""
    half_difference = torch.hypot(cosine, sine)
    return replace(
        optics,
        defocus_u_angstrom=mean + half_difference,
        defocus_v_angstrom=mean - half_difference,
        defocus_angle_radian=torch.atan2(sine, cosine) / 2,
    )


def ctf_and_defocus_slope(
    optics: Optics, frequency_x: Tensor, frequency_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Evaluate the CTF and its derivative with respect to the mean defocus.

    Parameters
    ----------
    optics : Optics
        Of n particles.
    frequency_x, frequency_y : Tensor, shape (p,) or (n, p)
        Spatial frequencies in 1/angstrom.

    Returns
    -------
    ctf : Tensor, shape (n, p)
        As :func:`evaluate_ctf` returns it.
    slope : Tensor, shape (n, p)
        Change of the CTF per angstrom that is added to both ``defocus_u_angstrom``
        and ``defocus_v_angstrom``: ``envelope * cos(phase) * pi * lambda * s^2``; its
        negative where the phases were flipped and the sine is below 0.
    """
    geometry = _geometry(frequency_x, frequency_y)
    phase = _whole_phase(optics, geometry, frequency_x, frequency_y)
    envelope = _envelope(optics, geometry)
    wavelength = electron_wavelength_angstrom(optics.voltage_kv.double())
    rate = (torch.pi * wavelength).to(phase.dtype)[:, None] * envelope
    slope = torch.cos(phase).mul_(geometry[..., 0, :]).mul_(rate)
    wave = torch.sin(phase)
    if optics.phase_flipped.any():
        turned = optics.phase_flipped[:, None] & (wave < 0)
        slope = torch.where(turned, -slope, slope)
        wave = torch.where(turned, -wave, wave)
    return wave.mul_(envelope), slope


def _geometry(frequency_x: Tensor, frequency_y: Tensor) -> Tensor:
    """Return s^2, s^2 cos(2 alpha), s^2 sin(2 alpha), s^4, 1; shape (..., 5, p).

    The angle alpha enters the phase through these alone, so none is ever computed.
    """
    x, y = frequency_x.double(), frequency_y.double()
    xx, yy = x * x, y * y
    squared = xx + yy
    one = torch.ones_like(squared)
    terms = (squared, xx - yy, 2 * x * y, squared * squared, one)
    return torch.stack(terms, dim=-2).to(frequency_x.dtype)


def _whole_phase(
    optics: Optics, geometry: Tensor, frequency_x: Tensor, frequency_y: Tensor
) -> Tensor:
    """Return the phase whose sine is the CTF, with even aberrations; shape (n, p)."""
    phase = _phase(optics, geometry)
    coefficients = optics.even_zernike_radian
    if not coefficients.shape[1]:
        return phase
    x, y = frequency_x.double(), frequency_y.double()
    return phase - even_polynomials(coefficients, x, y).to(phase)


def _phase(optics: Optics, geometry: Tensor) -> Tensor:
    """Return gamma + arcsin(w), the phase whose sine is the CTF; shape (n, p).

    It is linear in the geometry terms. No matrix product: libraries round its sums
    otherwise for another number of particles or threads, on some processors.
    """
    wavelength = electron_wavelength_angstrom(optics.voltage_kv.double())
    cs_angstrom = optics.cs_mm.double() * CS_ANGSTROM_PER_MM
    u, v = optics.defocus_u_angstrom.double(), optics.defocus_v_angstrom.double()
    mean, half_difference = (u + v) / 2, (u - v) / 2
    twice_angle = 2 * optics.defocus_angle_radian.double()
    quadratic = torch.pi * wavelength
    coefficients = (
        quadratic * mean,
        quadratic * half_difference * torch.cos(twice_angle),
        quadratic * half_difference * torch.sin(twice_angle),
        -torch.pi / 2 * cs_angstrom * wavelength**3,
        optics.phase_shift_radian.double()
        + torch.asin(optics.amplitude_contrast.double()),
    )
    first, *others = (one.to(geometry.dtype)[:, None] for one in coefficients)
    term, *terms = geometry.unbind(-2)
    phase = first * term
    for factor, other in zip(others, terms, strict=True):
        phase = phase.add_(factor * other)
    return phase


def _envelope(optics: Optics, geometry: Tensor) -> Tensor:
    """Return scale * exp(-B s^2 / 4), shape (n, p), or (n, 1) where all B are 0.

    Particles rarely have a B-factor, and the exponential is a third of the work.
    """
    scale = optics.scale.to(geometry.dtype)[:, None]
    bfactor = optics.bfactor_angstrom2
    if not bfactor.requires_grad and not bfactor.any():
        return scale
    decay = bfactor.to(geometry.dtype)[:, None] / 4 * geometry[..., 0, :]
    return scale * torch.exp(-decay)
