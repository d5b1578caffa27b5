"""Waves of points, tabulated axis by axis: what exact projections are made of.

A wave factorises over its axes, and only cosines and sines at non-negative frequencies
are needed for all signs of them.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cryoinfer.fourier.transform import fourier_to_image, fourier_to_map
from cryoinfer.records import Pose

_TABLE_VALUES_AT_ONCE = 2**21
"""Of the tables of a batch: what a cache can hold. Tables of more than 32 MB come as
fresh pages from the system each time, which took longer than the sums."""

_WEIGHTED_VALUES_AT_ONCE = 2**20


def frequencies(box: int, like: Tensor) -> Tensor:
    """Return the non-negative frequencies below Nyquist, in cycles per box."""
    return torch.arange((box + 1) // 2, dtype=like.dtype, device=like.device)


def cosine_sine_table(turns: Tensor, count: int) -> Tensor:
    """Tabulate the cosine and the sine of multiples of angles.

    With k = low + step * high, ``cos(k t - q)`` is a sum of two products of short
    tables; q = 0 gives the cosine and q = pi/2 the sine. This is several times
    faster than evaluating them.

    Parameters
    ----------
    turns : Tensor, shape (n, axes, a)
        Angles in units of 2 pi.
    count : int
        Number of multiples.

    Returns
    -------
    Tensor, shape (n, axes, 2, count, a)
        Of the multiples 0, 1, ... ``count - 1``: cosines, then sines.
    """
    step = math.isqrt(count - 1) + 1
    low = torch.arange(step, dtype=turns.dtype, device=turns.device)
    high = step * low[: -(-count // step)]
    quarter = turns.new_tensor([0.0, 0.25])[:, None, None, None]
    angle = turns[:, :, None, None, None]
    low_angle = 2 * torch.pi * (angle * low[:, None] - quarter)
    high_angle = 2 * torch.pi * (angle * high[:, None, None])
    table = torch.addcmul(
        torch.cos(low_angle) * torch.cos(high_angle),
        torch.sin(low_angle),
        torch.sin(high_angle),
        value=-1,
    )
    return table.flatten(3, 4)[:, :, :, :count]


def images_at_once(box: int, points: int) -> int:
    """Return of how many images the tables of so many points are to be in memory."""
    return max(1, _TABLE_VALUES_AT_ONCE // (2 * box * points))


def half_axis(cosine: Tensor, sine: Tensor, box: int) -> Tensor:
    """Return ``cosine - i sine`` along the last axis, up to Nyquist, which is zero."""
    half = torch.complex(cosine, -sine)
    return torch.nn.functional.pad(half, (0, box // 2 + 1 - half.shape[-1]))


def full_axis(cosine: Tensor, sine: Tensor, box: int, dim: int) -> Tensor:
    """Return ``cosine -+ i sine`` at k and -k along ``dim``, in the order of an FFT."""
    turned = 1j * sine
    count = cosine.shape[dim]
    shape = list(cosine.shape)
    shape[dim] = box - 2 * count + 1
    negative = (cosine + turned).narrow(dim, 1, count - 1).flip(dim)
    return torch.cat((cosine - turned, cosine.new_zeros(shape), negative), dim)


def turns_in_parts(
    coordinates_angstrom: Tensor, pose: Pose, box: int, pixel_size_angstrom: float
) -> Iterator[Tensor]:
    """Yield where points lie in images, some images at a time.

    Parameters
    ----------
    coordinates_angstrom : Tensor, shape (a, 3), or (n, a, 3)
    pose : Pose, of n images
    box : int
    pixel_size_angstrom : float

    Yields
    ------
    Tensor, shape (part, 2, a)
        (x, y) over the side of the image, which a wave of one cycle turns by.
    """
    side = box * pixel_size_angstrom
    rotation = pose.rotation.to(coordinates_angstrom)[:, :2]
    shift = pose.shift_angstrom.to(coordinates_angstrom)[:, :, None]
    points = coordinates_angstrom.mT / side
    at_once = images_at_once(box, points.shape[-1])
    for start in range(0, len(pose), at_once):
        part = slice(start, start + at_once)
        own = points if points.dim() == 2 else points[part]
        yield rotation[part] @ own + shift[part] / side


def products_of(y: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """Return weighted sums over points of products of tables along y and x.

    Parameters
    ----------
    y, x : Tensor, shape (n, 2 k, a)
        Cosines, then sines.
    weights : Tensor, shape (w, a), or (n, w, a)

    Returns
    -------
    Tensor, shape (n, w, 2, k, 2, k)
    """
    n, count, k = len(x), weights.shape[-2], x.shape[1] // 2
    weights = weights.expand(n, -1, -1)
    # One matrix product an image, however many sums; as many images at once as leave
    # the weighted tables in the cache.
    at_once = max(1, _WEIGHTED_VALUES_AT_ONCE // (count * x[0].numel()))
    parts = []
    for begin in range(0, n, at_once):
        rows = slice(begin, begin + at_once)
        weighted = x[rows, None] * weights[rows, :, None]
        # Faster than the transpose of it: neither factor has to be copied again.
        parts.append(weighted.flatten(1, 2) @ y[rows].mT.contiguous())
    sums = torch.cat(parts) if n else x.new_zeros(0, count * 2 * k, 2 * k)
    return sums.view(n, count, 2, k, 2, k).permute(0, 1, 4, 5, 2, 3)


def images_of(products: Tensor, box: int) -> Tensor:
    """Return images (n, box, box) of sums of products of tables.

    ``products`` is (n, 2, k, 2, k): cosine and sine along y, then along x.
    """
    half = half_axis(products[..., 0, :], products[..., 1, :], box)
    return fourier_to_image(full_axis(half[:, 0], half[:, 1], box, dim=-2), box)


def map_of(slabs: list[Tensor], box: int) -> Tensor:
    """Return the map of sums of products of tables, a slab (2, 2, k, 2, k) each z."""
    products = torch.stack(slabs, dim=1)
    half = half_axis(products[..., 0, :], products[..., 1, :], box)
    rows = full_axis(half[:, :, 0], half[:, :, 1], box, dim=-2)
    return fourier_to_map(full_axis(rows[0], rows[1], box, dim=-3), box)
