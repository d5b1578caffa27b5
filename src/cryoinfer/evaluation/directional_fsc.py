"""Fourier shell correlation by direction: whether a map is as good along every axis.

Where views are missing, or most are alike, coefficients in some directions are known
worse than in others, and the FSC of whole shells hides it. Here it is taken in cones
about directions that are spread evenly (Tan et al. 2017, Nature Methods 14, 793-796).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.arithmetic import real_fourier_transform_3d
from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import resolution_at, shell_distance

HALF_ANGLE_DEGREES = 20.0
DIRECTIONS = 100
"""On a hemisphere: cones of this angle about them cover it six times over."""

_FEWEST = 12
"""Coefficients of a shell in a cone, k and -k as one, whose correlation is told."""


@dataclass(frozen=True)
class DirectionalFsc:
    """The correlation of two maps in cones about directions.

    Attributes
    ----------
    direction : Tensor of float64, shape (k, 3)
        Unit vectors (x, y, z), z at least 0.
    fsc : Tensor of float64, shape (k, n // 2 + 1)
        1 in shells of which a cone holds hardly anything.
    resolution_angstrom : Tensor of float64, shape (k,)
        FSC 0.143.
    """

    direction: Tensor
    fsc: Tensor
    resolution_angstrom: Tensor


def directional_fsc(
    map_a: Tensor, map_b: Tensor, voxel_size_angstrom: float, count: int = DIRECTIONS
) -> DirectionalFsc:
    """Correlate two maps shell by shell, within cones.

    Parameters
    ----------
    map_a, map_b : Tensor, shape (n, n, n)
        Masked, if they are to be; what a mask adds is not taken out.
    voxel_size_angstrom : float
    count : int
        Of directions.

    Returns
    -------
    DirectionalFsc

    Raises
    ------
    InputError
        If they are not cubes of the same size.
    """
    n = map_a.shape[-1]
    if map_a.shape != (n, n, n) or map_b.shape != (n, n, n):
        raise InputError(
            "expected two cubic maps of the same size, found shapes "
            f"{tuple(map_a.shape)} and {tuple(map_b.shape)}"
        )
    a, b = (real_fourier_transform_3d(one.double()).flatten() for one in (map_a, map_b))
    distance, unit = shell_distance(n).flatten(), _unit_frequencies(n)
    shell, last = distance.round().long(), n // 2
    # The plane x = 0 holds k and -k both: of it one half is enough.
    kept = (shell >= 1) & (shell <= last) & _is_one_of_a_pair(n)
    shell, unit = shell[kept], unit[kept]
    terms = torch.stack(
        [
            (a * b.conj()).real[kept],
            a.abs().square()[kept],
            b.abs().square()[kept],
            torch.ones_like(shell, dtype=torch.float64),
        ]
    )
    direction = hemisphere(count)
    narrow = math.cos(math.radians(HALF_ANGLE_DEGREES))
    curves = []
    for one in direction:
        inside = (unit @ one).abs() >= narrow
        sums = torch.zeros((4, last + 1), dtype=torch.float64)
        sums.index_add_(1, shell[inside], terms[:, inside])
        cross, first, second, held = sums
        norm = (first.sqrt() * second.sqrt()).clamp(min=1e-300)
        fsc = torch.where(first * second > 0, cross / norm, 0.0).clamp(-1.0, 1.0)
        curves.append(torch.where(held < _FEWEST, 1.0, fsc))
    reached = [resolution_at(fsc, 0.143, n, voxel_size_angstrom) for fsc in curves]
    return DirectionalFsc(
        direction, torch.stack(curves), torch.tensor(reached, dtype=torch.float64)
    )


def hemisphere(count: int) -> Tensor:
    """Return unit vectors spread evenly over the upper hemisphere, shape (count, 3).

    On a spiral of golden angles; the order of components is x, y, z.
    """
    number = torch.arange(count, dtype=torch.float64)
    z = 1.0 - (number + 0.5) / count
    angle = number * (math.pi * (3.0 - math.sqrt(5.0)))
    ring = (1.0 - z * z).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z], 1)


def _unit_frequencies(n: int) -> Tensor:
    """Return the direction (x, y, z) of every coefficient of a half-transform."""
    whole = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    half = torch.arange(n // 2 + 1, dtype=torch.float64)
    z, y, x = torch.meshgrid(whole, whole, half, indexing="ij")
    vector = torch.stack([x, y, z], -1).flatten(0, 2)
    return vector / vector.norm(dim=1, keepdim=True).clamp(min=1e-9)


def _is_one_of_a_pair(n: int) -> Tensor:
    """Return one of k and -k of every coefficient of a half-transform, as a mask."""
    whole = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    half = torch.arange(n // 2 + 1, dtype=torch.float64)
    z, y, x = torch.meshgrid(whole, whole, half, indexing="ij")
    return ((x > 0) | (y > 0) | ((y == 0) & (z > 0))).flatten()
