"""Images on the scale of the noise around the particle."""

import numpy as np
import pytest
import torch

from cryoinfer.data.normalising import LARGEST, Background, Normalised, normalised
from cryoinfer.errors import InputError
from cryoinfer.records import Optics

BOX, RADIUS = 16, 6.0


def noise(n: int = 4, box: int = BOX) -> torch.Tensor:
    return torch.randn(n, box, box, generator=torch.Generator().manual_seed(1))


def done(images: torch.Tensor, radius: float = RADIUS) -> Normalised:
    around = Background.of(images.shape[-1], radius)
    plain = Optics.without_ctf(len(images), 1.0)
    return normalised(images, images, around, around, plain)


@pytest.mark.parametrize("box", [16, 17])
def test_the_background_is_what_lies_outside_of_a_circle(box: int) -> None:
    outside = Background.of(box, 3.0).outside
    for y in range(box):
        for x in range(box):
            far = (x - box // 2) ** 2 + (y - box // 2) ** 2 > 9
            assert bool(outside[y, x]) == far


def test_mean_and_deviation_are_those_of_numpy() -> None:
    images = 3 + 2 * noise()
    around = Background.of(BOX, RADIUS)
    mean, deviation = around.statistics(images)
    for one, m, s in zip(images.double().numpy(), mean, deviation, strict=True):
        pixels = one[around.outside.numpy()]
        # Other orders of sums in double precision.
        assert float(m) == pytest.approx(pixels.mean(), rel=1e-12)
        assert float(s) == pytest.approx(pixels.std(), rel=1e-12)


def test_images_of_any_scale_become_one_and_the_same() -> None:
    images = noise()
    images[:, 6:10, 6:10] += 5
    found = done(images).images
    for scale, offset in ((1e-6, 0.0), (250.0, 1e4), (3e30, -1e31)):
        again = done(images * scale + offset)
        assert not (again.flat | again.unreadable | again.clipped).any()
        # An offset costs digits of single precision: 1e4 / 250 * 6e-8 here, below the
        # last digit of a float16 near 1, by which a value may then round otherwise.
        torch.testing.assert_close(again.images, found, rtol=2**-10, atol=1e-5)
    pixels = found[:, Background.of(BOX, RADIUS).outside].double().numpy()
    # Errors of 2^-11 of each value, of either sign.
    assert np.abs(pixels.mean(1)).max() < 2**-11
    assert np.abs(pixels.std(1) - 1).max() < 2**-11


def test_normalised_images_stay_as_they_are() -> None:
    once = done(noise()).images
    again = done(once.float()).images
    torch.testing.assert_close(again, once, rtol=2**-10, atol=2**-11)


def test_images_that_hold_no_numbers_stay_unreadable() -> None:
    images = noise()
    images[1, 2, 3], images[2, 8, 8] = torch.nan, torch.inf
    found = done(images)
    assert found.unreadable.tolist() == [False, True, True, False]
    assert not found.flat.any()
    assert found.images[1:3].isnan().all()
    assert found.images[[0, 3]].isfinite().all()


def test_a_constant_background_scales_nothing() -> None:
    images = noise()
    outside = Background.of(BOX, RADIUS).outside
    images[1, outside] = 0.1
    images[2] = 7.0
    found = done(images)
    assert found.flat.tolist() == [False, True, True, False]
    # The mean is taken out, and nothing else is done.
    expected = images[1] - 0.1
    torch.testing.assert_close(found.images[1], expected.half(), rtol=2**-10, atol=1e-6)
    assert (found.images[2] == 0).all()


def test_rounding_of_a_constant_background_is_no_noise() -> None:
    raw = torch.full((1, 24, 24), 0.1)
    raw[0, 12, 12] = 1.0
    cropped = noise(1) * 1e-8
    cropped[0, 8, 8] = 1.0
    here, there = Background.of(BOX, RADIUS), Background.of(24, RADIUS * 1.5)
    found = normalised(cropped, raw, here, there, Optics.without_ctf(1, 1.0))
    assert found.flat.all()
    assert float(found.images.abs().max()) == pytest.approx(1, rel=2**-11)


def test_hot_pixels_are_cut_off_and_told() -> None:
    images = noise()
    images[1, 8, 8], images[2, 8, 8], images[3, 8, 8] = 1e9, -1e9, 6e4
    found = done(images)
    assert found.clipped.tolist() == [False, True, True, False]
    assert found.images.isfinite().all()
    assert [float(found.images[i, 8, 8]) for i in (1, 2)] == [LARGEST, -LARGEST]


def test_a_particle_that_fills_the_box_is_refused() -> None:
    with pytest.raises(InputError, match="leaves less than 1% of a box of 16"):
        Background.of(BOX, 11.0)
