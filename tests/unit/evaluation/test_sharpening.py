"""B-factors that were put into maps, and what sharpening makes of them."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError, NothingFoundError
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.evaluation.postprocess import find_solvent_mask, postprocess
from cryoinfer.evaluation.sharpening import (
    fit_b_factor,
    mean_amplitudes,
    sharpen,
    shell_frequencies,
)
from cryoinfer.reconstruction.mask import soft_sphere

VOXEL, B = 1.0, 90.0
"""Nyquist at 2 A."""


def white(n: int, seed: int) -> Tensor:
    """Return a map whose amplitudes do not depend on the resolution but by chance."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, n, n), generator=generator, dtype=torch.float64)


def frequency_squared(n: int) -> Tensor:
    line = torch.fft.fftfreq(n, VOXEL, dtype=torch.float64)
    return line[:, None, None] ** 2 + line[:, None] ** 2 + line**2


def blurred(density: Tensor, b_factor: float) -> Tensor:
    """Return a map times exp(-B s^2 / 4) in Fourier space, by a plain transform."""
    factor = torch.exp(-b_factor / 4 * frequency_squared(len(density)))
    return torch.fft.ifftn(torch.fft.fftn(density) * factor).real


def flat(n: int, seed: int) -> Tensor:
    """Return a real map all of whose coefficients have the amplitude 1."""
    transform = torch.fft.fftn(white(n, seed))
    return torch.fft.ifftn(transform / transform.abs()).real


@pytest.mark.parametrize("n", [48, 51])
def test_a_blurred_map_gives_back_its_b_factor(n: int) -> None:
    amplitudes = mean_amplitudes(blurred(flat(n, 0), B))
    fit = fit_b_factor(amplitudes, 2.5, n * VOXEL)
    assert fit is not None
    # Exact at every coefficient. A shell is one Fourier pixel wide, over which the
    # square of the frequency is not that of its middle: by shell^-2 of itself.
    assert fit.b_factor_angstrom2 == pytest.approx(-B, rel=0.01)
    assert fit.to_angstrom >= 2.5
    assert 10.0 >= fit.from_angstrom > 10.0 - 1.5 * 100 / n


@pytest.mark.parametrize("n", [24, 25])
def test_mean_amplitudes_are_those_of_a_plain_loop(n: int) -> None:
    density = white(n, 1)
    amplitude = torch.fft.fftn(density).abs() / n**3
    shell = (frequency_squared(n).sqrt() * n * VOXEL).round()
    expected = torch.stack([amplitude[shell == k].mean() for k in range(n // 2 + 1)])
    torch.testing.assert_close(mean_amplitudes(density), expected)


def test_no_line_is_drawn_through_what_is_no_range() -> None:
    amplitudes = torch.ones(65, dtype=torch.float64)
    assert fit_b_factor(amplitudes, 8.5, 256.0) is None  # worse than 8 A
    # Of a box of 20 A, the shells 2 to 4 lie between 10 and 5 A.
    assert fit_b_factor(amplitudes, 5.0, 20.0) is None
    # The last shell is never part of it.
    amplitudes[-1] = 1e6
    fit = fit_b_factor(amplitudes, 2.0, 128.0)
    assert fit is not None
    assert fit.b_factor_angstrom2 == pytest.approx(0.0, abs=1e-9)
    assert fit.to_angstrom == pytest.approx(128 / 63)


@pytest.mark.parametrize("n", [32, 33])
def test_sharpening_undoes_a_blur_up_to_the_resolution(n: int) -> None:
    original = white(n, 2)
    weight = torch.ones(n // 2 + 1, dtype=torch.float64)
    found = sharpen(blurred(original, B), weight, -B, 4.0, VOXEL).double()
    fsc = fourier_shell_correlation(found, original)
    amplitude = mean_amplitudes(found) / mean_amplitudes(original)
    reached = n * VOXEL / 4.0
    inside, outside = int(reached) - 1, math.ceil(reached) + 4
    ones = torch.ones(inside + 1, dtype=torch.float64)
    # Single precision, in which the map is returned.
    torch.testing.assert_close(fsc[: inside + 1], ones, atol=1e-5, rtol=0)
    torch.testing.assert_close(amplitude[: inside + 1], ones, atol=1e-5, rtol=0)
    assert float(amplitude[outside:].max()) < 1e-5
    # Nothing is left in the corners, which belong to no shell.
    corners = frequency_squared(n).sqrt() > 0.5
    assert float(torch.fft.fftn(found)[corners].abs().max()) < 1e-3


def halves(n: int, noise: float, b_factor: float = B) -> tuple[Tensor, Tensor, Tensor]:
    """Return two noisy halves of a ball of blurred white density, and its mask."""
    ball = soft_sphere(n, n / 5, 3.0).double()
    signal = blurred(white(n, 3) * ball, b_factor)
    scale = noise * float(signal.std())
    first, second = (signal + scale * white(n, seed) for seed in (4, 5))
    return first, second, soft_sphere(n, n / 5 + 3, 5.0)


def test_the_b_factor_of_noisy_halves_is_that_of_the_signal() -> None:
    n = 96
    first, second, mask = halves(n, 2.5)
    found = postprocess(first, second, mask, VOXEL)
    assert 2.5 < found.resolution_angstrom < 5.0
    assert found.fit is not None
    assert found.b_factor_angstrom2 == found.fit.b_factor_angstrom2
    # The line is through noisy points: within three of its own standard errors.
    error = found.fit.standard_error_angstrom2
    assert error < 0.08 * B
    assert abs(found.b_factor_angstrom2 + B) < 3 * error
    # With the noise of the solvent, amplitudes fall less.
    assert found.whole_box_fit is not None
    assert found.whole_box_fit.b_factor_angstrom2 > found.b_factor_angstrom2 + 3 * error


def test_nothing_corrected_is_above_what_was_measured() -> None:
    first, second, mask = halves(48, 2.0)
    curve = postprocess(first, second, mask, VOXEL).curve
    assert bool((curve.corrected <= curve.masked).all())
    assert bool((curve.corrected < curve.masked).any())


@pytest.mark.parametrize("n", [32, 33])
def test_nothing_is_claimed_in_the_last_shell(n: int) -> None:
    first, second, mask = halves(n, 0.01, b_factor=0.0)
    found = postprocess(first, second, mask, VOXEL)
    assert float(found.curve.masked.min()) > 0.9  # they agree everywhere
    assert float(found.curve.corrected[-1]) == 0.0
    last = n // 2
    # The crossing of 0.143 between the last shell but one and the last.
    assert n * VOXEL / last < found.resolution_angstrom < n * VOXEL / (last - 1)


def test_a_b_factor_that_is_given_is_applied() -> None:
    first, second, mask = halves(48, 0.5)
    plain, strong = (postprocess(first, second, mask, VOXEL, b) for b in (0.0, -60.0))
    assert strong.b_factor_angstrom2 == -60.0
    ratio = mean_amplitudes(strong.sharpened) / mean_amplitudes(plain.sharpened)
    reached = int(48 * VOXEL / plain.resolution_angstrom)
    square = shell_frequencies(25, 48 * VOXEL).square()
    # A shell is one Fourier pixel wide; 2 % is what the middle is off by.
    expected = torch.exp(60.0 / 4 * square)
    torch.testing.assert_close(ratio[:reached], expected[:reached], rtol=0.02, atol=0)


def test_amplitudes_that_rise_are_not_blurred() -> None:
    first, second, mask = halves(64, 0.02, b_factor=-30.0)
    found = postprocess(first, second, mask, VOXEL)
    assert found.fit is not None
    assert found.fit.b_factor_angstrom2 > 0
    assert found.b_factor_angstrom2 == 0.0


def test_where_no_line_fits_the_map_is_weighted_alone() -> None:
    first, second, mask = halves(48, 30.0, b_factor=600.0)
    found = postprocess(first, second, mask, VOXEL)
    assert found.resolution_angstrom > 8.0
    assert found.fit is None
    assert found.b_factor_angstrom2 == 0.0
    assert "worse than 8 A" in found.why_no_fit


def test_halves_that_agree_nowhere_are_refused() -> None:
    mask = torch.ones(24, 24, 24)
    half = white(24, 6)
    with pytest.raises(NothingFoundError, match="agree in no shell"):
        postprocess(half, -half, mask, VOXEL)
    with pytest.raises(InputError, match="same size"):
        postprocess(half, half, torch.ones(25, 25, 25), VOXEL)


def test_a_solvent_mask_is_found() -> None:
    first, second, mask = halves(48, 0.5)
    positive = [half + 3 * soft_sphere(48, 9.0, 3.0) for half in (first, second)]
    found = find_solvent_mask(*positive, VOXEL)
    assert float(found[mask == 1].mean()) > 0.95
    assert float(found[mask == 0].mean()) < 0.3
