"""Fourier shell correlation: how far two maps agree, and to what resolution.

Shells are hard and one Fourier pixel wide: a coefficient at the distance |k| from the
origin belongs to the shell ``round(|k|)``. Shell ``n // 2`` is Nyquist; what lies
beyond it, in the corners, belongs to none.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    inverse_real_fourier_transform_3d,
    real_fourier_transform_3d,
)
from cryoinfer.errors import InputError

RANDOMISE_BELOW = 0.8
"""Phases are randomised from the first shell whose unmasked FSC is below this."""

_EMPTY = 2.0**-20
"""Amplitude of a coefficient, over the root mean square of all, below which there is
but the rounding of single precision (2^-24 a voxel, and some of it in transforms)."""

_SHELLS_AFTER_RANDOMISATION = 2
"""Shells by which a mask smears the true phases past the first randomised shell."""


@dataclass(frozen=True)
class FscCurve:
    """The correlation of two half-maps, with and without the effect of the mask.

    Attributes
    ----------
    unmasked, masked : Tensor of float64, shape (n // 2 + 1,)
        Before and after both maps are multiplied by the mask.
    randomised : Tensor of float64, shape (n // 2 + 1,)
        Of the masked maps when their phases were random from
        ``randomised_from_shell`` on: the correlation that the mask alone makes.
    corrected : Tensor of float64, shape (n // 2 + 1,)
        ``(masked - randomised) / (1 - randomised)`` where phases were random; never
        above ``masked``, and nothing where one of the maps is empty.
    randomised_from_shell : int
        ``n // 2 + 1`` when no shell had to be randomised.
    """

    unmasked: Tensor
    masked: Tensor
    randomised: Tensor
    corrected: Tensor
    randomised_from_shell: int


def fourier_shell_correlation(map_a: Tensor, map_b: Tensor) -> Tensor:
    """Correlate the Fourier coefficients of two maps, shell by shell.

    ``FSC(s) = Re sum a conj(b) / sqrt(sum |a|^2 sum |b|^2)`` over the shell s
    (Harauz and van Heel 1986).

    Parameters
    ----------
    map_a, map_b : Tensor, shape (n, n, n)
        Summed in float64 whatever their type.

    Returns
    -------
    Tensor of float64, shape (n // 2 + 1,)
        In [-1, 1]; 0 in a shell where one of the maps holds nothing but rounding.

    Raises
    ------
    InputError
        If the maps are not cubes of the same size.
    """
    _require_equal_cubes(map_a, map_b)
    return _correlate(_transform(map_a), _transform(map_b), map_a.shape[-1])


def cryobench_fsc_area(
    estimated: Tensor, true: Tensor, mask: Tensor | None = None, *, absolute: bool
) -> float:
    """Return the area under the FSC of a conformation with the true one, as CryoBench.

    Jeon et al. (2024), by the scripts of its repository: over frequencies 0 to
    ``(n / 2 - 1) / n`` of a pixel, by trapezoids, so that 0.5 - 1 / n is the most.
    Point i of the curve is the correlation of coefficients with ``i - 1 <= |k| < i``,
    and the point 0 is 1; that is half a shell lower than in
    :func:`fourier_shell_correlation`.

    *Per conformation*: ``absolute=False`` (``metrics/fsc/plot_fsc.py``), once for every
    true state, its map that of z of the image which is nearest to the mean z of the
    state's images. *Per image*: ``absolute=True``, the area of the size of the curve
    (``metrics/fsc/cdrgn_per_img_fsc.py``), for images at even steps through all, each
    map that of the image's own z. Mean, median and spread of the areas are told. Where
    a map holds nothing at all the correlation is 0 here, and 1 there.

    Parameters
    ----------
    estimated, true : Tensor, shape (n, n, n)
        In one frame; n is even.
    mask : Tensor, shape (n, n, n), optional
        Multiplied with both.
    absolute : bool

    Returns
    -------
    float

    Raises
    ------
    InputError
        If they are not cubes of the same even size.
    """
    for other in (true, estimated if mask is None else mask):
        _require_equal_cubes(estimated, other)
    box = estimated.shape[-1]
    if box % 2:
        raise InputError(f"expected maps of an even size, found {box} voxels")
    weight = 1.0 if mask is None else mask.double()
    a, b = (_transform(one.double() * weight) for one in (estimated, true))
    # Floors of the distance; the last shells of the bins lie beyond the curve.
    inside = _correlate_shells(a, b, shell_distance(box, a.device).floor_().long())
    fsc = torch.cat([inside.new_ones(1), inside[: box // 2 - 1]])
    return float(torch.trapezoid(fsc.abs() if absolute else fsc) / box)


def masked_fsc(
    half1: Tensor, half2: Tensor, mask: Tensor, generator: torch.Generator
) -> FscCurve:
    """Correlate two half-maps under a mask, corrected for what the mask itself adds.

    The phases of both halves are replaced by random ones from the first shell where
    the unmasked FSC falls below 0.8; what correlation is left under the mask there is
    the mask's own, and is taken out (Chen et al. 2013, Ultramicroscopy 135, 24-35,
    equation 4). The two shells next to the first random one keep the masked value,
    for the mask smears true phases into them. A correlation of random phases below 0
    is chance, and adds nothing; a shell in which a map holds nothing has no
    correlation, whatever the mask smears into it.

    Parameters
    ----------
    half1, half2 : Tensor, shape (n, n, n)
    mask : Tensor, shape (n, n, n)
        In [0, 1], with a soft edge.
    generator : torch.Generator
        Source of the random phases, on the CPU.

    Returns
    -------
    FscCurve

    Raises
    ------
    InputError
        If the maps and the mask are not cubes of the same size.
    """
    _require_equal_cubes(half1, half2)
    _require_equal_cubes(half1, mask)
    box = half1.shape[-1]
    mask = mask.double()
    first_half, second_half = _transform(half1), _transform(half2)
    unmasked = _correlate(first_half, second_half, box)
    masked = fourier_shell_correlation(half1 * mask, half2 * mask)
    low = torch.nonzero(unmasked[1:] < RANDOMISE_BELOW).flatten()
    first = int(low[0]) + 1 if len(low) else box // 2 + 1
    scrambled = [
        mask * _randomise_phases(values, box, first, generator)
        for values in (first_half, second_half)
    ]
    randomised = fourier_shell_correlation(*scrambled)
    shell = torch.arange(box // 2 + 1, device=unmasked.device)
    added = randomised.clamp(min=0.0)
    less = torch.where(added < 1, (masked - added) / (1 - added), 0.0)
    is_random = shell >= first + _SHELLS_AFTER_RANDOMISATION
    corrected = torch.where(is_random, torch.minimum(less, masked), masked)
    for half in (first_half, second_half):
        is_empty = _ShellPowers.of(half, _shells(box, half.device)).is_empty
        corrected = torch.where(is_empty, masked.clamp(max=0.0), corrected)
    return FscCurve(unmasked, masked, randomised, corrected, first)


def resolution_at(
    fsc: Tensor, threshold: float, box: int, pixel_size_angstrom: float
) -> float:
    """Return the resolution at which the FSC first falls below a threshold.

    Shell 0 is ignored. The crossing is interpolated linearly between the last shell
    above the threshold and the first below it. A curve that never falls below it
    gives Nyquist; one that is below it from shell 1 on gives the box length.

    Parameters
    ----------
    fsc : Tensor, shape (box // 2 + 1,)
    threshold : float
        0.143 for independent half-maps, 0.5 for a map against the truth.
    box : int
    pixel_size_angstrom : float

    Returns
    -------
    float
        In angstrom.
    """
    length_angstrom = box * pixel_size_angstrom
    below = torch.nonzero(fsc[1:] < threshold).flatten()
    if len(below) == 0:
        return 2.0 * pixel_size_angstrom
    shell = int(below[0]) + 1
    if shell == 1:
        return length_angstrom
    above, under = float(fsc[shell - 1]), float(fsc[shell])
    crossing = shell - 1 + (above - threshold) / (above - under)
    return length_angstrom / crossing


def amplitude_weight(correlation: Tensor) -> Tensor:
    """Return the expected correlation of the mean of two halves with the true map.

    ``sqrt(2 C / (1 + C))`` for the correlation C of the halves (Rosenthal and Henderson
    2003, J. Mol. Biol. 333, 721-745), by which amplitudes of the mean are weighted; 0
    where C is not positive.

    Parameters
    ----------
    correlation : Tensor
        In [-1, 1].
    """
    positive = correlation.clamp(min=0.0)
    return torch.sqrt(2.0 * positive / (1.0 + positive))


def _transform(density: Tensor) -> Tensor:
    # The origin does not matter: both maps get the same phase, which cancels.
    return real_fourier_transform_3d(density.double())


def _shells(box: int, device: torch.device) -> Tensor:
    """Return round(|k|) of every coefficient of a half-transform."""
    return shell_distance(box, device).round_().long()


def shell_distance(box: int, device: torch.device | str = "cpu") -> Tensor:
    """Return |k| of every coefficient of a half-transform, in shells."""
    whole = torch.fft.fftfreq(box, 1 / box, dtype=torch.float64, device=device)
    half = torch.arange(box // 2 + 1, dtype=torch.float64, device=device)
    squared = whole[:, None, None] ** 2 + whole[:, None] ** 2 + half**2
    return squared.sqrt_()


@dataclass(frozen=True)
class _ShellPowers:
    """The power of a map, shell by shell, and where there is none."""

    power: Tensor
    is_empty: Tensor

    @classmethod
    def of(cls, coefficients: Tensor, shells: Tensor) -> "_ShellPowers":
        values = coefficients.real**2 + coefficients.imag**2
        power = shell_sums(values, shells)
        count = shell_sums(torch.ones_like(values), shells)
        return cls(power, power <= _EMPTY**2 * values.mean() * count)


def shell_sums(values: Tensor, shells: Tensor) -> Tensor:
    """Return the sums over the shells of a whole transform, from its half.

    Parameters
    ----------
    values : Tensor of float64, shape (box, ..., box // 2 + 1)
        Of an image or a map; the same at k and -k.
    shells : Tensor of int64, of the same shape
        Of each coefficient.

    Returns
    -------
    Tensor of float64, shape (box // 2 + 1,)
    """
    box, count = len(shells), shells.shape[-1]
    # A half-transform lacks the partner -k of every column but x = 0 and Nyquist.
    weight = values.new_full((count,), 2.0)
    weight[0] = 1.0
    if box % 2 == 0:
        weight[-1] = 1.0
    return torch.bincount(shells.flatten(), (values * weight).flatten())[:count]


def shell_means(values: Tensor, box: int) -> Tensor:
    """Return the means over the shells of a whole transform, from its half.

    Parameters
    ----------
    values : Tensor of float64, shape (box, box, box // 2 + 1)
        The same at k and -k.
    box : int

    Returns
    -------
    Tensor of float64, shape (box // 2 + 1,)
    """
    sums = shell_sums(values, _shells(box, values.device))
    return sums / shell_sizes(box).to(sums)


def shell_sizes(box: int) -> Tensor:
    """Return how many coefficients of a whole transform each shell holds.

    Returns
    -------
    Tensor of float64, shape (box // 2 + 1,)
    """
    shells = _shells(box, torch.device("cpu"))
    return shell_sums(torch.ones(shells.shape, dtype=torch.float64), shells)


def _correlate(a: Tensor, b: Tensor, box: int) -> Tensor:
    return _correlate_shells(a, b, _shells(box, a.device))


def _correlate_shells(a: Tensor, b: Tensor, shells: Tensor) -> Tensor:
    cross = shell_sums(a.real * b.real + a.imag * b.imag, shells)
    first, second = _ShellPowers.of(a, shells), _ShellPowers.of(b, shells)
    # The square roots apart: the product of two small powers can underflow.
    norm = first.power.sqrt() * second.power.sqrt()
    fsc = torch.where(norm > 0, cross / norm, 0.0).clamp(-1.0, 1.0)
    return torch.where(first.is_empty | second.is_empty, 0.0, fsc)


def _randomise_phases(
    coefficients: Tensor, box: int, first_shell: int, generator: torch.Generator
) -> Tensor:
    """Return the map whose phases are random from a shell on, amplitudes kept."""
    # The transform of real noise has uniform phases that pair up as those of a real
    # map must.
    noise = torch.randn((box, box, box), dtype=torch.float64, generator=generator)
    phase = torch.sgn(_transform(noise).to(coefficients.device))
    random = _shells(box, coefficients.device) >= first_shell
    mixed = torch.where(random, coefficients.abs() * phase, coefficients)
    return inverse_real_fourier_transform_3d(mixed, box)


def _require_equal_cubes(map_a: Tensor, map_b: Tensor) -> None:
    n = map_a.shape[-1]
    if map_a.shape != (n, n, n) or map_b.shape != (n, n, n):
        raise InputError(
            "expected two cubic maps of the same size, found shapes "
            f"{tuple(map_a.shape)} and {tuple(map_b.shape)}; crop or resample one of "
            "them first"
        )
