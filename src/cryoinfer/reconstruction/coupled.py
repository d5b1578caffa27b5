"""Several maps that share their images, solved for together, voxel by voxel.

Images show ``sum_k a_k map_k`` with coefficients a that are known with an error. The
maps of least squares have coupled normal equations: at every voxel of Fourier space a
matrix of k by k sums of weights ``E[a_k a_l] C^2``, and k sums ``E[a_k] C y``.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import SliceAccumulator, insert_slices
from cryoinfer.reconstruction.backproject import shell_sums, solve, voxel_distance

_EMPTY = 1e-3  # of the mean weight of a shell, that a voxel has at least


@dataclass(frozen=True)
class CoupledSums:
    """Sums of slices for k maps.

    Attributes
    ----------
    own : tuple of SliceAccumulator
        Of each map, numerator and weight.
    shared : tuple of SliceAccumulator
        Weights of each pair (0, 1), (0, 2), (1, 2), (0, 3), ...; no numerators.
    """

    own: tuple[SliceAccumulator, ...]
    shared: tuple[SliceAccumulator, ...]

    @classmethod
    def empty(
        cls,
        maps: int,
        box: int,
        radius: int,
        padding: float,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Return the sums of no image, on a device."""

        def some(count: int) -> tuple[SliceAccumulator, ...]:
            return tuple(
                SliceAccumulator.empty(box, radius, padding, device)
                for _ in range(count)
            )

        return cls(some(maps), some(maps * (maps - 1) // 2))

    @property
    def radius(self) -> int:
        """Fourier radius."""
        return self.own[0].radius

    @property
    def tensors(self) -> list[Tensor]:
        """The sums."""
        return [one.sums for one in (*self.own, *self.shared)]

    def to(self, device: torch.device | str) -> Self:
        """Return the sums on a device."""
        own, shared = (
            tuple(one.to(device) for one in some) for some in (self.own, self.shared)
        )
        return type(self)(own, shared)

    def plus(self, other: Self) -> Self:
        """Return the sums of both."""

        def added(
            first: tuple[SliceAccumulator, ...], second: tuple[SliceAccumulator, ...]
        ) -> tuple[SliceAccumulator, ...]:
            pairs = zip(first, second, strict=True)
            return tuple(
                SliceAccumulator(a.sums + b.sums, a.radius, a.padding) for a, b in pairs
            )

        return type(self)(added(self.own, other.own), added(self.shared, other.shared))

    def insert(self, slices: "CoupledSlices", scale: float) -> None:
        """Add images; the scale is that of ``insert_slices``."""
        rotation, disc, weights = slices.rotation, slices.disc, slices.weights
        mean, second = slices.mean.to(weights), slices.second.to(weights)
        nothing = torch.zeros_like(slices.values)
        pair = 0
        for k, own in enumerate(self.own):
            numerator = mean[:, k, None] * slices.values
            weight = second[:, k, k, None] * weights
            insert_slices(own, rotation, disc, numerator, weight, scale)
            for other in range(k):
                weight = second[:, other, k, None] * weights
                into = self.shared[pair + other]
                insert_slices(into, rotation, disc, nothing, weight, scale)
            pair += k


@dataclass(frozen=True)
class CoupledSlices:
    """Images as they are inserted.

    Attributes
    ----------
    rotation : Tensor, shape (n, 3, 3)
    disc : FourierDisc
    values : Tensor of complex64, shape (n, p)
        CTF times image over the noise variance.
    weights : Tensor of float32, shape (n, p)
        CTF squared over the noise variance.
    mean : Tensor, shape (n, k)
        Of the coefficients of each image.
    second : Tensor, shape (n, k, k)
        Their second moments.
    """

    rotation: Tensor
    disc: FourierDisc
    values: Tensor
    weights: Tensor
    mean: Tensor
    second: Tensor


def solve_coupled(
    sums: CoupledSums, snr: Tensor, box: int, map_box: int
) -> list[Tensor]:
    """Return the maps, with a Wiener filter for each.

    Parameters
    ----------
    sums : CoupledSums
    snr : Tensor, shape (k, shells)
        Signal over noise of each map in each shell.
    box, map_box : int
        As of :func:`cryoinfer.reconstruction.backproject.solve`.

    Returns
    -------
    list of Tensor, shape (map_box, map_box, map_box)
    """
    shell = _shell(sums.own[0])
    inside = voxel_distance(sums.own[0]) <= sums.radius + 0.5
    shell = shell[inside]
    joined = [one.hermitian() for one in sums.own]
    # Weights are real: both parts of the numerators are right sides of one system.
    numerator = torch.stack(
        [torch.view_as_real(value)[inside] for value, _ in joined], -2
    )
    k = len(sums.own)
    matrix = numerator.new_zeros(len(shell), k, k)
    pair = 0
    for one, (_, weight) in enumerate(joined):
        matrix[:, one, one] = weight[inside]
        for other in range(one):
            shared = sums.shared[pair + other].hermitian()[1]
            matrix[:, one, other] = matrix[:, other, one] = shared[inside]
        pair += one
    for one, own in enumerate(sums.own):
        mean_weight = shell_sums(own).mean_weight
        ratio = torch.nn.functional.pad(
            snr[one].to(mean_weight), (0, max(0, len(mean_weight) - snr.shape[1]))
        )[: len(mean_weight)]
        floor = torch.maximum(_EMPTY * mean_weight, mean_weight / ratio.clamp(min=1e-3))
        tiny = torch.finfo(torch.float32).tiny
        matrix[:, one, one] += floor.clamp(min=tiny)[shell]
    solved = torch.linalg.solve(matrix, numerator)
    maps = []
    for one, own in enumerate(sums.own):
        whole = numerator.new_zeros(*inside.shape, 2)
        whole[inside] = solved[:, one]
        value = torch.view_as_complex(whole)
        maps.append(solve(_divided(own, value), None, box, map_box))
    return maps


def _shell(accumulator: SliceAccumulator) -> Tensor:
    shell = voxel_distance(accumulator).round().long()
    return shell.clamp(max=accumulator.radius + 1)


def _divided(own: SliceAccumulator, value: Tensor) -> SliceAccumulator:
    """Return sums whose quotient is ``value``, as one that is to be divided."""
    sums = torch.zeros_like(own.sums)
    # In the plane x = 0 both mates are there already, and would be added up again.
    half = torch.ones(value.shape[2])
    half[0] = 0.5
    sums[..., :2] = torch.view_as_real(value * half)
    sums[..., 2] = half
    return SliceAccumulator(sums, own.radius, own.padding)
