"""Local resolution against what is put in, a slow twin, and chance."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import fourier_shell_correlation, resolution_at
from cryoinfer.evaluation.local_resolution import (
    THRESHOLD,
    ResolutionShares,
    band_filter,
    band_shells,
    local_resolution,
)

VOXEL = 1.5


def noise(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, n, n), generator=generator, dtype=torch.float64)


def falling(white: Tensor, b_factor_voxels: float) -> Tensor:
    """Return white noise whose amplitudes fall as those of a map do."""
    n = white.shape[-1]
    frequency = torch.fft.fftfreq(n, dtype=torch.float64)
    squared = frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2
    weight = torch.exp(-b_factor_voxels / 4 * squared)
    return torch.fft.ifftn(torch.fft.fftn(white) * weight).real


@pytest.mark.parametrize("n", [32, 33, 48])
def test_bands_share_every_frequency(n: int) -> None:
    shells = band_shells(n)
    assert shells[-1] == pytest.approx(n / 2)
    distance = torch.linspace(0.0, n, 300, dtype=torch.float64)
    total = sum(band_filter(distance, shells, k) for k in range(len(shells)))
    torch.testing.assert_close(total, torch.ones_like(distance))


@pytest.mark.parametrize("n", [32, 33])
def test_equal_halves_agree_to_nyquist_and_stay_as_they_are(n: int) -> None:
    half = noise(n, 0)
    found = local_resolution(half, half, VOXEL)
    assert float(found.angstrom.max()) == pytest.approx(2 * VOXEL)
    # All bands together, with weight 1; single precision.
    torch.testing.assert_close(found.filtered.double(), half, atol=2e-6, rtol=0)


def test_noise_agrees_nowhere_but_by_chance() -> None:
    found = local_resolution(noise(48, 1), noise(48, 2), VOXEL)
    # The first band's correlation has a standard deviation of 0.05: one in 500 voxels
    # is above 0.143, which are few windows.
    coarse = float((found.angstrom >= 0.99 * 48 * VOXEL).double().mean())
    assert coarse > 0.95
    assert float(found.filtered.std()) < 0.05


def test_a_map_that_is_alike_everywhere_has_the_resolution_of_its_fsc() -> None:
    n = 64
    signal = falling(noise(n, 3), 60.0)
    half1, half2 = (signal + 0.12 * noise(n, seed) for seed in (4, 5))
    found = local_resolution(half1, half2, VOXEL)
    whole = resolution_at(fourier_shell_correlation(half1, half2), THRESHOLD, n, VOXEL)
    # A band is 12 % wide, and correlations near the threshold have a spread of 0.05.
    assert float(found.angstrom.median()) == pytest.approx(whole, rel=0.06)
    spread = found.angstrom.double().quantile(torch.tensor([0.05, 0.95]).double())
    assert float(spread[1] / spread[0]) < 1.35


def test_the_noisier_half_of_a_map_is_found() -> None:
    n = 64
    signal = falling(noise(n, 3), 60.0)
    level = torch.full((n, n, n), 0.06, dtype=torch.float64)
    level[n // 2 :] = 0.5
    half1, half2 = (signal + level * noise(n, seed) for seed in (4, 5))
    found = local_resolution(half1, half2, VOXEL)
    for part, sigma in ((slice(8, 24), 0.06), (slice(40, 56), 0.5)):
        # Signal and noise power of a coefficient are exp(-B s^2 / 2) and sigma^2:
        # their ratio at the crossing is 0.143 / (1 - 0.143).
        ratio = THRESHOLD / (1 - THRESHOLD)
        frequency = math.sqrt(-2 / 60.0 * math.log(ratio * sigma**2))
        expected = max(VOXEL / min(frequency, 0.5), 2 * VOXEL)
        median = float(found.angstrom[part].median())
        # A band is 12 % wide; the windows reach into the other part.
        assert median == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("n", [24, 27])
def test_the_correlation_is_that_of_a_plain_sum(n: int) -> None:
    """A slow twin at some voxels: real-space windows, all voxels of the band."""
    signal = falling(noise(n, 6), 40.0)
    half1, half2 = (signal + 0.2 * noise(n, seed) for seed in (7, 8))
    shells = band_shells(n)
    found = local_resolution(half1, half2, VOXEL)
    axis = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    offset = (torch.arange(n, dtype=torch.float64) + n // 2) % n - n // 2
    for place in ((0, 0, 0), (5, 11, 3), (n - 1, 2, n // 2)):
        curve = []
        for number, shell in enumerate(shells):
            share = band_filter(distance, shells, number)
            a, c = (
                torch.fft.ifftn(torch.fft.fftn(half) * share).real
                for half in (half1, half2)
            )
            sigma = 2.0 * n / shell
            # The window is periodic, as the transform has it.
            line = sum(
                torch.exp(-0.5 * ((offset + turn * n) / sigma) ** 2)
                for turn in range(-4, 5)
            )
            window = line[:, None, None] * line[:, None] * line
            window = torch.roll(window, place, (0, 1, 2))
            cross = (window * a * c).sum()
            power = (window * a * a).sum() * (window * c * c).sum()
            curve.append(float(cross / power.sqrt()))
        below = [k for k, one in enumerate(curve) if one < THRESHOLD]
        expected = 2 * VOXEL
        if below:
            k = below[0]
            share = (curve[k - 1] - THRESHOLD) / (curve[k - 1] - curve[k])
            expected = n * VOXEL / (shells[k - 1] + share * (shells[k] - shells[k - 1]))
        # Coarse bands are on fewer voxels, and interpolated: a tenth of a band.
        assert float(found.angstrom[place]) == pytest.approx(expected, rel=0.012)


def test_shares_say_what_is_inside_and_what_is_chance() -> None:
    angstrom = torch.full((8, 8, 8), 20.0)
    mask = torch.zeros_like(angstrom)
    mask[:4] = 1.0
    angstrom[:2], angstrom[2:4], angstrom[4] = 4.0, 6.0, 5.0
    found = ResolutionShares.of(angstrom, mask)
    assert found.quantiles[0.25] == 4.0
    assert found.quantiles[0.75] == 6.0
    # One of four layers outside is at least as good as the median inside.
    assert found.by_chance == pytest.approx(0.25)
    assert ResolutionShares.of(angstrom, None).by_chance is None
    with pytest.raises(InputError, match="nothing is inside"):
        ResolutionShares.of(angstrom, torch.zeros_like(angstrom))


@pytest.mark.parametrize("shapes", [((24, 24, 24), (26, 26, 26)), ((24, 24, 20),) * 2])
def test_other_shapes_are_refused(shapes: tuple) -> None:
    with pytest.raises(InputError, match="cubic"):
        local_resolution(*(torch.from_numpy(np.zeros(s)) for s in shapes), VOXEL)
