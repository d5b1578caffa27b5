"""FSC by direction: a map that is blurred along one axis, and one that is not."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.directional_fsc import (
    HALF_ANGLE_DEGREES,
    directional_fsc,
    hemisphere,
)
from cryoinfer.evaluation.fsc import fourier_shell_correlation, resolution_at

VOXEL, NOISE = 1.0, 0.3


def noise(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, n, n), generator=generator, dtype=torch.float64)


def halves(n: int, along: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Return noisy white maps times exp(-B s^2 / 4), B along z, y and x."""
    line = torch.fft.fftfreq(n, VOXEL, dtype=torch.float64)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    exponent = along[0] * z**2 + along[1] * y**2 + along[2] * x**2
    transform = torch.fft.fftn(noise(n, 0)) * torch.exp(-exponent / 4)
    signal = torch.fft.ifftn(transform).real
    return signal + NOISE * noise(n, 1), signal + NOISE * noise(n, 2)


def expected_angstrom(b_factor: float) -> float:
    """Return where signal over noise in power falls to 0.143 / (1 - 0.143)."""
    ratio = 0.143 / (1 - 0.143) * NOISE**2
    return 1 / math.sqrt(-2 / b_factor * math.log(ratio))


def test_a_map_that_is_blurred_along_one_axis_is_worse_there() -> None:
    found = directional_fsc(*halves(64, (80.0, 20.0, 20.0)), VOXEL)
    up = found.direction[:, 2]
    along, across = (
        found.resolution_angstrom[up > 0.98],
        found.resolution_angstrom[up < 0.2],
    )
    worst, best = expected_angstrom(80.0), expected_angstrom(20.0)
    # A cone of 20 degrees about z reaches to where the blur is by 9 % less.
    assert float(along.median()) == pytest.approx(worst, rel=0.1)
    assert float(across.median()) == pytest.approx(max(best, 2 * VOXEL), rel=0.1)
    assert bool(found.direction[found.resolution_angstrom.argmax()][2] > 0.9)


def test_a_map_that_is_alike_everywhere_has_one_resolution() -> None:
    first, second = halves(64, (50.0, 50.0, 50.0))
    found = directional_fsc(first, second, VOXEL)
    whole = resolution_at(fourier_shell_correlation(first, second), 0.143, 64, VOXEL)
    # A shell in a cone holds a few hundred coefficients: one spread of 0.05 or so.
    assert float(found.resolution_angstrom.median()) == pytest.approx(whole, rel=0.04)
    assert float(found.resolution_angstrom.max()) < 1.2 * whole
    assert float(found.resolution_angstrom.min()) > whole / 1.2


@pytest.mark.parametrize("n", [20, 21])
def test_the_correlation_is_that_of_a_plain_sum(n: int) -> None:
    """A slow twin: all coefficients of the whole transform, one direction at a time."""
    first, second = halves(n, (30.0, 10.0, 10.0))
    found = directional_fsc(first, second, VOXEL, count=5)
    a, b = torch.fft.fftn(first), torch.fft.fftn(second)
    line = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    vector = torch.stack([x, y, z], -1)
    length = vector.norm(dim=-1)
    for number, one in enumerate(found.direction):
        cosine = (vector @ one).abs() / length.clamp(min=1e-9)
        cone = cosine >= math.cos(math.radians(HALF_ANGLE_DEGREES))
        for shell in range(5, n // 2):  # the last has Nyquist, which is its own mate
            inside = cone & (length.round() == shell)
            if int(inside.sum()) < 24:
                continue
            cross = (a * b.conj()).real[inside].sum()
            power = a.abs().square()[inside].sum() * b.abs().square()[inside].sum()
            expected = float(cross / power.sqrt())
            assert float(found.fsc[number, shell]) == pytest.approx(expected, abs=1e-9)


def test_directions_are_spread_evenly() -> None:
    direction = hemisphere(100)
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(100).double())
    assert bool((direction[:, 2] >= 0).all())
    # Every axis has one within 20 degrees: cones leave nothing out.
    axes = hemisphere(1777)
    nearest = (axes @ direction.mT).abs().max(1).values
    assert float(nearest.min()) > math.cos(math.radians(HALF_ANGLE_DEGREES))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="cubic maps of the same size"):
        directional_fsc(torch.ones(8, 8, 8), torch.ones(9, 9, 9), VOXEL)
