"""The Fourier convention: origin, scale, projections and noise."""

import cmath
import math

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.transform import (
    fourier_to_image,
    fourier_to_map,
    image_to_fourier,
    map_to_fourier,
)

# A transform of some thousand numbers of order one, in double precision.
ROUNDING = 1e-12

SIZES = [8, 9, 16]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("n", SIZES)
def test_a_point_at_the_origin_has_a_flat_transform(n: int) -> None:
    image = torch.zeros(n, n, dtype=torch.float64)
    image[n // 2, n // 2] = 1
    expected = torch.full((n, n // 2 + 1), 1 / n, dtype=torch.complex128)
    assert_near(image_to_fourier(image), expected)
    density = torch.zeros(n, n, n, dtype=torch.float64)
    density[n // 2, n // 2, n // 2] = 1
    assert_near(map_to_fourier(density), expected.expand(n, n, n // 2 + 1))


@pytest.mark.parametrize("n", SIZES)
def test_a_moved_point_has_the_phase_of_its_position(n: int) -> None:
    x, y, z = 2, -1, 3
    density = torch.zeros(n, n, n, dtype=torch.float64)
    density[n // 2 + z, n // 2 + y, n // 2 + x] = 1
    for kz, ky, kx in [(0, 0, 1), (1, 0, 0), (0, 2, 0), (-1, -2, 3)]:
        phase = -2 * math.pi * (kx * x + ky * y + kz * z) / n
        expected = torch.tensor(cmath.rect(1 / n, phase), dtype=torch.complex128)
        assert_near(map_to_fourier(density)[kz, ky, kx], expected)


@pytest.mark.parametrize("n", SIZES)
def test_images_agree_with_the_sum_written_out(n: int) -> None:
    image = normal(n, n)
    position = torch.arange(n, dtype=torch.float64) - n // 2
    rows, columns = torch.fft.fftfreq(n, 1 / n).double(), torch.arange(n // 2 + 1)

    def wave(frequency: Tensor) -> Tensor:
        turns = frequency[:, None] * position / n
        return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)

    expected = wave(rows) @ image.to(torch.complex128) @ wave(columns.double()).T / n
    assert_near(image_to_fourier(image), expected)


@pytest.mark.parametrize("n", SIZES)
def test_transforms_are_inverted(n: int) -> None:
    images, density = normal(3, n, n), normal(n, n, n)
    assert_near(fourier_to_image(image_to_fourier(images), n), images)
    assert_near(fourier_to_map(map_to_fourier(density), n), density)


@pytest.mark.parametrize("n", SIZES)
def test_the_plane_kz_0_is_the_transform_of_the_projection(n: int) -> None:
    density = normal(n, n, n)
    assert_near(map_to_fourier(density)[0], image_to_fourier(density.sum(0)))


@pytest.mark.parametrize("n", SIZES)
def test_the_half_transform_keeps_the_power(n: int) -> None:
    image = normal(n, n)
    power = image_to_fourier(image).abs() ** 2
    # Columns other than 0 and Nyquist stand for two.
    twice = torch.full((n // 2 + 1,), 2.0, dtype=torch.float64)
    twice[0] = 1
    if n % 2 == 0:
        twice[-1] = 1
    assert_near((power * twice).sum() / n**2, (image**2).mean())


def test_white_noise_of_variance_one_has_power_one() -> None:
    count, n = 4000, 8
    power = (image_to_fourier(normal(count, n, n)).abs() ** 2).mean(0)
    # |.|^2 of a complex normal has the deviation 1, of a real one sqrt(2): five
    # standard errors of the mean.
    torch.testing.assert_close(
        power, torch.ones_like(power), rtol=0, atol=5 * math.sqrt(2 / count)
    )
