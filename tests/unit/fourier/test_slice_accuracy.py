"""Slices against the exact projections of Gaussian blobs: where, and how exact."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, extract_slices, kernel_falloff
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.rotations import random_rotations


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blob_centres(count: int, distance: float) -> Tensor:
    """Return points at one distance from the origin, in voxels."""
    points = torch.randn(count, 3, generator=seeded(7), dtype=torch.float64)
    return torch.nn.functional.normalize(points, dim=1) * distance


def blob_map(box: int, voxel: float, centres: Tensor, sigma: float) -> Tensor:
    """Sample Gaussian blobs of height one; lengths in the units of ``voxel``."""
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) * voxel
    x, y, z = torch.exp(-((axis - centres.T[..., None]) ** 2) / (2 * sigma**2))
    return torch.einsum("bz,by,bx->zyx", z, y, x)


def blob_images(
    box: int, pixel: float, centres: Tensor, sigma: float, rotation: Tensor
) -> Tensor:
    """Sample the exact projections (integrals along z) of :func:`blob_map`."""
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) * pixel
    x, y, _ = torch.einsum("nij,bj->inb", rotation, centres)
    x = torch.exp(-((axis - x[..., None]) ** 2) / (2 * sigma**2))
    y = torch.exp(-((axis - y[..., None]) ** 2) / (2 * sigma**2))
    return math.sqrt(2 * math.pi) * sigma * torch.einsum("nby,nbx->nyx", y, x)


def relative_error(found: Tensor, expected: Tensor) -> float:
    found = found.to(expected.dtype)
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


def corrected_projection(density: Tensor) -> Tensor:
    """Project a map along z after dividing out the kernel's fall-off at padding 2."""
    box = density.shape[-1]
    return (density / kernel_falloff(box, 2 * box, "cpu")).sum(0)


def test_a_turned_blob_appears_where_the_convention_says() -> None:
    # A quarter turn about z takes x to y; frequencies are voxels again.
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    before, after = (
        blob_map(32, 1.0, torch.tensor([centre]).double(), 1.5)
        for centre in ([5.0, 0, 0], [0, 5.0, 0])
    )
    disc = FourierDisc.of_box(32, 15)
    found = extract_slices(FourierVolume.from_map(before, 15, 2.0), quarter, disc)
    expected = disc.gather(image_to_fourier(corrected_projection(after)))
    # Rounding in single precision.
    assert relative_error(found[0], expected) < 1e-5


# Measured relative errors (root of summed squares) of 50 slices of 20 blobs of
# sigma 1.5 voxels at one distance from the origin, against the exact projections.
MEASURED = {
    # (distance / box, padding): error
    (1 / 16, 1.5): 0.0026,
    (1 / 16, 2.0): 0.0015,
    (1 / 8, 1.5): 0.0082,
    (1 / 8, 2.0): 0.0046,
    (1 / 4, 1.5): 0.037,
    (1 / 4, 2.0): 0.020,
}


def error_against_exact(distance: float, padding: float) -> float:
    box = 48
    centres = blob_centres(20, distance * box)
    rotation = random_rotations(50, seeded(1))
    density = blob_map(box, 1.0, centres, 1.5)
    volume = FourierVolume.from_map(density, box // 2 - 1, padding)
    disc = FourierDisc.of_box(box, box // 2 - 1)
    exact = blob_images(box, 1.0, centres, 1.5, rotation)
    expected = disc.gather(image_to_fourier(exact))
    return relative_error(extract_slices(volume, rotation, disc), expected)


@pytest.mark.parametrize(("case", "measured"), MEASURED.items())
def test_slices_of_blobs_against_exact_projections(
    case: tuple[float, float], measured: float
) -> None:
    assert error_against_exact(*case) == pytest.approx(measured, rel=0.1)


def test_the_error_falls_with_the_square_of_the_padding() -> None:
    # A ghost of the kernel's tails has the amplitude (d / (padded box - d))^2, which
    # falls a little faster than the square.
    errors = [error_against_exact(1 / 8, padding) for padding in (1.5, 2.0, 3.0)]
    for coarse, fine, ratio in [(0, 1, 2 / 1.5), (1, 2, 3 / 2)]:
        rate = math.log(errors[coarse] / errors[fine]) / math.log(ratio)
        assert 1.9 < rate < 2.3


def test_the_error_grows_with_the_square_of_the_distance() -> None:
    errors = [error_against_exact(distance, 2.0) for distance in (1 / 8, 1 / 4)]
    assert math.log2(errors[1] / errors[0]) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize(
    ("image_box", "pixel"), [(32, 1.3), (40, 1.0), (24, 1.9), (33, 1.3)]
)
def test_images_of_another_pixel_size(image_box: int, pixel: float) -> None:
    box, voxel = 32, 1.2
    scale = box * voxel / (image_box * pixel)
    radius = min((image_box - 1) // 2, int(15 / scale))
    centres, rotation = blob_centres(10, 5.0), random_rotations(20, seeded(1))
    disc = FourierDisc.of_box(image_box, radius)
    # Three pixels of the coarsest grid: blobs vanish before any Nyquist frequency.
    sigma = 3.0
    volume = FourierVolume.from_map(blob_map(box, voxel, centres, sigma), 15)
    slices = extract_slices(volume, rotation, disc, scale)
    exact = blob_images(image_box, pixel, centres, sigma, rotation) / voxel
    expected = disc.gather(image_to_fourier(exact))
    # Orthonormal transforms are divided by the root of the number of pixels.
    ratio = box / image_box * (voxel / pixel) ** 2
    # As measured above for blobs at an eighth of the box, and their own width.
    assert relative_error(slices * ratio, expected) < 0.01
