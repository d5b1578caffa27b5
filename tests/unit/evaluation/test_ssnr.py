"""Signal-to-noise by shell: known ratios, their bias and their standard errors."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.evaluation.ssnr import (
    independent_numbers,
    ring_sizes,
    ssnr_from_fsc,
    ssnr_of_images,
)
from cryoinfer.geometry.so3_grid import rotation_grid
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import Pose

TIMES = 200
"""Draws of the noise: a mean is known to 1 / sqrt(200) of the standard error, which is
known to 1 / sqrt(400) of itself, 5 %."""


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def noise(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def shell_powers(density: Tensor) -> Tensor:
    """Return the mean power of every shell, by an own way, white noise at 1."""
    n = density.shape[-1]
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    squared = k**2
    for _ in range(density.ndim - 1):
        squared = squared[..., None] + k**2
    shell = squared.sqrt().round()
    power = torch.fft.fftn(density, norm="ortho").abs() ** 2
    return torch.stack([power[shell == s].mean() for s in range(n // 2 + 1)])


def assert_unbiased_and_as_wide_as_told(
    found: Tensor, true: Tensor, bias: Tensor, error: Tensor
) -> None:
    """Compare the draws of every shell, four standard errors of either."""
    off = (found.mean(0) - true - bias) / error * math.sqrt(TIMES)
    assert float(off.abs().max()) < 4.0
    width = found.std(0) / error
    # F has longer tails than a normal distribution in shells of few numbers.
    assert 0.75 < float(width.min())
    assert float(width.max()) < 1.25
    # Over all shells together, whose widths are independent.
    assert float(width.mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("box", [15, 16])
@pytest.mark.parametrize("level", [0.0, 0.5, 4.0])
def test_halves_of_known_noise(
    box: int, level: float, generator: torch.Generator
) -> None:
    """Bias and error as predicted, from shell 3 on, of a hundred numbers and more."""
    signal = math.sqrt(level / 2) * noise(generator, box, box, box)
    count = independent_numbers(box)
    assert float(count[1:].sum()) == pytest.approx(
        4 / 3 * math.pi * (box / 2) ** 3, 0.2
    )
    true = 2 * shell_powers(signal)
    draws = []
    for _ in range(TIMES):
        first, second = (signal + noise(generator, box, box, box) for _ in range(2))
        draws.append(
            ssnr_from_fsc(fourier_shell_correlation(first, second), count).ratio
        )
    error = ssnr_from_fsc(true / (2 + true), count).standard_error
    bias = 2 * (1 + true) / (count - 2)
    at = slice(3, None)
    assert_unbiased_and_as_wide_as_told(
        torch.stack(draws)[:, at], true[at], bias[at], error[at]
    )


def test_one_half_has_half_the_ratio() -> None:
    fsc, count = torch.tensor([0.25, 1 / 3]), torch.tensor([100.0, 400.0])
    half, whole = (ssnr_from_fsc(fsc, count, joined=one) for one in (False, True))
    # sqrt((4 + 8 R + 2 R^2) / n) for R = 1 and n = 400, single precision of 1 / 3.
    assert float(whole.ratio[1]) == pytest.approx(1.0, rel=1e-6)
    assert float(whole.standard_error[1]) == pytest.approx(
        math.sqrt(14 / 400), rel=1e-6
    )
    torch.testing.assert_close(half.ratio * 2, whole.ratio)
    torch.testing.assert_close(half.standard_error * 2, whole.standard_error)


def test_a_mask_and_a_symmetry_leave_fewer_numbers(generator: torch.Generator) -> None:
    """Correlations of masked noise scatter by 1 / sqrt(n)."""
    box = 24
    line = torch.arange(box, dtype=torch.float64) - box // 2
    distance = (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).sqrt()
    mask = torch.cos(math.pi / 2 * ((distance - 5) / 3).clamp(0, 1)) ** 2
    count = independent_numbers(box, mask)
    pairs = noise(generator, TIMES, 2, box, box, box) * mask
    fsc = torch.stack([fourier_shell_correlation(a, b) for a, b in pairs])[:, 3:]
    width = fsc.std(0) * count[3:].sqrt()
    # Each is known to 5 %, and neighbours depend on each other.
    assert 0.8 < float(width.min())
    assert float(width.max()) < 1.2
    assert float(width.mean()) == pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(independent_numbers(box, mask, 4)[3:] * 4, count[3:])


@pytest.mark.parametrize("box", [15, 16])
@pytest.mark.parametrize("level", [0.0, 0.2])
def test_images_of_one_view(box: int, level: float, generator: torch.Generator) -> None:
    """The ratio of five images, and of their mean, which was fitted to them."""
    signal = math.sqrt(level) * noise(generator, box, box)
    sizes, true, draws = ring_sizes(box), shell_powers(signal), []
    for _ in range(TIMES):
        images = signal + noise(generator, 5, box, box)
        mean = images.mean(0, keepdim=True).expand_as(images)
        draws.append(ssnr_of_images(images, mean, sizes).ratio)
    told = 2 * (sizes + 10 * sizes * true) + 2 * (sizes + 5 * sizes * true) ** 2 / (
        4 * sizes
    )
    error, bias = told.sqrt() / (5 * sizes), (true + 0.2) * 2 / (4 * sizes - 2)
    at = slice(2, None)
    assert_unbiased_and_as_wide_as_told(
        torch.stack(draws)[:, at], true[at], bias[at], error[at]
    )
    # The same as the mean of 1987: n mean |F|^2 / spread - 1.
    found = ssnr_of_images(images, mean, sizes).times(5.0)
    spread = sum(shell_powers(one - mean[0]) for one in images) / 4
    torch.testing.assert_close(found.ratio, 5 * shell_powers(mean[0]) / spread - 1)


def test_images_at_given_poses(generator: torch.Generator) -> None:
    """Projections of a map in noise: the true ratio of each ring, as far as is told."""
    box = 16
    volume = VoxelVolume(noise(generator, box, box, box).float(), 2.0)
    pose = Pose(rotation_grid(0)[:40].float(), torch.zeros(40, 2))
    seen = volume.project(pose, box, 2.0).double()
    images = seen + 4.0 * noise(generator, *seen.shape)
    found = ssnr_of_images(images, seen)
    true = torch.stack([shell_powers(one) for one in seen]).mean(0) / 16.0
    off = (found.ratio - true) / found.standard_error
    # Projections stop below Nyquist.
    assert float(off[1:-1].abs().max()) < 4.0
    assert float(found.standard_error[4] / true[4]) < 0.1


def test_what_cannot_tell_noise_is_refused(generator: torch.Generator) -> None:
    one = noise(generator, 1, 8, 8)
    with pytest.raises(InputError, match="too few"):
        ssnr_of_images(one, one, ring_sizes(8))
    with pytest.raises(InputError, match="same size"):
        ssnr_of_images(one, one[:, :6, :6])
