import pytest
import torch

from cryoinfer.data.resampling import Resampling, band_limited_matrix, cropped_map
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.physics.noise import GaussianNoise, radial_power

# A blob of 4 A sd, which no pixel size here cuts off: exp(-2 (pi 4 / 4.8)^2) = 1e-6.
SD_ANGSTROM = 4.0
AT_ANGSTROM = (5.0, -7.0)


def blob(box: int, pixel: float) -> torch.Tensor:
    axis = (torch.arange(box) - box // 2) * pixel
    x, y = (torch.exp(-((axis - c) ** 2) / (2 * SD_ANGSTROM**2)) for c in AT_ANGSTROM)
    return y[:, None] * x


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


# Cropped, padded, coarser, finer images, and areas that are no whole number of pixels.
@pytest.mark.parametrize(
    ("old_box", "old_pixel", "length", "most"),
    [
        (64, 1.6, 76.8, 48),
        (40, 1.6, 76.8, 48),
        (64, 1.2, 76.8, 48),
        (96, 0.97, 76.8, 48),
        (44, 1.9, 76.8, 48),
        (36, 2.1, 76.8, 48),
    ],
)
def test_a_blob_looks_the_same_on_every_grid(old_box, old_pixel, length, most) -> None:
    way = Resampling.to_area(old_box, old_pixel, length, most)
    none = torch.full((old_box // 2 + 1,), 1e-20)
    found = way.images(blob(old_box, old_pixel)[None], none, generator())[0]
    expected = blob(way.box, way.pixel_size_angstrom)
    # Frequency Nyquist of the new grid is left out: exp(-(pi 4 / 2.1)^2 / 2) = 2e-8;
    # the rim of the smallest image cuts off exp(-(31 / 4)^2 / 2).
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert way.box * way.pixel_size_angstrom == pytest.approx(length, rel=1e-3)
    assert way.pixel_size_angstrom >= old_pixel * (1 - 1e-3)


def test_whole_pixels_are_cut_off_or_kept() -> None:
    images = torch.randn(2, 20, 20, generator=generator())
    nyquist = torch.full((11,), 1.0)
    way = Resampling.to_area(20, 2.0, 32.0, 16)
    found = way.images(images, nyquist, generator())
    # All frequencies but Nyquist's, which no disc of coefficients reaches.
    disc = FourierDisc.of_box(16, 7)
    inner = images[:, 2:18, 2:18]
    torch.testing.assert_close(
        disc.gather(image_to_fourier(found)), disc.gather(image_to_fourier(inner))
    )


def test_the_kernel_is_the_sum_of_its_cosines() -> None:
    way = Resampling.to_area(40, 1.9, 76.8, 48)
    span = way.box * way.pixel_size_angstrom / 1.9
    x = (torch.arange(way.box).double() - way.box // 2)[:, None] / way.box
    turn = 2 * torch.pi * (x - (torch.arange(42).double() - 21) / span)
    kernel = 1 + sum(2 * (f * turn).cos() for f in range(1, way.box // 2))
    # Half of one and all of the next 40 pixels, where the area is 40.4 of them.
    weight = torch.ones(42).double()
    weight[[0, -1]] = (span - 40) / 2
    torch.testing.assert_close(way._matrix, (kernel * weight / span).float())


def noise_of(kind: str, box: int) -> torch.Tensor:
    # Tenfold from low to high frequency, or none at all.
    rings = torch.arange(box // 2 + 1) / (box // 2)
    return torch.full_like(rings, 2.5) if kind == "white" else 2.5 * 10 ** (-rings)


@pytest.mark.parametrize("kind", ["white", "coloured"])
@pytest.mark.parametrize(
    ("old_box", "old_pixel"), [(64, 1.6), (40, 1.6), (64, 1.2), (96, 0.97), (40, 1.9)]
)
def test_noise_has_the_power_that_is_stated(kind, old_box, old_pixel) -> None:
    way = Resampling.to_area(old_box, old_pixel, 76.8, 48)
    spectrum = noise_of(kind, old_box)
    drawn = GaussianNoise(spectrum).sample(600, old_box, generator())
    found = way.images(drawn, spectrum, generator())
    disc = FourierDisc.of_box(way.box, way.box // 2 - 1)
    power = radial_power(disc.gather(image_to_fourier(found)), disc)
    stated = way.spectrum(spectrum)[: len(power)]
    # Ring 1 has 2 coefficients in 600 images: 3 % of statistics. A window cuts a steep
    # spectrum's rings a little into each other: 13 % in the first, of a padded image.
    torch.testing.assert_close(power, stated, rtol=0.15, atol=0)
    assert float((power / stated)[1:].mean()) == pytest.approx(1, abs=0.02)


def test_what_was_not_measured_tells_nothing() -> None:
    # Coefficients of padded images stay independent: their chi-squared has the
    # variance of as many numbers, which zeros in the gap would not give.
    way = Resampling.to_area(32, 1.6, 76.8, 48)
    assert way.is_padded
    spectrum = torch.full((17,), 2.5)
    drawn = GaussianNoise(spectrum).sample(2000, 32, generator())
    found = way.images(drawn, spectrum, generator())
    disc = FourierDisc.of_box(48, 23)
    ratio = disc.gather(image_to_fourier(found)).abs().square() / 2.5
    # Sum of exponentials: variance over count is 1; 2,000 draws know it to 3 %.
    assert float(ratio.sum(1).var() / len(disc)) == pytest.approx(1, abs=0.12)


def wave(box: int, kx: int, ky: int, phase: float) -> torch.Tensor:
    """Return a plane wave of whole periods over the box, from its centre."""
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) / box
    turn = kx * axis[None, :] + ky * axis[:, None]
    return torch.cos(2 * torch.pi * turn + phase)


@pytest.mark.parametrize(("old_box", "box"), [(24, 12), (25, 12), (25, 13), (24, 24)])
def test_what_a_smaller_grid_holds_is_kept_and_all_else_is_left_out(
    old_box: int, box: int
) -> None:
    matrix = band_limited_matrix(old_box, box, float(old_box))
    # Nyquist's frequency of an even box is not kept: it has no phase there.
    last = (box - 1) // 2
    for kx, ky in ((0, 0), (1, -3), (last, 2), (-last, last), (5, last)):
        found = matrix @ wave(old_box, kx, ky, 0.7) @ matrix.mT
        # Sums of 25 products in double precision.
        torch.testing.assert_close(found, wave(box, kx, ky, 0.7), rtol=0, atol=1e-12)
    for kx, ky in ((last + 1, 0), (2, -last - 1)) if box < old_box - 1 else ():
        found = matrix @ wave(old_box, kx, ky, 0.7) @ matrix.mT
        torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("old_box", "box"), [(24, 12), (25, 12)])
def test_the_matrix_crops_fourier_coefficients(old_box: int, box: int) -> None:
    image = torch.randn(old_box, old_box, generator=generator(), dtype=torch.float64)
    matrix = band_limited_matrix(old_box, box, float(old_box))
    found = image_to_fourier(matrix @ image @ matrix.mT)
    old, low = image_to_fourier(image), box // 2
    expected = torch.zeros_like(found)
    expected[:low, :low] = old[:low, :low]
    expected[1 - low :, :low] = old[1 - low :, :low]
    # Orthonormal coefficients of the same values go with the number of pixels.
    expected *= box / old_box
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_map_is_cropped_like_its_slices() -> None:
    density = torch.randn(12, 12, 12, generator=generator(), dtype=torch.float64)
    matrix = band_limited_matrix(12, 8, 12.0)
    found = cropped_map(density, 8)
    naive = density
    for axis in range(3):
        naive = torch.tensordot(matrix, naive.movedim(axis, 0), 1).movedim(0, axis)
    torch.testing.assert_close(found, naive, rtol=0, atol=1e-12)
