"""Aberrations against textbook formulas, plain loops and finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.physics.aberrations import odd_phase, turned_phases
from cryoinfer.physics.ctf import ctf_and_defocus_slope, evaluate_ctf
from cryoinfer.physics.image_model import ImageModel
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.physics.zernike import even_order, odd_order, zernike
from cryoinfer.records import COMA, Latents, Optics, ParticleBatch, Pose

BOX, PIXEL = 16, 2.0
TILT_MRAD = (0.6, -0.8)
ODD = (0.2, -0.3, 40.0, 0.0, 0.0, -25.0)
EVEN = (0.1, 8.0, 0.0, -5.0, 150.0, 60.0, -90.0, 30.0, 70.0)


def row(values, n: int = 1) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).repeat(n, 1)


def microscope(n: int = 1) -> Optics:
    one = torch.ones(n, dtype=torch.float64)
    return replace(
        Optics.without_ctf(n, PIXEL),
        cs_mm=2.7 * one,
        amplitude_contrast=0.1 * one,
        defocus_u_angstrom=9000.0 * one,
        defocus_v_angstrom=8000.0 * one,
        defocus_angle_radian=0.4 * one,
    )


def aberrant(n: int = 1) -> Optics:
    return replace(
        microscope(n),
        beam_tilt_mrad=row(TILT_MRAD, n),
        odd_zernike_radian=row(ODD, n),
        even_zernike_radian=row(EVEN, n),
    )


def frequencies() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x, y = torch.rand(2, 40, generator=generator, dtype=torch.float64) - 0.5
    return x, y


def test_polynomials_are_counted_as_relion_counts_them():
    # oddIndexToMN and evenIndexToMN of RELION 3.1, as m and n.
    odd = [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3), (-5, 5)]
    even = [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4)]
    assert [odd_order(i) for i in range(7)] == odd
    assert [even_order(i) for i in range(9)] == even
    assert even_order(9) == (-6, 6)
    assert [odd_order(i) for i in COMA] == [(-1, 3), (1, 3)]


@pytest.mark.parametrize(
    ("m", "n", "expected"),
    [
        (1, 1, lambda r, a: r * math.cos(a)),
        (-1, 3, lambda r, a: (3 * r**3 - 2 * r) * math.sin(a)),
        (3, 3, lambda r, a: r**3 * math.cos(3 * a)),
        (0, 4, lambda r, a: 6 * r**4 - 6 * r**2 + 1),
        (-2, 4, lambda r, a: (4 * r**4 - 3 * r**2) * math.sin(2 * a)),
        (4, 4, lambda r, a: r**4 * math.cos(4 * a)),
    ],
)
def test_polynomials_are_those_of_tables(m, n, expected):
    x, y = frequencies()
    polar = zip(torch.hypot(x, y).tolist(), torch.atan2(y, x).tolist(), strict=True)
    wanted = torch.tensor([expected(r, a) for r, a in polar], dtype=torch.float64)
    torch.testing.assert_close(zernike(m, n, x, y), wanted, atol=1e-14, rtol=1e-12)


def test_beam_tilt_turns_phases_by_the_formula_of_textbooks():
    optics = replace(microscope(), beam_tilt_mrad=row((1.0, 0.0)))
    at = torch.tensor([0.25], dtype=torch.float64)
    zero = torch.zeros_like(at)
    # 2 pi Cs lambda^2 s^3 t: 2.7e7 A, 0.0196875 A, 1e-3 radian at 4 A.
    expected = 2 * math.pi * 2.7e7 * 0.0196875**2 * 0.25**3 * 1e-3
    # The wavelength is rounded to 1e-5 of itself in RELION's constants.
    assert float(odd_phase(optics, at, zero)) == pytest.approx(-expected, rel=3e-5)
    assert float(odd_phase(optics, zero, at)) == 0


def test_beam_tilt_is_coma_and_a_shift_of_the_polynomials():
    wavelength = 12.2643247 / math.sqrt(3e5 * (1 + 3e5 * 0.978466e-6))
    scale = 2e4 * math.pi * 2.7 * wavelength**2  # as RELION's insertTilt has it
    coma = [-scale * t / 3 for t in reversed(TILT_MRAD)]
    same = row([2 * coma[0], 2 * coma[1], 0.0, *coma])
    tilted = replace(microscope(), beam_tilt_mrad=row(TILT_MRAD))
    in_terms = replace(microscope(), odd_zernike_radian=same)
    torch.testing.assert_close(
        odd_phase(tilted, *frequencies()), odd_phase(in_terms, *frequencies())
    )


def test_odd_phases_are_antisymmetric_and_even_ones_symmetric():
    x, y = frequencies()
    optics = aberrant()
    torch.testing.assert_close(odd_phase(optics, -x, -y), -odd_phase(optics, x, y))
    torch.testing.assert_close(evaluate_ctf(optics, -x, -y), evaluate_ctf(optics, x, y))


def test_even_phases_are_taken_from_that_of_the_ctf():
    x, y = frequencies()
    optics = aberrant()
    phase = sum(c * zernike(*even_order(i), x, y) for i, c in enumerate(EVEN))
    shifted = [
        float(
            evaluate_ctf(
                replace(microscope(), phase_shift_radian=-phase[j : j + 1]),
                x[j : j + 1],
                y[j : j + 1],
            )
        )
        for j in range(len(x))
    ]
    wanted = torch.tensor(shifted, dtype=torch.float64)[None]
    torch.testing.assert_close(evaluate_ctf(optics, x, y), wanted)


def test_particles_of_two_groups_have_their_own_aberrations():
    x, y = frequencies()
    pair = Optics.joined([microscope(), aberrant()])
    assert pair.even_zernike_radian.shape == (2, len(EVEN))
    both = evaluate_ctf(pair, x, y)
    torch.testing.assert_close(both[:1], evaluate_ctf(microscope(), x, y))
    torch.testing.assert_close(both[1:], evaluate_ctf(aberrant(), x, y))


def test_the_slope_in_defocus_is_that_of_differences():
    x, y = frequencies()
    optics = aberrant()

    def at(offset: float) -> Tensor:
        moved = replace(
            optics,
            defocus_u_angstrom=optics.defocus_u_angstrom + offset,
            defocus_v_angstrom=optics.defocus_v_angstrom + offset,
        )
        return evaluate_ctf(moved, x, y)

    ctf, slope = ctf_and_defocus_slope(optics, x, y)
    torch.testing.assert_close(ctf, at(0.0))
    # Central differences of 0.1 A: their error goes with its square.
    difference = (at(0.1) - at(-0.1)) / 0.2
    torch.testing.assert_close(slope, difference, atol=1e-8, rtol=1e-5)


def test_gradients_are_those_of_differences():
    x, y = (one[:6] for one in frequencies())

    def seen(tilt: Tensor, odd: Tensor, even: Tensor) -> Tensor:
        optics = replace(
            microscope(),
            beam_tilt_mrad=tilt,
            odd_zernike_radian=odd,
            even_zernike_radian=even,
        )
        complex_ctf = evaluate_ctf(optics, x, y) * turned_phases(optics, x, y)
        return torch.view_as_real(complex_ctf)

    values = [row(one).requires_grad_() for one in (TILT_MRAD, ODD, EVEN)]
    assert torch.autograd.gradcheck(seen, values)


def image_of(optics: Optics) -> Tensor:
    axis = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) * PIXEL
    centres = torch.tensor([[3.0, -2.0, 1.0], [-4.0, 1.0, 2.0], [0.0, 4.0, -3.0]])
    x, y, z = torch.exp(-((axis - centres.T[..., None]) ** 2) / 2 / 2.5**2)
    structure = VoxelVolume(torch.einsum("bz,by,bx->zyx", z, y, x), PIXEL)
    rotation = random_rotations(1, torch.Generator().manual_seed(1))
    pose = Pose(rotation, torch.tensor([[1.0, -0.5]], dtype=torch.float64))
    model = ImageModel(structure, GaussianNoise.white(0.0, BOX), BOX)
    return model.mean(Latents.rigid(pose, torch.zeros(1).double()), optics)


def test_an_image_with_odd_aberrations_is_one_with_its_phases_turned():
    plain = image_to_fourier(image_of(microscope()))[0]
    optics = replace(
        microscope(), beam_tilt_mrad=row(TILT_MRAD), odd_zernike_radian=row(ODD)
    )
    seen = image_to_fourier(image_of(optics))[0]
    for ky in range(-BOX // 2 + 1, BOX // 2):
        for kx in range(1, BOX // 2):
            x, y = (torch.tensor([k / (BOX * PIXEL)]).double() for k in (kx, ky))
            turn = torch.exp(1j * odd_phase(optics, x, y))[0, 0]
            assert abs(seen[ky, kx] - turn * plain[ky, kx]) < 1e-6 * plain.abs().max()


def test_an_odd_coefficient_of_first_order_is_a_shift():
    shifted = replace(microscope(), odd_zernike_radian=row((0.0, -2 * math.pi * PIXEL)))
    expected = torch.roll(image_of(microscope()), 1, -1)
    # Nyquist's coefficients alone, of a smooth image, are not those of a shift.
    torch.testing.assert_close(image_of(shifted), expected, atol=2e-3, rtol=0)


def test_whitening_turns_phases_back():
    grid, power = ReferenceGrid(BOX, PIXEL), torch.ones(BOX // 2)
    found, expected = (
        whiten(ParticleBatch(image_of(optics), optics, torch.arange(1)), grid, 6, power)
        for optics in (
            replace(
                microscope(), beam_tilt_mrad=row(TILT_MRAD), odd_zernike_radian=row(ODD)
            ),
            microscope(),
        )
    )
    # Single precision.
    torch.testing.assert_close(
        found.coefficients, expected.coefficients, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(found.ctf, expected.ctf)


MAGNIFICATION = torch.tensor([[1.03, 0.02], [-0.01, 0.98]], dtype=torch.float64)


def distorted(optics: Optics) -> Optics:
    return replace(optics, magnification=MAGNIFICATION.repeat(len(optics), 1, 1))


def test_a_distorted_image_has_the_ctf_and_slices_of_other_frequencies():
    bare = Optics.without_ctf(1, PIXEL)
    projection = image_of(bare)[0]
    place = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) * PIXEL
    optics = distorted(aberrant())
    seen = image_to_fourier(image_of(optics))[0]
    scale = seen.abs().max()
    for ky in range(-5, 6):
        for kx in range(1, 6):
            at = MAGNIFICATION @ torch.tensor([kx, ky]).double() / (BOX * PIXEL)
            x, y = at[:1], at[1:]
            turn = torch.exp(-2j * math.pi * (x * place + y * place[:, None]))
            wanted = (projection * turn).sum() / BOX
            wanted = wanted * evaluate_ctf(optics, x, y)[0, 0]
            wanted = wanted * torch.exp(1j * odd_phase(optics, x, y))[0, 0]
            # The blobs are 1e-3 of their height at the edges of so small a box.
            assert abs(seen[ky, kx] - wanted) < 2e-3 * scale


def test_whitening_undoes_distortion():
    # Without the spread of a CTF, which ends at the edges of so small a box.
    grid, power = ReferenceGrid(BOX, PIXEL), torch.ones(BOX // 2)
    bare = Optics.without_ctf(1, PIXEL)
    found, expected = (
        whiten(ParticleBatch(image_of(optics), optics, torch.arange(1)), grid, 7, power)
        for optics in (distorted(bare), bare)
    )
    error = torch.linalg.norm(found.coefficients - expected.coefficients)
    # As above; without the correction it is 0.10.
    assert float(error / torch.linalg.norm(expected.coefficients)) < 5e-3
    # (7, 0) is seen at 7 / 1.03 and shown; none is beyond Nyquist at this radius.
    torch.testing.assert_close(found.ctf, expected.ctf)
