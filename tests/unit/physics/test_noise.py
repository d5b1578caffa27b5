"""Noise: spectra, samples, likelihood and estimation agree with each other."""

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.physics.noise import (
    GaussianNoise,
    estimate_background_spectrum,
    radial_power,
)


def falling_spectrum(box: int) -> torch.Tensor:
    """Return a spectrum that falls tenfold from low to high frequency."""
    ring = torch.arange(box // 2 + 1, dtype=torch.float64)
    return 0.5 + 4.5 / (1 + (ring / (box / 10)) ** 2)


def test_radial_power_of_ones_is_one() -> None:
    disc = FourierDisc.of_box(16, 6)
    power = radial_power(torch.ones(3, len(disc), dtype=torch.complex128), disc)
    # Square root and square of small integers.
    torch.testing.assert_close(power, torch.ones(7).double(), atol=1e-14, rtol=0)


def test_radial_power_averages_each_ring() -> None:
    disc = FourierDisc.of_box(16, 6)
    values = disc.ring.double() * torch.polar(torch.tensor(1.0), torch.tensor(0.3))
    power = radial_power(values.expand(2, 2, -1), disc)
    expected = torch.arange(7).double() ** 2
    expected[0] = expected[1]
    # exp(0.3 i) is rounded to float32.
    torch.testing.assert_close(power, expected, rtol=1e-6, atol=0)


def test_white_noise_has_its_variance() -> None:
    noise = GaussianNoise.white(4.0, 32)
    images = noise.sample(200, 32, torch.Generator().manual_seed(0))
    # The variance of 204,800 values is known to sqrt(2 / 204800) = 0.3 %; 5 sigma.
    assert float(images.var()) == pytest.approx(4.0, rel=0.016)


@pytest.mark.parametrize("box", [32, 33])
def test_samples_have_the_spectrum(box: int) -> None:
    noise = GaussianNoise(falling_spectrum(box))
    images = noise.sample(400, box, torch.Generator().manual_seed(1))
    disc = FourierDisc.of_box(box, (box - 1) // 2)
    power = radial_power(disc.gather(image_to_fourier(images)), disc)
    expected = noise.spectrum[: len(power)]
    # Ring 1 has 3 or more coefficients x 400 images: 3 % a sigma; the rest less.
    torch.testing.assert_close(power[1:], expected[1:], rtol=0.12, atol=0)
    assert images.shape == (400, box, box)
    assert images.dtype == torch.float64


@pytest.mark.parametrize("box", [32, 33])
def test_pixel_variance_is_that_of_the_samples(box: int) -> None:
    noise = GaussianNoise(falling_spectrum(box))
    images = noise.sample(400, box, torch.Generator().manual_seed(8))
    # 400,000 correlated pixels: the inner rings carry most of the power, 1 % a sigma.
    assert noise.pixel_variance(box) == pytest.approx(float(images.var()), rel=0.04)
    assert GaussianNoise.white(3.0, box).pixel_variance(box) == pytest.approx(3.0)


def test_samples_repeat_with_the_seed() -> None:
    noise = GaussianNoise(falling_spectrum(16))
    first = noise.sample(3, 16, torch.Generator().manual_seed(7))
    again = noise.sample(3, 16, torch.Generator().manual_seed(7))
    assert torch.equal(first, again)


def test_variance_beyond_the_last_ring_is_that_of_the_last() -> None:
    short = torch.tensor([1.0, 2.0, 3.0])
    whole = torch.cat([short, torch.full((10,), 3.0)])  # the corner is ring 11
    images = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(8))
    one, other = (GaussianNoise(each).log_prob(images) for each in (short, whole))
    assert torch.equal(one, other)


def test_log_prob_of_white_noise_is_that_of_its_pixels() -> None:
    images = torch.randn(
        3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    zero = torch.zeros((), dtype=torch.float64)
    normal = torch.distributions.Normal(zero, zero + 1.5)
    expected = normal.log_prob(images).sum((-2, -1))
    actual = GaussianNoise(torch.full((5,), 2.25, dtype=torch.float64)).log_prob(images)
    # Same sum in another order, float64.
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("box", [6, 7])
def test_log_prob_is_the_density_of_the_samples(box: int) -> None:
    """Against the multivariate normal with the covariance of the filter, by hand."""
    noise = GaussianNoise(falling_spectrum(box))
    pixels = torch.eye(box * box, dtype=torch.float64).reshape(-1, box, box)
    rows = torch.fft.fftfreq(box, 1 / box, dtype=torch.float64)
    ring = torch.hypot(rows[:, None], rows[None]).round().long().clamp(max=box // 2)
    response = torch.fft.ifft2(torch.fft.fft2(pixels) * noise.spectrum[ring]).real
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(box * box, dtype=torch.float64), response.reshape(box * box, -1)
    )
    images = noise.sample(4, box, torch.Generator().manual_seed(3))
    # Float64 through a Cholesky factor of condition 10.
    torch.testing.assert_close(
        noise.log_prob(images),
        normal.log_prob(images.reshape(4, -1)),
        rtol=1e-10,
        atol=0,
    )


def test_background_of_white_noise_is_its_variance() -> None:
    box, n = 48, 300
    images = GaussianNoise.white(3.0, box).sample(
        n, box, torch.Generator().manual_seed(4)
    )
    spectrum = estimate_background_spectrum(images, 15.0)
    assert spectrum.shape == (box // 2 + 1,)
    # Ring 2 holds ~6 coefficients x 300 images, fewer independent ones under the
    # mask: 4 % a sigma. Ring 1 loses some power with the mean of the background.
    torch.testing.assert_close(
        spectrum[2:], torch.full_like(spectrum[2:], 3.0), rtol=0.12, atol=0
    )
    assert float(spectrum[4:].mean()) == pytest.approx(3.0, rel=0.01)
    assert float(spectrum[:2].min()) > 2.0


def test_background_ignores_the_particle_and_follows_the_colour() -> None:
    box, n = 64, 300
    noise = GaussianNoise(falling_spectrum(box).float())
    images = noise.sample(n, box, torch.Generator().manual_seed(5))
    axis = torch.arange(box) - box // 2
    inside = torch.hypot(axis[:, None].float(), axis[None].float()) < 20
    spectrum = estimate_background_spectrum(images + 50 * inside, 20.0)
    # The mask blurs the curve by 2-3 rings: a few per cent where it is bent.
    torch.testing.assert_close(spectrum[3:], noise.spectrum[3:], rtol=0.15, atol=0)


def test_background_needs_room() -> None:
    with pytest.raises(InputError, match="larger box"):
        estimate_background_spectrum(torch.zeros(2, 32, 32), 22.0)
