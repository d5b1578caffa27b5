"""Whitened images: unit noise, shifts, optics, and the scale of other pixel sizes."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    concatenate,
    whiten,
)
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.records import Optics, ParticleBatch

BOX, PIXEL_SIZE = 32, 2.0
GRID = ReferenceGrid(BOX, PIXEL_SIZE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(images: Tensor, pixel_size: float = PIXEL_SIZE) -> ParticleBatch:
    n = len(images)
    defocus = torch.linspace(5000, 9000, n, dtype=torch.float64)
    optics = replace(
        Optics.without_ctf(n, pixel_size),
        amplitude_contrast=torch.full((n,), 0.1, dtype=torch.float64),
        cs_mm=torch.full((n,), 2.7, dtype=torch.float64),
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
    )
    return ParticleBatch(images, optics, torch.arange(n))


def noise(n: int = 6) -> Tensor:
    return torch.randn(n, BOX, BOX, generator=seeded())


def whitened(n: int = 6, radius: int = 12, power: float = 1.0) -> WhitenedImages:
    spectrum = torch.full((BOX // 2,), power)
    return whiten(batch_of(noise(n)), GRID, radius, spectrum)


@pytest.mark.parametrize("shape", ["white", "coloured"])
def test_noise_has_unit_variance_in_every_ring(shape) -> None:
    ring = torch.arange(BOX // 2 + 1).float()
    spectrum = 7.0 / (1 + ring / 4) if shape == "coloured" else torch.full_like(ring, 7)
    images = GaussianNoise(spectrum).sample(2000, BOX, seeded(1))
    found = whiten(batch_of(images), GRID, 15, spectrum)
    power = found.coefficients.abs().square().mean(0)
    for number in range(1, 16):
        inside = found.disc.ring == number
        count = 2000 * int(inside.sum())
        # |c|^2 has the variance 1; four standard errors.
        assert power[inside].mean().item() == pytest.approx(1, abs=4 / count**0.5)


def test_whitening_divides_image_and_ctf_alike() -> None:
    once, twice = whitened(power=1.0), whitened(power=4.0)
    torch.testing.assert_close(twice.coefficients * 2, once.coefficients)
    torch.testing.assert_close(twice.ctf * 2, once.ctf)
    torch.testing.assert_close(twice.weight * 2, once.weight)


def test_of_the_reference_pixel_size_nothing_is_scaled() -> None:
    batch = batch_of(noise())
    found = whiten(batch, GRID, 12, torch.ones(BOX // 2))
    disc = FourierDisc.of_box(BOX, 12)
    assert found.scale == 1
    assert len(found) == 6
    assert found.pixel_size_angstrom == PIXEL_SIZE
    expected = disc.gather(image_to_fourier(batch.images))
    torch.testing.assert_close(found.coefficients, expected)
    step = 1 / (BOX * PIXEL_SIZE)
    ctf = evaluate_ctf(batch.optics, disc.kx * step, disc.ky * step)
    torch.testing.assert_close(found.ctf, ctf.float())


@pytest.mark.parametrize(("box", "pixel_size"), [(32, 2.5), (40, 2.0), (64, 1.0)])
def test_images_of_another_sampling_agree_with_the_map(box, pixel_size) -> None:
    centres = torch.randn(12, 3, generator=seeded(3), dtype=torch.float64) * 6
    sd = 2.8  # angstrom
    axis = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) * PIXEL_SIZE
    x, y, z = torch.exp(-((axis - centres.T[..., None]) ** 2) / (2 * sd**2))
    volume = FourierVolume.from_map(torch.einsum("bz,by,bx->zyx", z, y, x), 12)
    rotation = random_rotations(4, seeded(5))
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) * pixel_size
    x, y, _ = torch.einsum("nij,bj->inb", rotation, centres)
    x = torch.exp(-((axis - x[..., None]) ** 2) / (2 * sd**2))
    y = torch.exp(-((axis - y[..., None]) ** 2) / (2 * sd**2))
    # The integral along the beam in voxels of the map.
    along = math.sqrt(2 * math.pi) * sd / PIXEL_SIZE
    images = along * torch.einsum("nby,nbx->nyx", y, x)
    optics = Optics.without_ctf(4, pixel_size)
    batch = ParticleBatch(images, optics, torch.arange(4))
    found = whiten(batch, GRID, 12, torch.ones(box // 2))
    assert found.scale == pytest.approx(64 / (box * pixel_size))
    slices = extract_slices(volume, rotation, found.disc, found.scale)
    expected = found.ctf * slices
    error = torch.linalg.norm(found.coefficients - expected)
    # Trilinear interpolation in a grid padded twofold.
    assert float(error / torch.linalg.norm(expected)) < 0.02


def test_moving_back_undoes_a_shift_by_whole_pixels() -> None:
    centred = noise()
    moved = torch.roll(centred, (3, -2), (-2, -1))
    spectrum = torch.ones(BOX // 2)
    expected = whiten(batch_of(centred), GRID, 12, spectrum).coefficients
    images = whiten(batch_of(moved), GRID, 12, spectrum)
    shift = torch.tensor([-2.0, 3.0]) * PIXEL_SIZE
    # Single precision of phases.
    found = images.moved_back(shift.expand(6, 2))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    several = images.moved_back(torch.stack([shift, 0 * shift])[:, None])
    assert several.shape == (2, *expected.shape)
    torch.testing.assert_close(several[0], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(several[1], images.coefficients)


@pytest.mark.parametrize("shape", [(6, 2), (3, 1, 2), (3, 6, 2)])
@pytest.mark.parametrize("radius", [7, 12])
def test_compiled_and_plain_shifts_agree(shape, radius) -> None:
    images = whitened(radius=radius)
    shift = 7 * torch.randn(shape, generator=seeded(8), dtype=torch.float64)
    found = images.moved_back(shift)
    exactly = replace(
        images,
        coefficients=images.coefficients.to(torch.complex128),
        ctf=images.ctf.double(),
    )
    expected = exactly.moved_back(shift)
    # Single precision of phases and products.
    torch.testing.assert_close(found.to(expected), expected, rtol=0, atol=1e-5)


def test_shifts_can_be_differentiated() -> None:
    images = whitened(radius=7)
    shift = torch.randn(6, 2, generator=seeded(9)).requires_grad_()
    # Of the real part: the power does not depend on a shift.
    images.moved_back(shift).real.sum().backward()
    assert shift.grad is not None
    assert bool((shift.grad != 0).all())


def test_a_prefix_is_whitening_to_a_smaller_radius() -> None:
    found, expected = whitened(radius=12).prefix(7), whitened(radius=7)
    for name in ("coefficients", "ctf", "weight"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert torch.equal(found.disc.position, expected.disc.position)


def test_selecting_is_whitening_some() -> None:
    some = torch.tensor([4, 0])
    found = whitened().select(some)
    batch = batch_of(noise())
    part = ParticleBatch(batch.images[some], batch.optics[some], some)
    expected = whiten(part, GRID, 12, torch.ones(BOX // 2))
    torch.testing.assert_close(found.coefficients, expected.coefficients)
    torch.testing.assert_close(found.ctf, expected.ctf)
    assert torch.equal(
        found.optics.defocus_u_angstrom, expected.optics.defocus_u_angstrom
    )


@pytest.mark.parametrize(
    ("box", "pixel_size"), [(32, 2.0), (40, 2.0), (24, 2.0), (32, 1.6)]
)
def test_what_shows_less_does_at_the_frequencies_of_the_reference(
    box: int, pixel_size: float
) -> None:
    pixels = torch.randn(3, box, box, generator=seeded())
    batch = batch_of(pixels, pixel_size)
    images = whiten(batch, GRID, 12, torch.full((box // 2,), 2.0))
    disc, rings = images.disc, BOX // 2
    per_angstrom = torch.hypot(disc.kx, disc.ky) / (box * pixel_size)
    radius = per_angstrom * GRID.length_angstrom
    # Rings are rounded in the pixels of the images, and again in the reference's.
    found = images.reference_ring(rings)
    assert (found - radius).abs().max() <= 0.5 * images.scale + 0.5 + 1e-4
    assert 0 <= found.min() <= found.max() < rings
    # A fall that is slower than a ring shows frequencies, whatever the rounding.
    share = torch.exp(-torch.arange(rings) / 40)
    less = images.attenuated(share)
    expected = torch.exp(-radius / 40)
    factor = less.weight / images.weight
    torch.testing.assert_close(factor, expected, rtol=0.03, atol=0)
    torch.testing.assert_close(less.ctf, images.ctf * factor)
    assert torch.equal(less.coefficients, images.coefficients)
    # At another defocus it shows as much less.
    offset = torch.full((3,), 200.0, dtype=torch.float64)
    torch.testing.assert_close(
        less.at_defocus_offset(offset).ctf,
        images.at_defocus_offset(offset).ctf * factor,
    )


def test_frequencies_beyond_the_reference_show_as_its_last_ring() -> None:
    # 20 pixels of 2 angstrom: the step of its frequencies is 1.6 of the reference's.
    batch = batch_of(torch.randn(1, 20, 20, generator=seeded()))
    images = whiten(batch, GRID, 15, torch.ones(10))
    assert images.scale == pytest.approx(1.6)
    assert int(images.disc.ring.max()) == 9
    assert int(images.reference_ring(10).max()) == 9
    assert int(images.reference_ring(16).max()) == 14


def test_joining_parts_is_whitening_all() -> None:
    whole = whitened()
    joined = concatenate(
        [whole.select(torch.arange(4)), whole.select(torch.arange(4, 6))]
    )
    assert torch.equal(joined.coefficients, whole.coefficients)
    assert torch.equal(joined.ctf, whole.ctf)
    assert torch.equal(joined.optics.cs_mm, whole.optics.cs_mm)
    assert len(joined.optics) == 6


def test_another_defocus_is_that_of_other_optics() -> None:
    images = whitened(power=2.0)
    offset = torch.linspace(-300, 300, 6, dtype=torch.float64)
    found, slope = images.with_defocus_offset(offset)
    batch = batch_of(noise())
    optics = replace(
        batch.optics,
        defocus_u_angstrom=batch.optics.defocus_u_angstrom + offset,
        defocus_v_angstrom=batch.optics.defocus_v_angstrom + offset,
    )
    moved = replace(batch, optics=optics)
    expected = whiten(moved, GRID, 12, torch.full((BOX // 2,), 2.0))
    torch.testing.assert_close(found.ctf, expected.ctf)
    assert torch.equal(images.at_defocus_offset(offset).ctf, found.ctf)
    assert images.at_defocus_offset(0 * offset) is images
    ahead, _ = images.with_defocus_offset(offset + 10)
    behind, _ = images.with_defocus_offset(offset - 10)
    # Single precision over a step of 20 angstrom.
    torch.testing.assert_close(
        (ahead.ctf - behind.ctf) / 20, slope, rtol=1e-3, atol=1e-7
    )


def test_reference_grid_radii_and_resolutions() -> None:
    assert GRID.length_angstrom == 64
    assert GRID.radius_at(8.0) == 8
    assert GRID.resolution_at(8) == 8.0
    # Within Nyquist, and never so small that nothing is left.
    assert GRID.radius_at(1.0) == 15
    assert GRID.radius_at(1000.0) == 4
