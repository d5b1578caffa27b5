"""Distorted images against a plain transform, and their inverse."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.distortion import (
    distorted_points,
    distorted_transform,
    is_distorted,
    recorded,
    undistorted_points,
)
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier

MATRIX = torch.tensor([[1.02, 0.015], [-0.02, 0.97]], dtype=torch.float64)


def blobs(n: int, sd: float = 2.5) -> Tensor:
    """Return an image (1, n, n) that ends well before its edges."""
    axis = torch.arange(n, dtype=torch.float64) - n // 2
    image = torch.zeros(n, n, dtype=torch.float64)
    for weight, x, y in ((1.0, 2.0, -1.0), (-0.6, -2.5, 1.5), (0.8, 0.5, 3.0)):
        image += weight * torch.exp(
            -((axis - x) ** 2 + (axis[:, None] - y) ** 2) / 2 / sd**2
        )
    return image[None]


def plain_transform(image: Tensor, matrix: Tensor) -> Tensor:
    """Add up all pixels at every frequency."""
    n = image.shape[-1]
    place = torch.arange(n, dtype=torch.float64) - n // 2
    ky = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[:, None, None, None]
    kx = torch.arange(n // 2 + 1, dtype=torch.float64)[:, None, None]
    at_x = matrix[0, 0] * kx + matrix[0, 1] * ky
    at_y = matrix[1, 0] * kx + matrix[1, 1] * ky
    turn = (at_x * place + at_y * place[:, None]) / n
    return (image * torch.exp(-2j * math.pi * turn)).sum((-2, -1)) / n


@pytest.mark.parametrize("n", [48, 49])
def test_it_is_the_transform_at_other_frequencies(n):
    image = blobs(n)
    found = distorted_transform(image, MATRIX)[0]
    # The blobs are 1e-12 at the edges, and as much at Nyquist.
    torch.testing.assert_close(found, plain_transform(image, MATRIX), atol=1e-9, rtol=0)


@pytest.mark.parametrize("n", [16, 17])
def test_without_distortion_it_is_the_transform(n):
    image = torch.randn(2, n, n, generator=torch.Generator().manual_seed(0)).double()
    identity = torch.eye(2, dtype=torch.float64)
    found = distorted_transform(image, identity)
    torch.testing.assert_close(found, image_to_fourier(image))
    assert not is_distorted(identity[None])
    assert is_distorted(MATRIX[None])


def test_the_inverse_undoes_it():
    image = blobs(48)
    seen = fourier_to_image(distorted_transform(image, MATRIX), 48)
    assert float((seen - image).abs().max()) > 0.01
    back = distorted_transform(seen, torch.linalg.inv(MATRIX))
    torch.testing.assert_close(back, image_to_fourier(image), atol=1e-9, rtol=0)


def test_points_are_seen_where_the_image_shows_them():
    n, sd = 49, 2.5
    point = torch.tensor([[4.0, -3.0]], dtype=torch.float64)
    axis = torch.arange(n, dtype=torch.float64) - n // 2
    image = torch.exp(-((axis - 4.0) ** 2 + (axis[:, None] + 3.0) ** 2) / 2 / sd**2)
    seen = fourier_to_image(distorted_transform(image[None], MATRIX), n)[0]
    seen = seen / seen.sum()
    found = torch.stack([(seen * axis).sum(), (seen * axis[:, None]).sum()])
    expected = distorted_points(point, MATRIX[None])
    torch.testing.assert_close(found[None], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(undistorted_points(expected, MATRIX[None]), point)


def test_frequencies_beyond_nyquist_are_told():
    stretched = torch.tensor([[1.1, 0.0], [0.0, 1.0]], dtype=torch.float64)
    kx, ky = torch.tensor([7.0, 7.5, 0.0]), torch.tensor([0.0, 0.0, 7.5])
    assert recorded(stretched, kx, ky, 16).tolist() == [True, False, True]


def test_noise_stays_as_strong():
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(3000, 16, 16, generator=generator)
    power = distorted_transform(noise, MATRIX).abs().square().mean(0)
    # 3,000 images: four standard errors of 1 / sqrt(3000), but for real coefficients.
    assert float((power[1:8, 1:8] - 1).abs().max()) < 4 / 3000**0.5
