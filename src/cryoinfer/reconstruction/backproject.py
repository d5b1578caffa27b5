"""The closed-form map: sums of inserted slices, divided.

With images whitened by the noise, the map of least squares plus a Gaussian prior
of variance tau^2 in each shell is ``sum(C y) / (sum(C^2) + 1 / tau^2)``
(Scheres, J. Mol. Biol. 415, 406, 2012, equation 11). tau^2 comes from the
correlation of two independent halves, so no strength has to be chosen.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.fourier.oversampled import oversampled_inverse
from cryoinfer.fourier.slices import SliceAccumulator, kernel_falloff, padded_box
from cryoinfer.operations import Operation
from cryoinfer.reconstruction import divide_kernel

# Of the mean weight of a shell: below it a voxel was seen by next to nothing.
_EMPTY = 1e-3


def signal_to_noise(fsc: Tensor, joined: bool) -> Tensor:
    """Return the signal-to-noise ratio of a map from the correlation of its halves.

    Parameters
    ----------
    fsc : Tensor, shape (shells,)
        Between the two halves.
    joined : bool
        Whether the ratio is that of both halves together, which is twice as large.
    """
    bounded = fsc.clamp(1e-3, 0.999)
    ratio = bounded / (1 - bounded)
    return 2 * ratio if joined else ratio


def solve(
    accumulator: SliceAccumulator,
    snr: Tensor | None,
    box: int,
    map_box: int,
    others: SliceAccumulator | None = None,
) -> Tensor:
    """Divide the sums and return the map.

    Parameters
    ----------
    accumulator : SliceAccumulator
        Of a map of ``box`` voxels.
    snr : Tensor, shape (shells,), or None
        Signal-to-noise ratio of the map in each shell, for the Wiener filter; None
        leaves the map unfiltered.
    box : int
        Size of the images' box in pixels.
    map_box : int
        Size of the map returned, even, covering the same volume as ``box`` with
        voxels larger by ``box / map_box``; more than twice the radius.
    others : SliceAccumulator, optional
        Of other images, to the same radius: the map is that of all. Their sums would
        take as much memory again.

    Returns
    -------
    Tensor of float32, shape (map_box, map_box, map_box)
        Scaled so that ``FourierVolume.from_map`` reads the images' coefficients.
    """
    mean_weight = shell_sums(accumulator).mean_weight
    if others is not None:
        mean_weight = mean_weight + shell_sums(others).mean_weight
    floor = _EMPTY * mean_weight
    if snr is not None:
        shells = len(floor)
        known = torch.nn.functional.pad(
            snr.to(floor), (0, max(0, shells - len(snr))), value=1e-3
        )
        floor = torch.maximum(floor, mean_weight / known[:shells])
    floor = floor.clamp(min=torch.finfo(torch.float32).tiny)
    fine = _fine_box(accumulator.padding, box, map_box)
    reach = min(accumulator.centre, fine // 2 - 1)
    values = _divide(accumulator, others, floor, reach)
    density = oversampled_inverse(values, fine, map_box)
    return density * (map_box / kernel_falloff(map_box, fine, density.device))


@dataclass(frozen=True)
class ShellSums:
    """What the voxels of each shell hold together, each of shape (radius + 2,).

    Attributes
    ----------
    mean_weight : Tensor
        Of a voxel.
    returned : Tensor
        Sum over voxels of how much of its own coefficients each gives back: the
        coefficients that the map could fit if there were nothing else in the images.
    """

    mean_weight: Tensor
    returned: Tensor


def shell_sums(accumulator: SliceAccumulator) -> ShellSums:
    """Add up the voxels of each shell |k|, rounded, from the origin on."""
    return _weigh(accumulator)


def _fine_box(padding: float, box: int, map_box: int) -> int:
    """Return the size of the padded map: the same frequencies on coarser voxels."""
    padded = padded_box(box, padding)
    if map_box * padded % (2 * box):
        raise ValueError(
            f"map_box must keep {padded}/{box} of it an even integer, got {map_box}"
        )
    return 2 * round(map_box * padded / box / 2)


def voxel_distance(accumulator: SliceAccumulator) -> Tensor:
    """Return how far each voxel is from the origin, in Fourier pixels, float64."""
    planes, _, width = accumulator.sums.shape[:3]
    across = torch.arange(planes, device=accumulator.device) - accumulator.centre
    along = torch.arange(width, device=accumulator.device)
    squared = across[:, None, None] ** 2 + across[:, None] ** 2 + along**2
    return squared.double().sqrt() / accumulator.padding


def _weigh_plain(accumulator: SliceAccumulator) -> ShellSums:
    shells = accumulator.radius + 2
    shell = voxel_distance(accumulator).round().long()
    inside = shell < shells
    # Plane by plane first: a shell is thousands of voxels.
    planes = torch.arange(len(shell), device=shell.device)[:, None, None] * shells
    place = (shell + planes)[inside]
    _, weight = accumulator.hermitian()
    share = torch.where(weight > 0, accumulator.own_weight() / weight, 0.0)

    def total(values: Tensor) -> Tensor:
        sums = values.new_zeros(len(shell) * shells)
        return sums.index_add_(0, place, values[inside]).view(-1, shells).sum(0)

    voxels = total(torch.ones_like(weight))
    return ShellSums(total(weight) / voxels.clamp(min=1), total(share))


def _weigh_compiled(accumulator: SliceAccumulator) -> ShellSums:
    shape = accumulator.sums.shape[0], accumulator.radius + 2
    weight, voxels, own = (torch.empty(shape) for _ in range(3))
    divide_kernel.weigh(
        accumulator.sums.numpy(),
        accumulator.padding,
        weight.numpy(),
        voxels.numpy(),
        own.numpy(),
    )
    return ShellSums(weight.sum(0) / voxels.sum(0).clamp(min=1), own.sum(0))


def _divide_plain(
    accumulator: SliceAccumulator,
    others: SliceAccumulator | None,
    added: Tensor,
    reach: int,
) -> Tensor:
    centre = accumulator.centre
    middle = slice(centre - reach, centre + reach + 1)
    cut = middle, middle, slice(reach + 1)
    value, weight = (part[cut] for part in accumulator.hermitian())
    if others is not None:
        more, its_weight = others.hermitian()
        value, weight = value + more[cut], weight + its_weight[cut]
    distance = voxel_distance(accumulator)[cut]
    low = distance.long().clamp(max=len(added) - 2)
    part = (distance - low).to(added)
    floor = added[low] * (1 - part) + added[low + 1] * part
    inside = distance <= accumulator.radius + 0.5
    return torch.where(inside, value / (weight + floor), 0.0)


def _divide_compiled(
    accumulator: SliceAccumulator,
    others: SliceAccumulator | None,
    added: Tensor,
    reach: int,
) -> Tensor:
    more = accumulator.sums[:0] if others is None else others.sums
    values = torch.empty(2 * reach + 1, 2 * reach + 1, reach + 1, 2)
    divide_kernel.divide(
        accumulator.sums.numpy(),
        more.numpy(),
        accumulator.padding,
        added.numpy(),
        accumulator.radius + 0.5,
        values.numpy(),
    )
    return torch.view_as_complex(values)


_weigh = Operation("weights of shells", _weigh_plain, cpu=_weigh_compiled)
_divide = Operation("division of sums", _divide_plain, cpu=_divide_compiled)
