"""How much too weak the projections of a filtered map are, measured by images."""

from collections.abc import Sequence

import torch
from torch import Tensor


def add_products(sums: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Add to sums, in place, those of products over images.

    Parameters
    ----------
    sums : Tensor of float64, shape (m, p)
    pairs : sequence of m pairs of Tensor, complex, shape (b, p)
        Added are the real parts of the first times the conjugate of the second.
    """
    for total, (one, other) in zip(sums, pairs, strict=True):
        total += (one * other.conj()).real.double().sum(0)


def scale_of_filtered(cross: Tensor, power: Tensor, ring: Tensor) -> Tensor:
    """Return the least-squares factor of predictions, the same all over a ring, (p,).

    Parameters
    ----------
    cross : Tensor of float64, shape (p,)
        Real parts of images times conjugate predictions, summed over images.
    power : Tensor of float64, shape (p,)
        Squared moduli of the predictions, summed over images.
    ring : Tensor of int64, shape (p,)
        Of each coefficient.
    """
    sums = torch.zeros(2, int(ring.max()) + 1).to(power)
    sums.index_add_(1, ring, torch.stack([cross, power]))
    return (sums[0] / sums[1].clamp(min=1e-30)).clamp(min=0.0)[ring]
