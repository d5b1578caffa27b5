"""The closed-form map: sums of inserted slices, divided.

With images whitened by the noise, the map of least squares plus a Gaussian prior
of variance tau^2 in each shell is ``sum(C y) / (sum(C^2) + 1 / tau^2)``
(Scheres, J. Mol. Biol. 415, 406, 2012, equation 11). tau^2 comes from the
correlation of two independent halves, so no strength has to be chosen.
"""

import torch
from torch import Tensor

from cryoinfer.fourier.slices import SliceAccumulator, kernel_falloff, padded_box

# Of the mean weight of a shell: below it a voxel was seen by next to nothing.
_EMPTY = 1e-3


def shell_radius(accumulator: SliceAccumulator) -> Tensor:
    """Return the distance of every voxel from the origin, in Fourier pixels."""
    centre = accumulator.centre
    device = accumulator.sums.device
    axis = torch.arange(-centre, centre + 1, device=device).float()
    along_x = torch.arange(centre + 2, device=device).float()
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + along_x**2
    return squared.sqrt_() / accumulator.padding


def shell_means(values: Tensor, radius: Tensor, count: int) -> Tensor:
    """Return the mean over shells 0 .. count - 1 of |k| rounded, shape (count,)."""
    shell = radius.round().long().flatten().clamp(max=count)
    sums = torch.zeros(count + 1, device=values.device)
    sums.index_add_(0, shell, values.flatten())
    voxels = torch.bincount(shell, minlength=count + 1)
    return (sums / voxels.clamp(min=1))[:count]


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
    numerator, weight = accumulator.hermitian()
    radius = shell_radius(accumulator)
    shells = accumulator.radius + 2
    mean_weight = shell_means(weight, radius, shells)
    floor = _EMPTY * mean_weight
    if snr is not None:
        known = torch.nn.functional.pad(snr, (0, max(0, shells - len(snr))), value=1e-3)
        floor = torch.maximum(floor, mean_weight / known[:shells])
    floor = floor.clamp(min=torch.finfo(torch.float32).tiny)
    # Linear between shells: a step would ring in real space.
    position = radius.clamp(max=shells - 1.001)
    low = position.floor().long()
    part = position - low
    regulariser = floor[low] * (1 - part) + floor[low + 1] * part
    inside = radius <= accumulator.radius + 0.5
    values = torch.where(inside, numerator / (weight + regulariser), 0)
    return _to_map(values, accumulator.padding, box, map_box)


def _to_map(values: Tensor, padding: float, box: int, map_box: int) -> Tensor:
    """Transform oversampled coefficients to real space and cut out the box."""
    padded = padded_box(box, padding)
    if map_box * padded % (2 * box):
        raise ValueError(
            f"map_box must keep {padded}/{box} of it an even integer, got {map_box}"
        )
    # The same sampling of frequencies on coarser voxels: padded / box stays exact.
    fine = 2 * round(map_box * padded / box / 2)
    centre = (values.shape[0] - 1) // 2
    reach = min(centre, fine // 2 - 1)
    full = values.new_zeros((fine, fine, fine // 2 + 1))
    target = torch.arange(-reach, reach + 1, device=values.device) % fine
    source = slice(centre - reach, centre + reach + 1)
    full[target[:, None], target[None, :], : reach + 1] = values[
        source, source, : reach + 1
    ]
    cube = torch.fft.fftshift(torch.fft.irfftn(full, s=(fine,) * 3), dim=(0, 1, 2))
    start = fine // 2 - map_box // 2
    cut = slice(start, start + map_box)
    scale = map_box
    density = cube[cut, cut, cut] * scale
    return density / kernel_falloff(map_box, fine, values.device)
