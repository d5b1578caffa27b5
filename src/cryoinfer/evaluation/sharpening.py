"""Amplitudes of a map by resolution: how far they fall, and their restoration.

Beyond about 10 angstrom the amplitudes of a protein hardly depend on the resolution
(Wilson 1942). What they fall by there is blur, of the structure, the images, the poses
and the interpolation: ``exp(-B s^2 / 4)``. The Guinier plot, their logarithm over s^2,
is then a straight line of slope -B/4.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    inverse_real_fourier_transform_3d,
    real_fourier_transform_3d,
)
from cryoinfer.evaluation.fsc import shell_distance, shell_means

FIT_FROM_ANGSTROM = 10.0
"""Where the fit begins: coarser shells follow the shape of the molecule."""

COARSEST_FIT_ANGSTROM = 8.0
"""Resolution from which on a B-factor is fitted: between 10 and 8 angstrom the square
of the frequency grows by no more than half, and a straight line has no length."""

STEADY_FIT_ANGSTROM = 5.0
"""Resolution to which the fold bends the plot: of a model of adenylate kinase that is
not blurred, the line from 10 angstrom to 6.5, 5.5, 4.5, 3.5 and 2.5 has the B-factors
-107, -53, 11, -6 and -21 angstrom^2."""

FEWEST_SHELLS = 5
"""In a fit of two unknowns whose error is to be told."""

_EDGE_SHELLS = 2.0
"""Over which a sharpened map falls to nothing behind its resolution."""


@dataclass(frozen=True)
class GuinierFit:
    """A straight line through the Guinier plot.

    Attributes
    ----------
    b_factor_angstrom2 : float
        Four times the slope: negative where amplitudes fall, as RELION gives it.
        Applied to the map, it brings them to one level.
    standard_error_angstrom2 : float
        From the scatter of the points about the line.
    intercept : float
        Of the line, at infinite resolution.
    from_angstrom, to_angstrom : float
        Resolutions of the first and the last shell.
    shells : int
    """

    b_factor_angstrom2: float
    standard_error_angstrom2: float
    intercept: float
    from_angstrom: float
    to_angstrom: float
    shells: int


def mean_amplitudes(density: Tensor) -> Tensor:
    """Return the mean amplitude of the Fourier coefficients of every shell.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)

    Returns
    -------
    Tensor of float64, shape (n // 2 + 1,)
        Of coefficients over the number of voxels, as RELION scales them.
    """
    box = density.shape[-1]
    amplitude = real_fourier_transform_3d(density.double()).abs() / box**3
    return shell_means(amplitude, box)


def log_amplitudes(amplitudes: Tensor) -> Tensor:
    """Return the logarithm, -99 where there is none, as RELION writes it."""
    return torch.where(amplitudes > 0, amplitudes.clamp(min=1e-300).log(), -99.0)


def fit_b_factor(
    amplitudes: Tensor, resolution_angstrom: float, length_angstrom: float
) -> GuinierFit | None:
    """Fit a straight line to the Guinier plot, from 10 angstrom to the resolution.

    Rosenthal and Henderson 2003, J. Mol. Biol. 333, 721-745. All shells count alike.

    Parameters
    ----------
    amplitudes : Tensor, shape (n // 2 + 1,)
        Mean amplitudes of shells, weighted by :func:`amplitude_weight` of the FSC: what
        is left is the signal's, not the noise's.
    resolution_angstrom : float
        To which the map is known.
    length_angstrom : float
        Of an edge of the box.

    Returns
    -------
    GuinierFit or None
        None where the resolution is worse than 8 angstrom, or fewer than five shells
        lie in the range. The last shell is left out of every fit.
    """
    frequency = shell_frequencies(len(amplitudes), length_angstrom)
    inside = frequency >= (1 - 1e-9) / FIT_FROM_ANGSTROM
    inside &= frequency <= (1 + 1e-9) / resolution_angstrom
    inside &= amplitudes > 0
    inside[-1] = False
    count = int(inside.sum())
    if resolution_angstrom > COARSEST_FIT_ANGSTROM or count < FEWEST_SHELLS:
        return None
    x, y = frequency[inside].square(), amplitudes[inside].double().log()
    apart = x - x.mean()
    spread = float((apart * apart).sum())
    slope = float((apart * y).sum()) / spread
    intercept = float(y.mean()) - slope * float(x.mean())
    scatter = float((y - intercept - slope * x).square().sum()) / (count - 2)
    return GuinierFit(
        b_factor_angstrom2=4.0 * slope,
        standard_error_angstrom2=4.0 * math.sqrt(scatter / spread),
        intercept=intercept,
        from_angstrom=1.0 / float(frequency[inside][0]),
        to_angstrom=1.0 / float(frequency[inside][-1]),
        shells=count,
    )


def sharpen(
    density: Tensor,
    weight: Tensor,
    b_factor_angstrom2: float,
    resolution_angstrom: float,
    voxel_size_angstrom: float,
) -> Tensor:
    """Weight the shells of a map, apply a B-factor, and cut it off at its resolution.

    Coefficients are multiplied by ``weight(s) exp(-B s^2 / 4)``, weights interpolated
    between shells, and by a cosine edge of two shells behind the resolution.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
    weight : Tensor, shape (n // 2 + 1,)
    b_factor_angstrom2 : float
        A negative one sharpens.
    resolution_angstrom, voxel_size_angstrom : float

    Returns
    -------
    Tensor of float32, shape (n, n, n)
    """
    box = density.shape[-1]
    length = box * voxel_size_angstrom
    distance = shell_distance(box)
    low = distance.floor().long().clamp(max=len(weight) - 2)
    share = (distance - low).clamp(max=1.0)
    weight = weight.double()
    factor = weight[low] + share * (weight[low + 1] - weight[low])
    factor *= torch.exp(-b_factor_angstrom2 / 4.0 * (distance / length).square())
    behind = (distance - length / resolution_angstrom) / _EDGE_SHELLS
    factor *= 0.5 + 0.5 * torch.cos(torch.pi * behind.clamp(0.0, 1.0))
    # Corners belong to no shell: nothing is known of them.
    factor[distance > box / 2] = 0.0
    coefficients = real_fourier_transform_3d(density.double()) * factor
    return inverse_real_fourier_transform_3d(coefficients, box).float()


def shell_frequencies(shells: int, length_angstrom: float) -> Tensor:
    """Return the spatial frequency of every shell, in 1 / angstrom.

    Parameters
    ----------
    shells : int
    length_angstrom : float
        Of an edge of the box.
    """
    return torch.arange(shells, dtype=torch.float64) / length_angstrom
