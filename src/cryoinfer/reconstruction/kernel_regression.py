"""Which particles make the map of a conformation, and how far away they may be.

Kernel regression, after RECOVAR (Gilles and Singer, PNAS 122, e2419140122, 2025): the
map at z is made of the particles whose posterior of z lies near, and how near is chosen
for each shell by what explains images that are not in it. Here a kernel is a box, so
that the sums of a wide one are those of a narrow one and of what lies between.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume, SliceAccumulator
from cryoinfer.records import Indexable

NARROWEST = 50
"""Particles that a map is made of at least, those of both halves."""

_NARROWEST_SHARE = 1 / 256
"""Of all particles, in the narrowest kernel: with the one before, what is least biased
and can still tell wide kernels from each other."""

_RATIO = 2.0
"""Particles of a kernel over those of the one within it: the noise of the best of these
is at most 1.2 times that of the best of all."""

_WIDENED = 0.5
"""Of the particles' spread: how far beyond its posterior a particle is near."""

_NEAR_MASS = 0.95
"""Of a particle's posterior, so widened: a conformation within it is near."""


@dataclass(frozen=True)
class ConformationPosterior(Indexable):
    """What is known of the conformation z of n particles, q numbers each.

    Attributes
    ----------
    mean : Tensor of float64, shape (n, q)
        NaN in the rows of particles of which nothing is known.
    covariance : Tensor of float64, shape (n, q, q)
    """

    mean: Tensor
    covariance: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def dimensions(self) -> int:
        """How many numbers z has."""
        return self.mean.shape[1]

    @property
    def known(self) -> Tensor:
        """Of which particles anything is known, a mask of shape (n,)."""
        finite = self.mean.isfinite().all(1)
        return finite & self.covariance.isfinite().flatten(1).all(1)

    @cached_property
    def spread(self) -> Tensor:
        """Covariance of the particles' true z, float64, shape (q, q).

        That of the means and what is not known of each, added up.
        """
        mean, covariance = self.mean[self.known], self.covariance[self.known]
        centred = mean - mean.mean(0)
        spread = centred.mT @ centred / max(1, len(mean)) + covariance.mean(0)
        # Where all particles are alike, any other conformation is far away.
        least = 1e-9 * float(spread.diagonal().mean()) or 1.0
        return spread + least * torch.eye(self.dimensions, dtype=spread.dtype)

    def squared_distance(self, target: Tensor) -> Tensor:
        """Return the expected squared distance of each particle's z from a target.

        ``(m - z)^T S^-1 (m - z) + tr(S^-1 C)`` for the mean m, the covariance C and the
        spread S of all particles: a particle of which little is known is far from
        everything. In units of its own covariance, ``(m - z)^T C^-1 (m - z)``, it would
        be near, and the map of a rare conformation be made of those that say least.

        Parameters
        ----------
        target : Tensor, shape (q,)

        Returns
        -------
        Tensor of float64, shape (n,)
            Infinite where nothing is known.
        """
        inverse = torch.linalg.inv(self.spread)
        away = self.mean - target.to(self.mean)
        squared = torch.einsum("ni,ij,nj->n", away, inverse, away)
        unsure = torch.einsum("ij,nji->n", inverse, self.covariance)
        return torch.where(self.known, squared + unsure, torch.inf)

    def is_near(self, target: Tensor) -> Tensor:
        """Tell for which particles a conformation is near, a mask of shape (n,).

        It lies in the 95 % region of the posterior, widened by half of the spread of
        all particles.
        """
        known = self.known
        near = torch.zeros_like(known)
        wide = self.covariance[known] + _WIDENED**2 * self.spread
        away = (self.mean[known] - target.to(self.mean))[..., None]
        squared = (away * torch.linalg.solve(wide, away)).sum((1, 2))
        near[known] = squared <= float(stats.chi2.ppf(_NEAR_MASS, self.dimensions))
        return near


def bandwidths(squared_distance: Tensor, half: Tensor) -> Tensor:
    """Return the squared radii of nested kernels, from the narrowest to all particles.

    Each holds about twice as many particles as the one within it, and so many of either
    half.

    Parameters
    ----------
    squared_distance : Tensor of float64, shape (n,)
        Infinite for particles that belong to none.
    half : Tensor of int64, shape (n,)
        0 or 1; both have particles at a finite distance.

    Returns
    -------
    Tensor of float64, shape (kernels,)
    """
    parts = [squared_distance[half == number] for number in (0, 1)]
    ordered = [part[part.isfinite()].sort().values for part in parts]
    most = max(map(len, ordered))
    least = min(most, max(NARROWEST / 2, most * _NARROWEST_SHARE))
    count = 1 + math.floor(math.log(most / least, _RATIO) + 1e-9)
    steps = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    counts = least * (most / least) ** steps if count > 1 else torch.tensor([most])
    radii = [
        max(float(part[min(len(part), round(wanted)) - 1]) for part in ordered)
        for wanted in counts.tolist()
    ]
    return torch.tensor(radii, dtype=torch.float64)


def narrowest_kernels(squared_distance: Tensor, squared_radius: Tensor) -> Tensor:
    """Return the narrowest kernel that each particle is in, int64, shape (n,).

    The sums of a kernel are those of all particles up to its number. Particles beyond
    the widest one have the number of kernels.

    Parameters
    ----------
    squared_distance : Tensor, shape (n,)
    squared_radius : Tensor, shape (kernels,)
        Ascending.
    """
    return torch.bucketize(squared_distance, squared_radius)


def effective_number(kernel: Tensor, chosen: Tensor, last_shell: int) -> float:
    """Return how many equally weighted particles a map is as good as.

    A particle's weight is the share of the Fourier voxels that it adds to;
    ``(sum w)^2 / sum w^2`` (Kish).

    Parameters
    ----------
    kernel : Tensor of int64, shape (n,)
        The narrowest one that each particle is in.
    chosen : Tensor of int64, shape (shells,)
        The kernel of each shell.
    last_shell : int
        To which the map is of interest.
    """
    shells = chosen[1 : last_shell + 1]
    voxels = torch.arange(1, len(shells) + 1, dtype=torch.float64) ** 2
    share = torch.zeros(int(chosen.max()) + 1, dtype=torch.float64)
    share.index_add_(0, shells, voxels / voxels.sum())
    # A particle adds to every shell whose kernel is as wide as its own, or wider.
    wide = share.flip(0).cumsum(0).flip(0)
    weight = torch.nn.functional.pad(wide, (0, 1))[kernel.clamp(max=len(wide))]
    return float(weight.sum() ** 2 / weight.square().sum())


def voxel_shells(sums: SliceAccumulator) -> Tensor:
    """Return the shell of every voxel of sums, int16, shape (2c + 1, 2c + 1, c + 2).

    The last one, ``radius + 1``, holds all that lies beyond.
    """
    planes, _, width = sums.sums.shape[:3]
    across = np.arange(planes) - float(sums.centre)
    plane = across[:, None] ** 2 + np.arange(width) ** 2
    shells = np.empty((planes, planes, width), dtype=np.int16)
    for number, z in enumerate(across):
        distance = np.sqrt(plane + z**2) / sums.padding
        shells[number] = np.minimum(np.rint(distance), sums.radius + 1)
    return torch.from_numpy(shells)


def explained_power(
    halves: tuple[FourierVolume, FourierVolume],
    sums: tuple[SliceAccumulator, SliceAccumulator],
    shells: Tensor,
) -> Tensor:
    """Return how much of the power of images a map would explain, by shell.

    With sums B and weights W of the images, a map V explains ``2 Re sum conj(V) B -
    sum W |V|^2`` of their squared residual, and with the best factor of its shell (a
    Wiener filter) ``(Re sum conj(V) B)^2 / sum W |V|^2``. In the numerator the map of
    each half meets the images of the other, which are not in it; in the denominator
    stands the mean of both, whose noise is that of the map that is made in the end.

    Parameters
    ----------
    halves : tuple of two FourierVolume
        Of the halves' maps.
    sums : tuple of two SliceAccumulator
        Of the images of both halves that are to be explained, on the same grid.
    shells : Tensor of int16
        From :func:`voxel_shells`.

    Returns
    -------
    Tensor of float64, shape (radius + 2,)
        0 where halves contradict each other.
    """
    count = sums[0].radius + 2
    covariance, power = np.zeros(count), np.zeros(count)
    planes = *(half.values for half in halves), *(half.sums for half in sums), shells
    # Plane by plane: in double precision a whole grid would be larger than the sums.
    for first, second, images1, images2, shell in zip(*planes, strict=True):
        one, two = first.double(), second.double()
        crossed = (one * images2[..., :2] + two * images1[..., :2]).sum(-1)
        mean = ((one + two) / 2).square().sum(-1)
        weighted = mean * (images1[..., 2].double() + images2[..., 2])
        place = shell.flatten().numpy()
        covariance += np.bincount(place, crossed.flatten().numpy(), minlength=count)
        power += np.bincount(place, weighted.flatten().numpy(), minlength=count)
    found = np.maximum(covariance, 0) ** 2 / np.where(power > 0, power, np.inf)
    return torch.from_numpy(found)
