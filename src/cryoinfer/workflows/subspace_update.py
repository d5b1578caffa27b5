"""The M-step of a linear subspace: mean and principal volumes, solved together.

The contrast c of a particle, which ice and dose change, multiplies its whole image:
``c (mean + U z)``. With ``c = 1 + s b`` and ``z' = c z`` that is
``mean + b (s mean) + U z'``: linear in (b, z'), with a first component that is the mean
itself, of a standard deviation s that is measured. Inference then needs nothing new,
and here an image counts with the shares (c, z') of the maps.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.reconstruction.backproject import signal_to_noise
from cryoinfer.reconstruction.coupled import CoupledSlices, CoupledSums, solve_coupled
from cryoinfer.records import Latents
from cryoinfer.workflows.particle_pass import InferredBatch
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.structure_update import padding_at

_LEAST_SNR = 0.03
"""Of a component in a shell where the halves do not agree: it may still grow."""

_LEAST_CONTRAST_SD = 0.01
"""It is measured in units of itself, and could not rise again from nothing."""


@dataclass(frozen=True)
class SubspaceSums:
    """Sums of both half-sets; an :class:`Accumulator`.

    Attributes
    ----------
    first, second : CoupledSums
    moments : Tensor of float64, shape (1 + q, 1 + q)
        Sum over particles of the second moments of (1, z); on the CPU.
    contrast_sd : float
        Spread of the contrast, by which the first number of a conformation is
        multiplied; 0 where no contrast is modelled, and z is all of it.
    contrast_moments : Tensor of float64, shape (4,)
        Sums that the spread is measured by; on the CPU.
    """

    first: CoupledSums
    second: CoupledSums
    moments: Tensor
    contrast_sd: float
    contrast_moments: Tensor

    @classmethod
    def empty(
        cls,
        components: int,
        box: int,
        radius: int,
        device: torch.device | str = "cpu",
        contrast_sd: float = 0.0,
    ) -> Self:
        """Return the sums of no particle, on the device of the images to come."""
        maps = 1 + components
        first, second = (
            CoupledSums.empty(maps, box, radius, padding_at(radius), device)
            for _ in range(2)
        )
        moments = torch.zeros(maps, maps, dtype=torch.float64)
        nothing = torch.zeros(4, dtype=torch.float64)
        return cls(first, second, moments, contrast_sd, nothing)

    def add(self, one: InferredBatch[SubspaceProjector]) -> None:
        """Insert images at their best modes."""
        posterior = one.placed
        known = posterior.mode().conformation
        mean = torch.cat([known.new_ones(len(known), 1), known], 1)
        second = mean[:, :, None] * mean[:, None]
        second[:, 1:, 1:] += posterior.covariances[:, 0, 6:, 6:]
        moments = second.double().sum(0)
        if mean.shape[1] > len(self.moments):  # with a contrast
            self._measure_contrast(posterior)
            alone = _shares_of_maps(len(self.moments), 0.0).to(moments)
            moments = alone @ moments @ alone.T
            shares = _shares_of_maps(len(self.moments), self.contrast_sd).to(mean)
            mean, second = mean @ shares.T, shares @ second @ shares.T
        self.moments.add_(moments.to(self.moments))
        sums = self.second if one.half else self.first
        insert_shares(sums, one.images, posterior.mode(), mean, second)

    def _measure_contrast(self, posterior: ParticlePosterior) -> None:
        mean = posterior.mode().conformation[:, 0]
        variance = posterior.covariances[:, 0, 6, 6]
        told = 1.0 - variance
        square = mean.square() - variance * told
        found = torch.stack([mean, told, square, told.square()]).double().sum(1)
        self.contrast_moments.add_(found.to(self.contrast_moments))

    @property
    def tensors(self) -> list[Tensor]:
        """The sums."""
        return [
            *self.first.tensors,
            *self.second.tensors,
            self.moments,
            self.contrast_moments,
        ]

    def measured_contrast(self) -> tuple[float, float]:
        """Return mean and standard deviation of the contrast, by moments.

        With the posterior N(m, v) of b before a standard normal, the image alone says
        ``m / (1 - v)`` with the variance ``v / (1 - v)``: these are averaged with
        weights ``1 - v``, squares less variances with the squares of these.
        """
        first, told, second, squares = self.contrast_moments.tolist()
        if not squares > 0:  # not modelled, or no image says anything
            return 1.0, self.contrast_sd
        mean = first / told
        variance = max(second / squares - mean**2, 0.0)
        spread = self.contrast_sd * variance**0.5
        return 1.0 + self.contrast_sd * mean, max(spread, _LEAST_CONTRAST_SD)


def _shares_of_maps(maps: int, contrast_sd: float) -> Tensor:
    """Return what turns (1, b, z) into (c, z), shape (maps, maps + 1)."""
    found = torch.zeros(maps, maps + 1, dtype=torch.float64)
    found[0, 0], found[0, 1] = 1.0, contrast_sd
    found[1:, 2:] = torch.eye(maps - 1)
    return found


def insert_shares(
    sums: CoupledSums,
    images: WhitenedImages,
    at: Latents,
    mean: Tensor,
    second: Tensor,
) -> None:
    """Insert images that show several maps, each with a share that is uncertain.

    Parameters
    ----------
    sums : CoupledSums
        Of k maps.
    images : WhitenedImages
        Of n particles, to the radius of the sums or farther.
    at : Latents
        Their poses.
    mean : Tensor, shape (n, k)
        Of the shares.
    second : Tensor, shape (n, k, k)
        Their second moments.
    """
    images = images.prefix(sums.radius)
    images = images.at_defocus_offset(at.defocus_offset_angstrom)
    seen = images.moved_back(at.pose.shift_angstrom)
    slices = CoupledSlices(
        at.pose.rotation,
        images.disc,
        seen * images.ctf,
        images.ctf.square(),
        mean,
        second,
    )
    sums.insert(slices, images.scale)


@dataclass(frozen=True)
class Subspace:
    """A mean map and principal volumes.

    Attributes
    ----------
    maps : Tensor, shape (1 + q, m, m, m)
        The mean, then the components: their z has a standard deviation of one.
    fsc : Tensor, shape (1 + q, shells)
        Between the half-sets, given the z that they share.
    contrast_sd : float
        Spread of the contrast of particles; 0 where it is not modelled.
    """

    maps: Tensor
    fsc: Tensor
    contrast_sd: float = 0.0

    def first(self, count: int) -> Self:
        """Return the mean with its first components."""
        return replace(self, maps=self.maps[: 1 + count], fsc=self.fsc[: 1 + count])

    @property
    def relative_sizes(self) -> Tensor:
        """By how much each component changes the map, over the largest, (q,)."""
        size = self.maps[1:].double().flatten(1).norm(dim=1)
        return size / size.max()

    def projector(
        self, radius: int, device: torch.device | str = "cpu"
    ) -> SubspaceProjector:
        """Return the forward model on a device, to a Fourier radius.

        The first number of its conformations is that of the contrast, where that is
        modelled.
        """
        maps = list(self.maps.to(device))
        if self.contrast_sd:
            maps.insert(1, self.contrast_sd * maps[0])
        return SubspaceProjector.of_maps(maps, radius, padding_at(radius))


def solve_subspace(
    problem: Problem, sums: SubspaceSums, mask: Tensor, snr: float | None
) -> Subspace:
    """Return the subspace of least squares with a Wiener filter, masked.

    Parameters
    ----------
    problem : Problem
    sums : SubspaceSums
    mask : Tensor, shape (1 + q, m, m, m)
        Of the mean and the components.
    snr : float or None
        Signal over noise of components in every shell; None takes it from the
        correlation of the half-sets.
    """
    solved = solve_masked(problem, (sums.first, sums.second), mask, snr)
    maps = solved.maps
    # What z turned out to be: its mean goes to the map, its spread to the components
    # (parameter expansion: Liu, Rubin and Wu, Biometrika 85, 755, 1998).
    n = sums.moments[0, 0]
    mean = sums.moments[0, 1:] / n
    spread = sums.moments[1:, 1:] / n - mean[:, None] * mean
    root = torch.linalg.cholesky(spread).to(maps)
    components = torch.einsum("kzyx,kl->lzyx", maps[1:], root)
    middle = maps[0] + torch.einsum("k,kzyx->zyx", mean.to(maps), maps[1:])
    # So does the mean of the contrast, which a filtered map would leave above 1.
    strength, spread_of_contrast = sums.measured_contrast()
    middle = strength * middle
    spread_of_contrast /= strength
    if sums.contrast_sd:
        components, more = _without_mean(components, middle)
        spread_of_contrast = (spread_of_contrast**2 + more) ** 0.5
    maps = torch.cat([middle[None], components])
    return Subspace(maps, solved.fsc, spread_of_contrast)


def _without_mean(components: Tensor, mean: Tensor) -> tuple[Tensor, float]:
    """Return components without their part along the mean, and its variance.

    A component along the mean is a contrast, and images cannot tell whose it is: all of
    it counts as the contrast's.
    """
    flat, along = components.double().flatten(1), mean.double().flatten()
    share = flat @ along / along.square().sum()
    free = components - share.to(components)[:, None, None, None] * mean
    return free, float(share.square().sum())


@dataclass(frozen=True)
class SolvedMaps:
    """Maps that share their images, as they come out of their sums.

    Attributes
    ----------
    maps : Tensor, shape (k, m, m, m)
        With a Wiener filter.
    halves : tuple of two Tensor, each of shape (k, m, m, m)
        Of the half-sets, without.
    fsc : Tensor, shape (k, shells)
        Between these.
    """

    maps: Tensor
    halves: tuple[Tensor, Tensor]
    fsc: Tensor


def solve_masked(
    problem: Problem,
    sums: tuple[CoupledSums, CoupledSums],
    mask: Tensor,
    snr: float | None,
) -> SolvedMaps:
    """Return maps of least squares; parameters as of :func:`solve_subspace`."""
    box, map_box = problem.grid.box, mask.shape[-1]
    maps, shells = len(sums[0].own), sums[0].radius + 1
    there = [one.to("cpu") for one in sums]
    flat = torch.full((maps, shells), 1e3)
    first, second = (
        torch.stack(solve_coupled(one, flat, box, map_box)) * mask for one in there
    )
    fsc = torch.stack(
        [
            fourier_shell_correlation(a, b).float()[:shells]
            for a, b in zip(first, second, strict=True)
        ]
    )
    ratio = torch.stack([signal_to_noise(one, joined=True) for one in fsc])
    if snr is not None:
        ratio[1:] = snr
    ratio[1:] = ratio[1:].clamp(min=_LEAST_SNR)
    both = there[0].plus(there[1])
    joined = torch.stack(solve_coupled(both, ratio, box, map_box)) * mask
    return SolvedMaps(joined, (first, second), fsc)
