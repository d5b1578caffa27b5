"""The contrast transfer function against known values and the written-out formula."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.physics.ctf import (
    ctf_and_defocus_slope,
    electron_wavelength_angstrom,
    evaluate_ctf,
)
from cryoinfer.records import Optics


def optics_of(n: int = 1, **values: float) -> Optics:
    """Return equal optics with the named fields replaced."""
    base = Optics.without_ctf(n, 1.0)
    one = torch.ones(n, dtype=torch.float64)
    return replace(base, **{name: one * value for name, value in values.items()})


def random_optics(n: int, generator: torch.Generator) -> Optics:
    """Return optics in which every field differs from particle to particle."""

    def uniform(low: float, high: float) -> Tensor:
        sample = torch.rand(n, generator=generator, dtype=torch.float64)
        return low + (high - low) * sample

    return Optics(
        pixel_size_angstrom=uniform(0.8, 1.2),
        voltage_kv=uniform(100, 300),
        cs_mm=uniform(0, 2.7),
        amplitude_contrast=uniform(0.05, 0.2),
        defocus_u_angstrom=uniform(5000, 30000),
        defocus_v_angstrom=uniform(5000, 30000),
        defocus_angle_radian=uniform(0, math.pi),
        phase_shift_radian=uniform(0, 2),
        bfactor_angstrom2=uniform(0, 100),
        scale=uniform(0.5, 1.5),
        group=torch.zeros(n, dtype=torch.int64),
        phase_flipped=torch.arange(n) % 3 == 2,
        ctf_premultiplied=torch.zeros(n, dtype=torch.bool),
        beam_tilt_mrad=torch.zeros(n, 2, dtype=torch.float64),
        odd_zernike_radian=torch.zeros(n, 0, dtype=torch.float64),
        even_zernike_radian=torch.zeros(n, 0, dtype=torch.float64),
        magnification=torch.eye(2, dtype=torch.float64).repeat(n, 1, 1),
    )


def naive_ctf(optics: Optics, x: float, y: float) -> list[float]:
    """Evaluate the formula of the module as it is printed, one number at a time."""
    values = []
    for i in range(len(optics)):
        volt = float(optics.voltage_kv[i]) * 1000
        wavelength = 12.2643247 / math.sqrt(volt * (1 + volt * 0.978466e-6))
        alpha = math.atan2(y, x)
        u, v = float(optics.defocus_u_angstrom[i]), float(optics.defocus_v_angstrom[i])
        angle = float(optics.defocus_angle_radian[i])
        defocus = (u + v) / 2 + (u - v) / 2 * math.cos(2 * (alpha - angle))
        s2 = x * x + y * y
        cs = float(optics.cs_mm[i]) * 1e7
        gamma = math.pi * wavelength * defocus * s2
        gamma -= math.pi / 2 * cs * wavelength**3 * s2**2
        gamma += float(optics.phase_shift_radian[i])
        w = float(optics.amplitude_contrast[i])
        wave = math.sqrt(1 - w * w) * math.sin(gamma) + w * math.cos(gamma)
        if optics.phase_flipped[i]:
            wave = abs(wave)
        decay = math.exp(-float(optics.bfactor_angstrom2[i]) * s2 / 4)
        values.append(float(optics.scale[i]) * decay * wave)
    return values


@pytest.mark.parametrize(
    ("voltage_kv", "expected"), [(300, 0.0196875), (200, 0.0250793), (100, 0.0370144)]
)
def test_wavelength_is_the_relativistic_one(voltage_kv: float, expected: float) -> None:
    actual = electron_wavelength_angstrom(torch.tensor(voltage_kv, dtype=torch.float64))
    # The constants are rounded to 1e-5 in RELION's source.
    assert float(actual) == pytest.approx(expected, rel=1e-4)


def test_zeros_are_where_theory_puts_them() -> None:
    optics = optics_of(
        voltage_kv=300,
        cs_mm=2.0,
        amplitude_contrast=0.1,
        defocus_u_angstrom=15000,
        defocus_v_angstrom=15000,
    )
    s = torch.arange(0.02, 0.14, 1e-6, dtype=torch.float64)
    ctf = evaluate_ctf(optics, s, torch.zeros_like(s))[0]
    crossing = torch.nonzero(ctf[1:] * ctf[:-1] < 0).squeeze(1)[:5]
    expected = [0.057280, 0.081707, 0.100384, 0.116120, 0.129988]
    # The table has six digits and the scan steps of 1e-6.
    torch.testing.assert_close(
        s[crossing], torch.tensor(expected, dtype=torch.float64), atol=2e-6, rtol=0
    )


def test_value_at_the_origin_is_the_amplitude_contrast() -> None:
    optics = optics_of(amplitude_contrast=0.07, cs_mm=2.7, defocus_u_angstrom=1e4)
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(evaluate_ctf(optics, zero, zero)) == pytest.approx(0.07, rel=1e-12)


def test_underfocus_is_positive_beside_the_origin() -> None:
    optics = optics_of(
        amplitude_contrast=0.0, defocus_u_angstrom=1e4, defocus_v_angstrom=1e4
    )
    s = torch.tensor([0.02], dtype=torch.float64)
    assert float(evaluate_ctf(optics, s, torch.zeros_like(s))) > 0


def test_without_ctf_is_exactly_one() -> None:
    s = torch.linspace(-0.5, 0.5, 7)
    ctf = evaluate_ctf(Optics.without_ctf(3, 1.0), s, s.flip(0))
    assert torch.equal(ctf, torch.ones(3, 7))


def test_defocus_angle_points_along_u() -> None:
    angle = 0.4
    optics = optics_of(
        amplitude_contrast=0.1,
        defocus_u_angstrom=2e4,
        defocus_v_angstrom=1e4,
        defocus_angle_radian=angle,
    )
    s = torch.linspace(0.01, 0.3, 20, dtype=torch.float64)
    along = evaluate_ctf(optics, s * math.cos(angle), s * math.sin(angle))
    round_u = optics_of(
        amplitude_contrast=0.1, defocus_u_angstrom=2e4, defocus_v_angstrom=2e4
    )
    # Both are float64; the phase reaches 60 rad.
    torch.testing.assert_close(
        along, evaluate_ctf(round_u, s, torch.zeros_like(s)), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("per_particle", [False, True])
def test_agrees_with_the_printed_formula(per_particle: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    optics = random_optics(5, generator)
    x, y = torch.rand(2, 9, generator=generator, dtype=torch.float64) - 0.5
    expected = torch.tensor(
        [naive_ctf(optics, float(a), float(b)) for a, b in zip(x, y, strict=True)],
        dtype=torch.float64,
    ).T
    if per_particle:
        x, y = x.repeat(5, 1), y.repeat(5, 1)
    # Phases reach 2000 rad, of which float64 keeps 12 digits after rounding.
    torch.testing.assert_close(evaluate_ctf(optics, x, y), expected, atol=1e-11, rtol=0)


def test_float32_keeps_the_phase() -> None:
    generator = torch.Generator().manual_seed(2)
    optics = replace(
        random_optics(20, generator),
        voltage_kv=torch.full((20,), 300.0, dtype=torch.float64),
    )
    x, y = (torch.rand(2, 2000, generator=generator) - 0.5) * 0.88
    single = evaluate_ctf(optics, x, y)
    assert single.dtype == torch.float32
    # 2e-7 of a phase of at most 670 rad, times a scale of up to 1.5.
    torch.testing.assert_close(
        single.double(), evaluate_ctf(optics, x.double(), y.double()), atol=2e-4, rtol=0
    )


@pytest.mark.parametrize(
    "field",
    [
        "defocus_u_angstrom",
        "defocus_v_angstrom",
        "defocus_angle_radian",
        "phase_shift_radian",
        "bfactor_angstrom2",
        "scale",
        "voltage_kv",
        "cs_mm",
        "amplitude_contrast",
    ],
)
def test_gradients(field: str) -> None:
    generator = torch.Generator().manual_seed(3)
    optics = random_optics(2, generator)
    x, y = (torch.rand(2, 4, generator=generator, dtype=torch.float64) - 0.5) * 0.1

    def evaluate(value: Tensor) -> Tensor:
        return evaluate_ctf(replace(optics, **{field: value}), x, y)

    check: Callable[..., bool] = torch.autograd.gradcheck
    value = getattr(optics, field).clone().requires_grad_()
    # A step of 1e-4 suits defocus (1e4) and angles (1) alike.
    assert check(evaluate, (value,), eps=1e-4, atol=1e-6)


@pytest.mark.parametrize("bfactor", [0.0, 60.0])
def test_defocus_slope_is_the_derivative(bfactor: float) -> None:
    generator = torch.Generator().manual_seed(4)
    optics = random_optics(3, generator)
    optics = replace(optics, bfactor_angstrom2=torch.full_like(optics.scale, bfactor))
    x, y = (torch.rand(2, 8, generator=generator, dtype=torch.float64) - 0.5) * 0.3
    ctf, slope = ctf_and_defocus_slope(optics, x, y)
    assert torch.equal(ctf, evaluate_ctf(optics, x, y))

    def at(offset: float) -> Tensor:
        moved = replace(
            optics,
            defocus_u_angstrom=optics.defocus_u_angstrom + offset,
            defocus_v_angstrom=optics.defocus_v_angstrom + offset,
        )
        return evaluate_ctf(moved, x, y)

    # Central difference over 2 angstrom: third derivative ~ (pi lambda s^2)^3 ~ 1e-7.
    torch.testing.assert_close(slope, (at(1.0) - at(-1.0)) / 2, atol=1e-6, rtol=0)
