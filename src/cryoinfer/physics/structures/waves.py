"""Waves of points, tabulated axis by axis: what exact projections are made of.

A wave factorises over its axes, and only cosines and sines at non-negative frequencies
are needed for all signs of them.
"""

import math

import torch
from torch import Tensor

TABLE_VALUES_AT_ONCE = 2**21
"""Of the tables of a batch: what a cache can hold."""


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
