"""Which directions of Fourier space the views of a set measure."""

import math

import torch
from torch import Tensor

_PROBES = 400
_SEEN = 0.25


def fourier_coverage(directions: Tensor) -> Tensor:
    """Return how well directions in Fourier space are measured.

    A view fills the central plane across its beam. Counted are the views whose plane
    comes near each of 400 directions, relative to what an even spread would give
    (a sampling map as in Baldwin and Lyumkis 2020, Prog. Biophys. Mol. Biol. 150,
    160-183).

    Parameters
    ----------
    directions : Tensor, shape (n, 3)
        Beams as unit vectors.

    Returns
    -------
    Tensor of float64, shape (400,)
        1 for an even spread, 0 where a direction was never measured.
    """
    # Planes within 5 degrees; wider for few particles, so that 50 are expected.
    near = min(0.5, max(math.sin(math.radians(5)), 50 / len(directions)))
    hits = (directions.double() @ _probes().mT).abs() < near
    return hits.double().mean(0) / near


def unseen_share(directions: Tensor) -> float:
    """Return the share of directions from which hardly any particle is seen.

    Counted are the views within 8 degrees of each of 400 directions, or its opposite,
    which shows the mirror image: fewer than a quarter of what an even spread gives.

    Parameters
    ----------
    directions : Tensor, shape (n, 3)
        Beams as unit vectors, symmetry mates included.
    """
    # Caps of 8 degrees; wider for few particles, so that 20 are expected.
    cap = min(0.5, max(1 - math.cos(math.radians(8)), 20 / len(directions)))
    hits = (directions.double() @ _probes().mT).abs() > 1 - cap
    return float((hits.double().mean(0) < _SEEN * cap).double().mean())


def _probes() -> Tensor:
    """Return directions spread evenly over half of the sphere, shape (400, 3)."""
    index = torch.arange(_PROBES, dtype=torch.float64)
    height = (index + 0.5) / _PROBES
    turn = index * math.pi * (3 - math.sqrt(5))
    radius = (1 - height**2).sqrt()
    return torch.stack([radius * turn.cos(), radius * turn.sin(), height], dim=-1)
