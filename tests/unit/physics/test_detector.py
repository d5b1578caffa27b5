"""Counted electrons: Poisson statistics, and what the MTF does to signal and noise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.physics.detector import CountingDetector
from cryoinfer.physics.multislice import contrast_per_density
from cryoinfer.physics.noise import radial_power
from cryoinfer.records import Optics

PIXEL_SIZE = 1.5


def make_optics(n: int, voltage_kv: float = 300.0) -> Optics:
    optics = Optics.without_ctf(n, PIXEL_SIZE)
    return replace(optics, voltage_kv=torch.full((n,), voltage_kv).double())


def wave(box: int, cycles: int, amplitude: float = 0.3) -> Tensor:
    """Return a wave along x, in 1/angstrom, shape (1, box, box), float64."""
    at = torch.arange(box, dtype=torch.float64) - box // 2
    along = amplitude * torch.cos(2 * torch.pi * cycles * at / box)
    return along.expand(1, box, box)


@pytest.mark.parametrize(("box", "voltage"), [(32, 300.0), (33, 200.0)])
def test_counts_are_poisson(box: int, voltage: float) -> None:
    """400 images: the mean of a pixel to its standard error, variances to 10 %."""
    n, dose = 400, 20.0
    optics, signal = make_optics(n, voltage), wave(box, 3).expand(n, box, box)
    detector = CountingDetector(dose)
    images = detector.sample(signal, optics, torch.Generator().manual_seed(1))
    contrast = float(contrast_per_density(torch.tensor(voltage)))
    electrons = dose * PIXEL_SIZE**2
    counts = (1 - contrast * images) * electrons
    # Whole numbers, but for the rounding of float64.
    torch.testing.assert_close(counts, counts.round(), atol=1e-9, rtol=0)
    expected = electrons * (1 - contrast * signal[0])
    torch.testing.assert_close(
        detector.expected_counts(signal, optics)[0], expected, atol=1e-9, rtol=0
    )
    # Means of columns are those of 400 x box pixels.
    found, true = counts.mean((0, 1)), expected[0]
    off = (found - true) / (true / (n * box)).sqrt()
    assert float(off.abs().max()) < 4.5
    spread = counts.var(0).mean(0) / true
    assert float((spread - 1).abs().max()) < 0.1
    # The variance that is told is that of the images.
    told = detector.noise_variance(signal, optics)[0]
    seen = (images - signal).square().mean()
    assert float(seen / told) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("box", [32, 33])
def test_the_mtf_takes_signal_and_leaves_noise_white(box: int) -> None:
    """Electrons are displaced before they are counted: DQE is the MTF's square."""
    n, cycles = 300, 8
    detector = CountingDetector(20.0, mtf_at_nyquist=0.4)
    expected = 0.4 ** ((2 * cycles / box) ** 2)
    signal = wave(box, cycles)
    blurred = detector.blurred(signal)
    torch.testing.assert_close(blurred, expected * signal, atol=1e-12, rtol=0)
    assert float(detector.mtf(32)[0, 16]) == pytest.approx(0.4)
    optics = make_optics(n)
    images = detector.sample(
        signal.expand(n, box, box), optics, torch.Generator().manual_seed(2)
    )
    disc = FourierDisc.of_box(box, (box - 1) // 2)
    power = radial_power(disc.gather(image_to_fourier(images - blurred)), disc)
    told = float(detector.noise_variance(signal, optics[[0]]))
    # Rings of 4 coefficients and more, of 300 images: 3 %.
    assert float((power / told - 1).abs().max()) < 0.15
    amplitude = image_to_fourier(images).real.mean(0)[0, cycles].abs()
    true = image_to_fourier(blurred)[0, 0, cycles].abs()
    assert float(amplitude / true) == pytest.approx(1.0, abs=0.05)


def test_no_intensity_is_counted_as_none() -> None:
    signal = torch.full((1, 8, 8), 100.0)
    detector = CountingDetector(10.0)
    seen = detector.sample(signal, make_optics(1), torch.Generator().manual_seed(3))
    contrast = float(contrast_per_density(torch.tensor(300.0)))
    torch.testing.assert_close(seen, torch.full_like(signal, 1 / contrast))


def test_a_changed_pixel_changes_no_other() -> None:
    """One uniform number a pixel, whatever the rates."""
    signal = wave(16, 2).float()
    other = signal.clone()
    other[0, 0, 0] += 0.5
    first, second = (
        CountingDetector(5.0).sample(
            one, make_optics(1), torch.Generator().manual_seed(4)
        )
        for one in (signal, other)
    )
    assert torch.equal(first.flatten()[1:], second.flatten()[1:])
