"""Images that were multiplied by their CTF, and the noise in them."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.noise import (
    GaussianNoise,
    estimate_background_spectrum,
    radial_power,
)
from cryoinfer.physics.premultiplied import (
    LEAST,
    background_spectrum,
    divided_by_ctf,
    multiplied_by_ctf,
    noise_weight,
)
from cryoinfer.records import Optics

PIXEL = 2.0


def optics_of(n: int) -> Optics:
    one = torch.ones(n, dtype=torch.float64)
    return replace(
        Optics.without_ctf(n, PIXEL),
        cs_mm=2.7 * one,
        amplitude_contrast=0.1 * one,
        defocus_u_angstrom=torch.linspace(8000, 15000, n).double(),
        defocus_v_angstrom=torch.linspace(7500, 15500, n).double(),
        scale=torch.linspace(-1, 1.3, n).double(),
        ctf_premultiplied=torch.arange(n) % 3 != 0,
    )


def ctf_of(optics: Optics, box: int) -> torch.Tensor:
    y, x = torch.meshgrid(
        torch.fft.fftfreq(box, PIXEL, dtype=torch.float64),
        torch.fft.rfftfreq(box, PIXEL, dtype=torch.float64),
        indexing="ij",
    )
    return evaluate_ctf(optics, x.flatten(), y.flatten()).unflatten(-1, y.shape)


@pytest.mark.parametrize("box", [31, 32])
def test_images_come_back_where_the_ctf_is_not_nearly_zero(box: int) -> None:
    optics = optics_of(6)
    ctf, multiplied = ctf_of(optics, box), optics.ctf_premultiplied[:, None, None]
    # Of an image, so that what stands for two coefficients is consistent.
    images = torch.randn(6, box, box, generator=torch.Generator().manual_seed(1))
    images = images.double()
    recorded = image_to_fourier(images)
    seen = torch.where(multiplied, recorded * ctf, recorded)
    found = image_to_fourier(divided_by_ctf(fourier_to_image(seen, box), optics))
    kept = torch.where(multiplied, (ctf.abs() / LEAST).clamp(max=1), 1.0)
    # float64.
    torch.testing.assert_close(found, recorded * kept, atol=1e-10, rtol=0)
    again = multiplied_by_ctf(fourier_to_image(found, box), optics)
    torch.testing.assert_close(image_to_fourier(again), seen, atol=1e-10, rtol=0)


def test_others_are_not_touched() -> None:
    optics = replace(optics_of(6), ctf_premultiplied=torch.zeros(6, dtype=torch.bool))
    images = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(1))
    assert divided_by_ctf(images, optics) is images
    assert noise_weight(optics, torch.ones(6, 5)) is None


def test_weights_are_those_of_a_mean_over_each_ring() -> None:
    generator = torch.Generator().manual_seed(2)
    disc = FourierDisc.of_box(12, 5)
    values = torch.randn(
        3, len(disc), generator=generator, dtype=torch.float64
    ) * torch.exp(1j * torch.arange(len(disc)).double())
    weight = torch.rand(3, len(disc), generator=generator, dtype=torch.float64)
    found = radial_power(values, disc, weight)
    for ring in range(1, 6):
        own = disc.ring == ring
        total = (weight[:, own] * values[:, own].abs().square()).sum()
        torch.testing.assert_close(found[ring], total / weight[:, own].sum())


def test_noise_of_images_that_were_cut_out_is_measured_by_what_counts() -> None:
    # White noise of variance 1, multiplied in a box twice as wide.
    box, wide, n = 64, 128, 40
    one = optics_of(2)[torch.ones(n, dtype=torch.int64)]
    noise = torch.randn(n, wide, wide, generator=torch.Generator().manual_seed(3))
    seen = fourier_to_image(image_to_fourier(noise.double()) * ctf_of(one, wide), wide)
    cut = seen[:, wide // 2 - box // 2 :, wide // 2 - box // 2 :][:, :box, :box]
    disc = FourierDisc.of_box(box, box // 2 - 1)
    images = disc.gather(image_to_fourier(divided_by_ctf(cut, one)))
    step = 1 / (box * PIXEL)
    ctf = evaluate_ctf(one, disc.kx.double() * step, disc.ky.double() * step)
    plain = radial_power(images, disc)[4:].mean()
    weighted = radial_power(images, disc, noise_weight(one, ctf))[4:].mean()
    # At its zeros the images hold what the window's edge brings from beside them.
    assert plain > 1.5
    assert abs(weighted - 1) < (plain - 1) / 3


@pytest.mark.parametrize("box", [63, 64])
def test_noise_around_particles_is_that_before_the_multiplication(box: int) -> None:
    # Noise that falls fourfold, multiplied in a box twice as wide; every other image
    # was not multiplied.
    wide, n = 2 * box, 60
    one = optics_of(2)[torch.ones(n, dtype=torch.int64)]
    one = replace(one, ctf_premultiplied=torch.arange(n) % 2 == 0)
    spectrum = torch.linspace(4, 1, wide // 2 + 1).double()
    generator = torch.Generator().manual_seed(3)
    noise = GaussianNoise(spectrum).sample(n, wide, generator)
    ctf = torch.where(one.ctf_premultiplied[:, None, None], ctf_of(one, wide), 1.0)
    seen = fourier_to_image(image_to_fourier(noise) * ctf, wide)
    start = wide // 2 - box // 2
    cut = seen[:, start : start + box, start : start + box]
    images = divided_by_ctf(cut, one)
    inside = 0.3 * box
    found = background_spectrum(images, one, inside)
    expected = spectrum[::2][: len(found)]
    # Rings 3 and beyond hold 60 images of 10 coefficients or more, half as many behind
    # the mask: 6 % a ring at most, and 1 % all together.
    ratio = found[3:-1] / expected[3 : len(found) - 1]
    assert abs(ratio.mean() - 1) < 0.02
    assert float((ratio - 1).abs().max()) < 0.2
    plain = estimate_background_spectrum(images, inside)
    assert (plain[3:-1] / expected[3 : len(found) - 1]).mean() > 1.2


def test_noise_around_images_that_were_not_multiplied_is_measured_as_ever() -> None:
    optics = replace(optics_of(6), ctf_premultiplied=torch.zeros(6, dtype=torch.bool))
    images = torch.randn(6, 24, 24, generator=torch.Generator().manual_seed(1))
    found = background_spectrum(images, optics, 8.0)
    assert torch.equal(found, estimate_background_spectrum(images, 8.0))
