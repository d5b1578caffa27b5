"""Sums, products and transforms that round alike on any number of threads.

PyTorch divides a sum of many numbers into as many parts as there are threads, and so do
libraries of matrix products with a long inner dimension. Another number of threads then
rounds otherwise, and a search that compares sums can go another way. Sums along an axis
that leave several results are not divided. Here sums are taken along pieces of one
length, and the pieces are added up.

A transform of three axes is divided too, on Intel processors; a batch of transforms of
one or two axes is divided between its members, whose bits are the same.

A product of complex numbers is two products and a sum. PyTorch fuses them in its vector
instructions and not in what is left over at the end of a thread's share.
"""

import torch
from torch import Tensor

_PIECE = 8192
"""Fewer than PyTorch divides (32,768), and long enough for vector instructions."""

_SD_OF_MAD = 1.4826  # of a Gaussian, over its median absolute deviation


def reproducible_sum(values: Tensor) -> Tensor:
    """Return the sum of all elements, of the same type, shape ().

    Up to 2^28 elements the sum of the pieces is not divided either.
    """
    flat = values.flatten()
    whole = len(flat) // _PIECE * _PIECE
    rest = flat[whole:].sum()
    if not whole:
        return rest
    return flat[:whole].unflatten(0, (-1, _PIECE)).sum(1).sum() + rest


def reproducible_mean(values: Tensor) -> Tensor:
    """Return the mean of all elements, of the same type, shape ()."""
    return reproducible_sum(values) / values.numel()


def robust_deviation(values: Tensor) -> Tensor:
    """Return the standard deviation of most elements, of the same type, shape ().

    The median absolute deviation from the median, times what makes it that of a
    Gaussian: a few far off do not move it much.
    """
    return _SD_OF_MAD * (values - values.median()).abs().median()


def complex_product(first: Tensor, second: Tensor) -> Tensor:
    """Return the products of complex numbers, every one rounded in the same way."""
    a, b, c, d = first.real, first.imag, second.real, second.imag
    return torch.complex(a * c - b * d, a * d + b * c)


def fourier_transform_3d(values: Tensor) -> Tensor:
    """Return ``torch.fft.fftn`` over the last three axes."""
    return torch.fft.fft(torch.fft.fft2(values), dim=-3)


def real_fourier_transform_3d(values: Tensor) -> Tensor:
    """Return ``torch.fft.rfftn`` over the last three axes."""
    return torch.fft.fft(torch.fft.rfft2(values), dim=-3)


def inverse_fourier_transform_3d(coefficients: Tensor) -> Tensor:
    """Return ``torch.fft.ifftn`` over the last three axes."""
    return torch.fft.ifft2(torch.fft.ifft(coefficients, dim=-3))


def inverse_real_fourier_transform_3d(coefficients: Tensor, box: int) -> Tensor:
    """Return ``torch.fft.irfftn`` over the last three axes, a cube of a given box."""
    return torch.fft.irfft2(torch.fft.ifft(coefficients, dim=-3), s=(box, box))


def inner_products(first: Tensor, second: Tensor) -> Tensor:
    """Return the sums of products of rows.

    Parameters
    ----------
    first : Tensor, shape (m, n)
    second : Tensor, shape (k, n)

    Returns
    -------
    Tensor, shape (m, k)
    """
    rows = [
        torch.stack([reproducible_sum(one * other) for other in second])
        for one in first
    ]
    return torch.stack(rows)
