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
    accumulator: SliceAccumulator, snr: Tensor | None, box: int, map_box: int
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

    Returns
    -------
    Tensor of float32, shape (map_box, map_box, map_box)
        Scaled so that ``FourierVolume.from_map`` reads the images' coefficients.
    """
    sums = accumulator.sums.numpy()
    mean_weight = shell_sums(accumulator).mean_weight
    floor = _EMPTY * mean_weight
    if snr is not None:
        shells = len(floor)
        known = torch.nn.functional.pad(snr, (0, max(0, shells - len(snr))), value=1e-3)
        floor = torch.maximum(floor, mean_weight / known[:shells])
    floor = floor.clamp(min=torch.finfo(torch.float32).tiny)
    fine = _fine_box(accumulator.padding, box, map_box)
    reach = min(accumulator.centre, fine // 2 - 1)
    values = torch.empty(2 * reach + 1, 2 * reach + 1, reach + 1, 2)
    limit = accumulator.radius + 0.5
    divide_kernel.divide(
        sums, accumulator.padding, floor.numpy(), limit, values.numpy()
    )
    density = oversampled_inverse(torch.view_as_complex(values), fine, map_box)
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


def _fine_box(padding: float, box: int, map_box: int) -> int:
    """Return the size of the padded map: the same frequencies on coarser voxels."""
    padded = padded_box(box, padding)
    if map_box * padded % (2 * box):
        raise ValueError(
            f"map_box must keep {padded}/{box} of it an even integer, got {map_box}"
        )
    return 2 * round(map_box * padded / box / 2)
