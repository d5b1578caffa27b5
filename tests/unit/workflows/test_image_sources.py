"""Images as a run reads them, and those that cannot be read."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.records import Optics, ParticleBatch
from cryoinfer.workflows.image_sources import ReadableImages, StrictImages

BOX, RADIUS = 16, 6
GRID = ReferenceGrid(BOX, 2.0)
NOISE = (torch.full((BOX // 2 + 1,), 1.0), torch.full((BOX // 2 + 1,), 4.0))


def batch(group: int = 1) -> ParticleBatch:
    images = torch.randn(5, BOX, BOX, generator=torch.Generator().manual_seed(0))
    optics = Optics.without_ctf(5, 2.0)
    optics = replace(optics, group=torch.full((5,), group))
    return ParticleBatch(images, optics, torch.arange(10, 15))


def with_pixel(value: float, *rows: int) -> ParticleBatch:
    made = batch()
    images = made.images.clone()
    images[list(rows), 3, 3] = value
    return replace(made, images=images)


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("kind", [StrictImages, ReadableImages])
def test_images_are_whitened_by_the_noise_of_their_group(kind, group: int) -> None:
    found = kind(GRID, RADIUS, NOISE).prepare(batch(group))
    expected = whiten(batch(group), GRID, RADIUS, NOISE[group])
    assert torch.equal(found.images.coefficients, expected.coefficients)
    assert torch.equal(found.images.ctf, expected.ctf)
    assert found.batch.index.tolist() == [10, 11, 12, 13, 14]


def test_strict_images_are_all_to_be_finite() -> None:
    with pytest.raises(InputError, match="image of particle 14 holds NaN"):
        StrictImages(GRID, RADIUS, NOISE).prepare(with_pixel(torch.nan, 3))


# The last is finite, but its power over the noise is not.
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30, 1e19])
def test_what_cannot_be_read_is_left_out(value: float) -> None:
    source = ReadableImages(GRID, RADIUS, (NOISE[0], NOISE[1] * 1e-6))
    found = source.prepare(with_pixel(value, 1, 3))
    assert found is not None
    assert found.batch.index.tolist() == [10, 12, 14]
    kept = torch.tensor([0, 2, 4])
    expected = whiten(batch()[kept], GRID, RADIUS, source.noise[1])
    assert torch.equal(found.images.coefficients, expected.coefficients)
    assert len(found.images.optics) == len(found.batch) == 3


@pytest.mark.parametrize("value", [torch.nan, 1e19])
def test_of_a_batch_without_readable_images_nothing_is_left(value: float) -> None:
    source = ReadableImages(GRID, RADIUS, (NOISE[0], NOISE[1] * 1e-6))
    assert source.prepare(with_pixel(value, 0, 1, 2, 3, 4)) is None


def test_images_show_as_much_of_the_structure_as_was_found() -> None:
    sigma_a = torch.linspace(1.0, 0.2, BOX // 2)
    found = ReadableImages(GRID, RADIUS, NOISE, sigma_a).prepare(batch())
    assert found is not None
    expected = whiten(batch(), GRID, RADIUS, NOISE[1])
    factor = sigma_a[expected.disc.ring.long()]
    torch.testing.assert_close(found.images.ctf, expected.ctf * factor)
    assert torch.equal(found.images.coefficients, expected.coefficients)
