import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import (
    cryobench_fsc_area,
    fourier_shell_correlation,
    masked_fsc,
    resolution_at,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def noise(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn((n, n, n), generator=generator, dtype=torch.float64)


def soft_ball(n: int, radius: float) -> Tensor:
    line = torch.arange(n, dtype=torch.float64) - n // 2
    distance = (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).sqrt()
    return torch.cos(math.pi / 2 * ((distance - radius) / 3).clamp(0, 1)) ** 2


def naive_fsc(a: Tensor, b: Tensor) -> Tensor:
    n = a.shape[-1]
    fa, fb = torch.fft.fftn(a), torch.fft.fftn(b)
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    shell = (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).sqrt().round()
    values = []
    for s in range(n // 2 + 1):
        x, y = fa[shell == s], fb[shell == s]
        values.append((x * y.conj()).sum().real / (x.norm() * y.norm()))
    return torch.stack(values)


def test_identical_maps_correlate_fully(generator: torch.Generator) -> None:
    density = noise(16, generator)
    fsc = fourier_shell_correlation(density, density)
    assert fsc.shape == (9,)
    torch.testing.assert_close(fsc, torch.ones_like(fsc))
    torch.testing.assert_close(fourier_shell_correlation(density, -density), -fsc)


@pytest.mark.parametrize("n", [15, 16])
def test_agrees_with_whole_transform(n: int, generator: torch.Generator) -> None:
    a, b = noise(n, generator), noise(n, generator)
    # Same sums in another order: float64 rounding.
    torch.testing.assert_close(
        fourier_shell_correlation(a, b), naive_fsc(a, b), rtol=0, atol=1e-12
    )


def test_noise_of_known_snr(generator: torch.Generator) -> None:
    signal, snr = noise(48, generator), 0.5
    a = signal * math.sqrt(snr) + noise(48, generator)
    b = signal * math.sqrt(snr) + noise(48, generator)
    fsc = fourier_shell_correlation(a, b)[8:]
    # Shells of more than 4 pi 8^2 / 2 = 400 independent values: sd below 1/sqrt(400).
    assert (fsc - snr / (1 + snr)).abs().max() < 4 / math.sqrt(400)
    assert abs(float(fsc.mean()) - snr / (1 + snr)) < 0.01


def test_invariant_to_radial_scaling(generator: torch.Generator) -> None:
    n = 32
    a, b = noise(n, generator), noise(n, generator)
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    shell = (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).sqrt().round()
    falloff = torch.exp(-shell / 4)
    sharpened = torch.fft.ifftn(torch.fft.fftn(a) * falloff).real
    # Any factor that is constant on a shell drops out; float64 rounding is left.
    torch.testing.assert_close(
        fourier_shell_correlation(sharpened, b),
        fourier_shell_correlation(a, b),
        rtol=0,
        atol=1e-10,
    )


def test_empty_shell_gives_zero(generator: torch.Generator) -> None:
    fsc = fourier_shell_correlation(torch.zeros(8, 8, 8), noise(8, generator))
    assert (fsc == 0).all()


def test_refuses_maps_of_different_size() -> None:
    with pytest.raises(InputError, match="same size"):
        fourier_shell_correlation(torch.zeros(8, 8, 8), torch.zeros(6, 6, 6))


def test_what_the_mask_adds_is_taken_out(generator: torch.Generator) -> None:
    """Halves that share only shells to 9: a small mask makes them agree to 20."""
    n = 48
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    half = torch.arange(n // 2 + 1, dtype=torch.float64)
    radius = (k[:, None, None] ** 2 + k[:, None] ** 2 + half**2).sqrt()
    shared = torch.fft.rfftn(noise(n, generator)) * (radius < 9)
    signal = 20 * torch.fft.irfftn(shared, s=(n, n, n))
    halves = [signal + 0.3 * noise(n, generator) for _ in range(2)]
    curve = masked_fsc(halves[0], halves[1], soft_ball(n, 9), generator)
    assert curve.randomised_from_shell == 10
    assert curve.masked[12:17].min() > 0.85
    assert curve.corrected[1:10].min() > 0.95
    # The mask leaves about 4,000 of 110,000 independent values, so a shell of radius
    # 16 has 4 pi 16^2 / 2 * 0.036 = 60: a chance correlation of 0.13 each, and less
    # than half of it in the mean of 13 shells.
    assert curve.corrected[12:].abs().max() < 0.4
    assert abs(float(curve.corrected[12:].mean())) < 0.07
    assert (curve.corrected[:12] == curve.masked[:12]).all()


def test_nothing_randomised_for_equal_halves(generator: torch.Generator) -> None:
    density = noise(16, generator)
    curve = masked_fsc(density, density, torch.ones(16, 16, 16), generator)
    assert curve.randomised_from_shell == 9
    torch.testing.assert_close(curve.corrected, torch.ones(9, dtype=torch.float64))


def test_resolution_interpolates_first_crossing() -> None:
    fsc = torch.tensor([0.0, 1.0, 0.9, 0.1, 0.8, 0.05])
    # Falls from 0.9 to 0.1 between shells 2 and 3, so 0.5 lies at 2.5.
    assert resolution_at(fsc, 0.5, 10, 2.0) == pytest.approx(20 / 2.5)
    assert resolution_at(fsc, 0.1, 10, 2.0) == pytest.approx(20 / 4.9333333, rel=1e-6)


def test_resolution_at_the_ends() -> None:
    assert resolution_at(torch.ones(6), 0.143, 10, 2.0) == 4.0
    assert resolution_at(torch.zeros(6), 0.143, 10, 2.0) == 20.0


def low_passed(density: Tensor, last: int) -> Tensor:
    n = density.shape[-1]
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    half = torch.arange(n // 2 + 1, dtype=torch.float64)
    shell = (k[:, None, None] ** 2 + k[:, None] ** 2 + half**2).sqrt().round()
    return torch.fft.irfftn(torch.fft.rfftn(density) * (shell <= last), s=(n, n, n))


def test_the_corrected_curve_is_never_above_the_masked_one() -> None:
    """By chance random phases correlate below 0, which is nobody's resolution."""
    n, tried = 24, 0
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        signal = 3 * low_passed(noise(n, generator), 6)
        halves = [signal + noise(n, generator) for _ in range(2)]
        curve = masked_fsc(halves[0], halves[1], soft_ball(n, 6), generator)
        tail = curve.randomised[curve.randomised_from_shell + 2 :]
        tried += int((tail < 0).sum())
        assert (curve.corrected <= curve.masked).all()
    assert tried > 3


def test_a_shell_without_data_has_no_correlation(generator: torch.Generator) -> None:
    """A mask smears agreement into the last shell, in which the halves have nothing."""
    n = 32
    signal = low_passed(noise(n, generator), n // 2 - 1)
    # Stored in single precision, so that the last shell holds rounding.
    halves = [
        (signal + 0.01 * low_passed(noise(n, generator), n // 2 - 1)).float()
        for _ in range(2)
    ]
    curve = masked_fsc(halves[0], halves[1], soft_ball(n, 8), generator)
    assert curve.masked[-1] > 0.5
    assert curve.unmasked[-1] == 0
    assert curve.corrected[-1] == 0
    assert curve.corrected[-2] > 0.5


def test_a_mask_of_one_voxel_proves_nothing(generator: torch.Generator) -> None:
    n = 16
    mask = torch.zeros(n, n, n)
    mask[8, 8, 8] = 1
    curve = masked_fsc(noise(n, generator), noise(n, generator), mask, generator)
    assert (curve.masked.abs() > 0.999).all()  # of one value: all shells agree
    assert (curve.corrected[4:] <= 0).all()


def test_the_area_of_cryobench_is_that_of_its_own_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 12, 12, 12, generator=generator).double()
    mask = torch.rand(12, 12, 12, generator=generator).double()
    for absolute in (False, True):
        expected = cryobench_loop((a * mask).numpy(), (b * mask).numpy(), absolute)
        found = cryobench_fsc_area(a, b, mask, absolute=absolute)
        # Both in float64.
        assert found == pytest.approx(expected, abs=1e-12)


def test_the_largest_area_of_cryobench() -> None:
    a = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0))
    # 1 over frequencies 0 to 7 / 16.
    assert cryobench_fsc_area(a, 3 * a, absolute=False) == pytest.approx(7 / 16)
    # The opposite contrast: 1 at the point 0, -1 from the next on.
    assert cryobench_fsc_area(a, -a, absolute=False) == pytest.approx(-6 / 16)
    assert cryobench_fsc_area(a, -a, absolute=True) == pytest.approx(7 / 16)
    with pytest.raises(InputError, match="even"):
        cryobench_fsc_area(torch.zeros(3, 3, 3), torch.zeros(3, 3, 3), absolute=True)


def cryobench_loop(a: np.ndarray, b: np.ndarray, absolute: bool) -> float:
    """Compute it as metrics/fsc of CryoBench does (commit 20931c2), shell by shell."""
    n = len(a)
    x = np.arange(-n // 2, n // 2)
    distance = sum(k**2 for k in np.meshgrid(x, x, x, indexing="ij")) ** 0.5
    a, b = (np.fft.fftshift(np.fft.fftn(one)) for one in (a, b))
    fsc, before = [1.0], np.zeros((n, n, n), dtype=bool)
    for shell in range(1, n // 2):
        inside = distance < shell
        one, other = (values[inside & ~before] for values in (a, b))
        norm = (np.vdot(one, one) * np.vdot(other, other)) ** 0.5
        fsc.append(float((np.vdot(one, other) / norm).real))
        before = inside
    values = np.abs(fsc) if absolute else np.array(fsc)
    return float(np.trapezoid(values, np.arange(n // 2) / n))
