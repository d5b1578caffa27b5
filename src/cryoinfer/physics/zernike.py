"""Zernike polynomials of spatial frequencies, as RELION 3.1 counts and scales them.

They are polynomials of the frequency in 1/angstrom, not of a unit disc
(``src/jaz/math/Zernike.cpp``)::

    Z(m, n) = R(|m|, n; |s|) cos(m alpha)     for m >= 0
    Z(m, n) = R(|m|, n; |s|) sin(|m| alpha)   for m < 0

    odd:  n = 1, 3, 5, ..., with m = -n, -n + 2, ..., n   (y, x, then sin 3 alpha, ...)
    even: n = 0, 2, 4, ..., with m = -n, -n + 2, ..., n
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


def odd_order(index: int) -> tuple[int, int]:
    """Return m and n of an odd Zernike polynomial by its place in ``rlnOddZernike``."""
    row = (math.isqrt(1 + 4 * index) - 1) // 2
    n = 2 * row + 1
    return 2 * (index - row * row - row) - n, n


def even_order(index: int) -> tuple[int, int]:
    """Return m and n of an even one by its place in ``rlnEvenZernike``."""
    row = math.isqrt(index)
    return 2 * (index - row * row - row), 2 * row


def zernike(m: int, n: int, x: Tensor, y: Tensor) -> Tensor:
    """Evaluate a Zernike polynomial of frequencies, beyond the unit disc as well.

    Parameters
    ----------
    m, n : int
        Of which ``n - |m|`` is even and not negative.
    x, y : Tensor, shape (...)
        In 1/angstrom, of any floating dtype.

    Returns
    -------
    Tensor, shape (...)
    """
    squared = x * x + y * y
    radial = torch.zeros_like(squared)
    for coefficient in _radial(abs(m), n):  # Horner's rule, from the highest power
        radial = radial * squared + coefficient
    # |s|^m cos(m alpha) and |s|^m sin(m alpha) are those of the power of x + i y.
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    for _ in range(abs(m)):
        cosine, sine = cosine * x - sine * y, cosine * y + sine * x
    return radial * (sine if m < 0 else cosine)


@lru_cache
def _radial(m: int, n: int) -> tuple[float, ...]:
    """Return what the powers (n - m) / 2, ..., 0 of |s|^2 are multiplied by."""
    factorial = math.factorial
    return tuple(
        (-1) ** k
        * factorial(n - k)
        / (factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k))
        for k in range((n - m) // 2 + 1)
    )


def odd_polynomials(coefficients: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Add up odd polynomials.

    Parameters
    ----------
    coefficients : Tensor, shape (n, a)
        In RELION's order.
    x, y : Tensor, shape (p,) or (n, p)
        In 1/angstrom.

    Returns
    -------
    Tensor, shape (n, p), or (1, p) where all n share their coefficients
    """
    return _added(coefficients, [odd_order(i) for i in _places(coefficients)], x, y)


def even_polynomials(coefficients: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Add up even polynomials as :func:`odd_polynomials` does odd ones."""
    return _added(coefficients, [even_order(i) for i in _places(coefficients)], x, y)


def _places(coefficients: Tensor) -> range:
    return range(coefficients.shape[1])


def _added(
    coefficients: Tensor, orders: list[tuple[int, int]], x: Tensor, y: Tensor
) -> Tensor:
    """Return sums of polynomials; of one optics group they are computed once."""
    own = coefficients.to(x)
    if not own.requires_grad and bool((own == own[:1]).all()):
        own = own[:1]
    total = own.new_zeros(len(own), 1) * x
    for one, (m, n) in zip(own.unbind(1), orders, strict=True):
        total = total + one[:, None] * zernike(m, n, x, y)
    return total
