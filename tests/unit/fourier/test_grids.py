"""The disc of independent coefficients: complete, sorted, and back to images."""

import math

import pytest
import torch

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier

CASES = [(8, 1), (8, 3), (9, 4), (16, 5), (32, 15)]


@pytest.mark.parametrize(("box", "radius"), CASES)
def test_of_each_pair_exactly_one_coefficient_is_in_the_disc(
    box: int, radius: int
) -> None:
    disc = FourierDisc.of_box(box, radius)
    found = {(int(x), int(y)) for x, y in zip(disc.kx, disc.ky, strict=True)}
    assert len(found) == len(disc)
    span = range(-radius, radius + 1)
    wanted = {(x, y) for x in span for y in span if 0 < x * x + y * y <= radius**2}
    assert found <= wanted
    for x, y in wanted:
        assert ((x, y) in found) != ((-x, -y) in found)


@pytest.mark.parametrize(("box", "radius"), CASES)
def test_positions_and_rings_agree_with_the_frequencies(box: int, radius: int) -> None:
    disc = FourierDisc.of_box(box, radius)
    for x, y, ring, position in zip(
        disc.kx.tolist(),
        disc.ky.tolist(),
        disc.ring.tolist(),
        disc.position.tolist(),
        strict=True,
    ):
        assert position == int(y) % box * (box // 2 + 1) + int(x)
        assert ring == round(math.hypot(x, y))


def test_the_smallest_disc() -> None:
    disc = FourierDisc.of_box(8, 1)
    assert list(zip(disc.kx.tolist(), disc.ky.tolist(), strict=True)) == [
        (1.0, 0.0),
        (0.0, 1.0),
    ]
    assert disc.kx.dtype == torch.float32


@pytest.mark.parametrize(("box", "radius"), CASES)
def test_a_smaller_disc_is_a_prefix_of_a_larger_one(box: int, radius: int) -> None:
    disc = FourierDisc.of_box(box, radius)
    for smaller in range(1, radius + 1):
        direct, cut = FourierDisc.of_box(box, smaller), disc.prefix(smaller)
        assert disc.count(smaller) == len(direct) == len(cut)
        for field in ("kx", "ky", "ring", "position"):
            assert torch.equal(getattr(direct, field), getattr(cut, field))
        assert torch.equal(cut.kx, disc.kx[: len(cut)])


def test_coefficients_go_outwards_and_round_by_angle() -> None:
    disc = FourierDisc.of_box(32, 12)
    annulus = torch.hypot(disc.kx.double(), disc.ky.double()).ceil()
    angle = torch.atan2(disc.ky, disc.kx)
    assert (annulus.diff() >= 0).all()
    assert (angle.diff()[annulus.diff() == 0] >= 0).all()


@pytest.mark.parametrize(("box", "radius"), CASES)
def test_gather_and_scatter_give_the_filtered_image_back(box: int, radius: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, box, box, generator=generator, dtype=torch.float64)
    disc = FourierDisc.of_box(box, radius)
    values = disc.gather(image_to_fourier(images))
    assert values.shape == (2, 3, len(disc))
    found = fourier_to_image(disc.scatter(values), box)
    # The twin: the whole transform, and a mask over all of it.
    k = torch.fft.fftfreq(box, 1 / box, dtype=torch.float64)
    squared = k[:, None] ** 2 + k**2
    mask = (squared > 0) & (squared <= radius**2)
    expected = torch.fft.ifft2(torch.fft.fft2(images) * mask)
    assert expected.imag.abs().max() < 1e-12
    # A transform there and one back of a thousand numbers in double precision.
    torch.testing.assert_close(found, expected.real, rtol=0, atol=1e-12)
    # What was put in comes out again.
    again = disc.gather(image_to_fourier(found))
    torch.testing.assert_close(again, values, rtol=0, atol=1e-12)


def test_scatter_fills_the_partner_in_the_column_x_0() -> None:
    disc = FourierDisc.of_box(8, 2)
    values = torch.zeros(len(disc), dtype=torch.complex64)
    values[(disc.kx == 0) & (disc.ky == 2)] = 3 + 4j
    half = disc.scatter(values)
    assert half.shape == (8, 5)
    assert half[2, 0] == 3 + 4j
    assert half[-2, 0] == 3 - 4j
    assert int((half != 0).sum()) == 2


@pytest.mark.parametrize(("box", "radius"), [(8, 0), (8, 4), (8, -1), (9, 5)])
def test_radii_outside_the_transform_are_refused(box: int, radius: int) -> None:
    with pytest.raises(ValueError, match="radius must lie in"):
        FourierDisc.of_box(box, radius)
