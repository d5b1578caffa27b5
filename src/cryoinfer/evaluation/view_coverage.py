"""Which directions of Fourier space the views of a set measure."""

import math

import torch
from torch import Tensor

_PROBES = 400


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
    index = torch.arange(_PROBES, dtype=torch.float64)
    height = (index + 0.5) / _PROBES
    turn = index * math.pi * (3 - math.sqrt(5))
    radius = (1 - height**2).sqrt()
    probe = torch.stack([radius * turn.cos(), radius * turn.sin(), height], dim=-1)
    # Planes within 5 degrees; wider for few particles, so that 50 are expected.
    near = min(0.5, max(math.sin(math.radians(5)), 50 / len(directions)))
    hits = (directions.double() @ probe.mT).abs() < near
    return hits.double().mean(0) / near
