"""Local resolution: to which detail two half-maps agree at every place of a map.

The maps are divided into bands of frequency, and the halves correlated band by band
within a Gaussian window around each voxel. The window grows with the period of the
band, so that equally many independent coefficients speak in every band: a window of
one size for all would be too small for coarse detail, or blur fine.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    inverse_real_fourier_transform_3d,
    real_fourier_transform_3d,
)
from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import amplitude_weight, shell_distance
from cryoinfer.interfaces import SILENT, Monitor

THRESHOLD = 0.143
"""Of the correlation of half-maps, as for the whole map."""

_RATIO = 1.12
"""Of the frequencies of successive bands."""

_WINDOW_PERIODS = 2.0
"""Standard deviation of the window in periods of the band's frequency. About 350
independent coefficients are then in it, and correlations of noise have a standard
deviation of 0.05."""

_FIRST_SHELL = 4.0
_SAMPLES_A_PERIOD = 4.5
"""Voxels a band is correlated on: products have twice its frequencies."""


@dataclass(frozen=True)
class LocalResolution:
    """What is found at every voxel.

    Attributes
    ----------
    angstrom : Tensor of float32, shape (n, n, n)
        Where the local correlation first falls below 0.143. The edge of the box where
        it is below it from the first band on; twice the voxel size where it never is.
    filtered : Tensor of float32, shape (n, n, n)
        The mean of the halves, each band weighted by what its correlation says of the
        signal in it, and left out from the local resolution on.
    """

    angstrom: Tensor
    filtered: Tensor


def local_resolution(
    half1: Tensor, half2: Tensor, voxel_size_angstrom: float, monitor: Monitor = SILENT
) -> LocalResolution:
    """Correlate two half-maps around every voxel, and filter their mean accordingly.

    ``C_b(x) = sum_y g(x - y) a_b(y) c_b(y) / sqrt(sum g a_b^2 sum g c_b^2)`` for the
    parts a_b, c_b of the halves in the band b, and a Gaussian window g of two periods'
    standard deviation (the local FSC of Cardone, Heymann and Steven 2013, J. Struct.
    Biol. 184, 226-236, with windows that follow the band). The weight of a band is
    ``sqrt(2 C / (1 + C))``, the expected correlation of the mean of the halves with the
    noiseless map (Rosenthal and Henderson 2003, J. Mol. Biol. 333, 721-745).

    Parameters
    ----------
    half1, half2 : Tensor, shape (n, n, n)
        Of independent halves of the particles, not masked, n at least 16.
    voxel_size_angstrom : float
    monitor : Monitor, optional

    Returns
    -------
    LocalResolution

    Raises
    ------
    InputError
        If the maps are not cubes of one size, or too small.
    """
    n = half1.shape[-1]
    if half1.shape != (n, n, n) or half2.shape != half1.shape or n < 16:
        raise InputError(
            "expected two half-maps of one cubic shape, at least 16 voxels along an "
            f"edge, found {tuple(half1.shape)} and {tuple(half2.shape)}"
        )
    transforms = [real_fourier_transform_3d(half.double()) for half in (half1, half2)]
    mean, distance = 0.5 * (transforms[0] + transforms[1]), shell_distance(n)
    shells = band_shells(n)
    resolution = torch.full((n, n, n), math.nan, dtype=torch.float64)
    filtered = torch.zeros((n, n, n), dtype=torch.float64)
    before = torch.ones((n, n, n), dtype=torch.float64)
    monitor.stage("local resolution, by bands of frequency", len(shells))
    length = n * voxel_size_angstrom
    for number, shell in enumerate(shells):
        now = _band_correlation(transforms, n, shells, number)
        falls = resolution.isnan() & (now < THRESHOLD)
        last = shells[max(number - 1, 0)]
        crossed = crossing(before, now, last, shell) if number else torch.tensor(1.0)
        resolution = torch.where(falls, length / crossed, resolution)
        weight = torch.where(resolution.isnan(), amplitude_weight(now), 0.0)
        share = band_filter(distance, shells, number)
        filtered += weight * inverse_real_fourier_transform_3d(mean * share, n)
        before = now
        monitor.advance(1)
    resolution = resolution.nan_to_num(nan=2.0 * voxel_size_angstrom)
    return LocalResolution(resolution.float(), filtered.float())


def band_shells(n: int) -> list[float]:
    """Return the frequency of the middle of every band, in shells, rising to Nyquist.

    Parameters
    ----------
    n : int
        Voxels along an edge.
    """
    steps = max(1, round(math.log(n / 2 / _FIRST_SHELL) / math.log(_RATIO)))
    ratio = (n / 2 / _FIRST_SHELL) ** (1 / steps)
    return [_FIRST_SHELL * ratio**number for number in range(steps + 1)]


def band_filter(distance: Tensor, shells: list[float], number: int) -> Tensor:
    """Return the share of every frequency that belongs to a band.

    Shares are squared cosines of the logarithm of the frequency, and sum to 1. What is
    coarser than the first band belongs to it, what is finer than the last to the last.

    Parameters
    ----------
    distance : Tensor
        Length of the frequency, in shells.
    shells : list of float
        Of :func:`band_shells`.
    number : int
        Of the band.
    """
    step = math.log(shells[1] / shells[0])
    place = torch.log(distance.clamp(min=1e-3) / shells[number]) / step
    if number == 0:
        place = place.clamp(min=0.0)
    if number == len(shells) - 1:
        place = place.clamp(max=0.0)
    return torch.cos(0.5 * torch.pi * place.clamp(-1.0, 1.0)).square()


def crossing(before: Tensor, now: Tensor, last: float, shell: float) -> Tensor:
    """Return the shell at which the correlation has crossed the threshold."""
    share = (before - THRESHOLD) / (before - now).clamp(min=1e-12)
    return last + share.clamp(0.0, 1.0) * (shell - last)


def _cropped(transform: Tensor, n: int, box: int) -> Tensor:
    """Return the transform of the same map on fewer voxels; box is even or n."""
    if box == n:
        return transform
    kept = box // 2 - 1
    rows = torch.arange(-kept, kept + 1)
    out = transform.new_zeros((box, box, box // 2 + 1))
    inside = transform[rows[:, None] % n, rows % n, : kept + 1]
    out[rows[:, None] % box, rows % box, : kept + 1] = inside
    return out


def _band_correlation(
    transforms: list[Tensor], n: int, shells: list[float], number: int
) -> Tensor:
    """Return the local correlation of one band, at every voxel of the whole map."""
    shell = shells[number]
    box = min(n, 2 * math.ceil(_SAMPLES_A_PERIOD * shell / 2) + 2)
    # In the order of sums that are divided at last: fewer voxels, the same values.
    share = band_filter(shell_distance(box), shells, number)
    a, c = (
        inverse_real_fourier_transform_3d(_cropped(one, n, box) * share, box)
        for one in transforms
    )
    window = window_transform(box, shell)
    cross, first, second = (
        inverse_real_fourier_transform_3d(real_fourier_transform_3d(one) * window, box)
        for one in (a * c, a * a, c * c)
    )
    power = first.clamp(min=0.0).sqrt() * second.clamp(min=0.0).sqrt()
    empty = power <= 1e-12 * float(power.max())
    value = torch.where(empty, 0.0, cross / power.clamp(min=1e-300)).clamp(-1.0, 1.0)
    return value if box == n else _on_all_voxels(value, n)


def window_transform(box: int, shell: float) -> Tensor:
    """Return the transform of the window of a band, 1 at the origin.

    Parameters
    ----------
    box : int
        Voxels along an edge.
    shell : float
        Frequency of the band.
    """
    sigma_over_box = _WINDOW_PERIODS / shell
    phase = 2.0 * torch.pi * sigma_over_box * shell_distance(box)
    return torch.exp(-0.5 * phase.square())


def _on_all_voxels(values: Tensor, n: int) -> Tensor:
    """Interpolate a smooth periodic map on n voxels along an edge."""
    for axis in range(3):
        box = values.shape[axis]
        place = torch.arange(n, dtype=torch.float64) * (box / n)
        low = place.floor().long()
        share = (place - low).reshape([-1 if k == axis else 1 for k in range(3)])
        below, above = (values.index_select(axis, one % box) for one in (low, low + 1))
        values = below + share * (above - below)
    return values


@dataclass(frozen=True)
class ResolutionShares:
    """How the local resolution is distributed, inside a mask and outside.

    Attributes
    ----------
    quantiles : dict of float to float
        Angstrom, by the share of voxels that are at least as good.
    by_chance : float or None
        Of the voxels outside, the share that is at least as good as the median inside:
        noise that agrees by chance. None where there is no outside.
    """

    quantiles: dict[float, float]
    by_chance: float | None

    @classmethod
    def of(cls, angstrom: Tensor, mask: Tensor | None) -> "ResolutionShares":
        """Summarise a map of the resolution.

        Parameters
        ----------
        angstrom : Tensor, shape (n, n, n)
        mask : Tensor, shape (n, n, n), or None
            Inside is where it is above one half.

        Raises
        ------
        InputError
            If nothing is inside.
        """
        inside = torch.ones_like(angstrom, dtype=torch.bool)
        if mask is not None:
            inside = mask > 0.5
        if not bool(inside.any()):
            raise InputError("the mask is nowhere above 0.5: nothing is inside it")
        found = angstrom[inside].double()
        shares = (0.05, 0.25, 0.5, 0.75, 0.95)
        ordered = found.sort().values
        quantiles = {
            one: float(ordered[min(int(one * len(ordered)), len(ordered) - 1)])
            for one in shares
        }
        outside = angstrom[~inside]
        by_chance = None
        if len(outside):
            by_chance = float((outside <= quantiles[0.5]).double().mean())
        return cls(quantiles, by_chance)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what is said of each share."""
        for share, value in self.quantiles.items():
            yield f"{share:.0%} of the voxels at least", f"{value:.2f} A"
