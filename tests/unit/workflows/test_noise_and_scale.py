"""How images show a model: gain, sigma_a and noise from images and what it shows."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.records import Optics, ParticleBatch
from cryoinfer.workflows.noise_and_scale import (
    NoiseAndScale,
    Projected,
    residual_estimate,
)

BOX, COUNT, GAIN = 32, 300, 0.8


def normal(shape: torch.Size, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.complex64)


def calibration_subset(
    sigma_a: torch.Tensor, signal: float, seed: int = 1
) -> tuple[WhitenedImages, torch.Tensor]:
    """Return images in noise of unit power, and what the model shows of them."""
    blank = torch.zeros(COUNT, BOX, BOX)
    optics = Optics.without_ctf(COUNT, 3.0)
    batch = ParticleBatch(blank, optics, torch.arange(COUNT))
    noise = torch.ones(BOX // 2 + 1)
    images = whiten(batch, ReferenceGrid(BOX, 3.0), BOX // 2 - 1, noise)
    shown = signal * normal(images.coefficients.shape, 0)
    seen = GAIN * sigma_a[images.disc.ring.long()] * shown + normal(shown.shape, seed)
    return type(images)(**{**vars(images), "coefficients": seen}), shown


def looked(
    sigma_a: torch.Tensor, signal: float, part: int = COUNT, loud: float = 1.0
) -> NoiseAndScale:
    rings = torch.ones(BOX // 2 + 1)
    rows = (torch.arange(COUNT),)
    before = NoiseAndScale((rings,), 1.0, rings, None, (rings,), rows)
    images, shown = calibration_subset(sigma_a, signal)
    images = replace(images, coefficients=loud * images.coefficients)
    parts = torch.arange(COUNT).split(part)
    return residual_estimate(
        [Projected(images.select(one), shown[one]) for one in parts], before
    )


def test_a_right_model_does_not_fade() -> None:
    found = looked(torch.ones(BOX // 2 + 1), 1.0)
    # 300 images of 400 coefficients: the gain to 0.002, a ring with those beside it to
    # 0.02 at the middle, where they are 25.
    assert found.gain == pytest.approx(GAIN, abs=0.01)
    assert float((found.sigma_a[:16] - 1).abs().max()) < 0.05
    assert found.noise_power[0][:16] == pytest.approx(torch.ones(16), abs=0.1)
    assert found.unexplained == pytest.approx(0, abs=0.02)


def test_detail_that_is_not_shown_fades() -> None:
    ring = torch.arange(BOX // 2 + 1)
    true = torch.exp(-((ring / 12.0) ** 2))
    found = looked(true, 1.0)
    # An average over five rings, of a curve whose second differences are 0.02.
    expected = GAIN * true[2:14]
    assert found.gain * found.sigma_a[2:14] == pytest.approx(expected, abs=0.03)
    assert found.noise_power[0][2:14] == pytest.approx(torch.ones(12), abs=0.1)


def test_images_that_say_nothing_leave_the_model_as_it_is() -> None:
    found = looked(torch.ones(BOX // 2 + 1), 1e-4)
    assert float((found.sigma_a - 1).abs().max()) < 0.05


@pytest.mark.parametrize("part", [150, 110])
def test_images_that_come_in_parts_are_looked_at_once(part: int) -> None:
    # Louder than was believed: where the ratio of each part was applied, noise of two
    # parts came out as 1.2 to the fourth.
    plain = torch.ones(BOX // 2 + 1)
    whole, parts = looked(plain, 1.0, loud=1.2), looked(plain, 1.0, part, loud=1.2)
    assert whole.noise_power[0][:16] == pytest.approx(1.44 * torch.ones(16), abs=0.15)
    # Sums in another order.
    assert parts.noise_power[0] == pytest.approx(whole.noise_power[0], rel=1e-4)
    assert parts.gain == pytest.approx(whole.gain, rel=1e-5)
    assert parts.unexplained == pytest.approx(whole.unexplained, abs=1e-4)


def test_what_is_left_has_the_standard_error_that_other_noise_shows() -> None:
    rings, rows = torch.ones(BOX // 2 + 1), (torch.arange(COUNT),)
    before = NoiseAndScale((rings,), 1.0, rings, None, (rings,), rows)
    found = []
    for seed in range(1, 31):
        # Half of the shown is none of the images': a quarter of the signal or so.
        images, shown = calibration_subset(rings, 0.2, seed)
        other = normal(shown.shape, 100) * 0.1
        images = replace(images, coefficients=images.coefficients + other)
        found.append(residual_estimate([Projected(images, shown)], before))
    shares = torch.tensor([one.unexplained for one in found], dtype=torch.float64)
    errors = torch.tensor([one.unexplained_sd for one in found], dtype=torch.float64)
    # 0.01 over 0.01 + (0.8 * 0.2)^2, to three standard errors of the mean of 30.
    assert float(shares.mean()) == pytest.approx(0.01 / 0.0356, abs=0.03)
    # A standard deviation of 30 is known to 13 %; that of signal itself is in it too.
    assert float(errors.mean()) == pytest.approx(float(shares.std()), rel=0.4)
