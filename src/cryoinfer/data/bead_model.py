"""Pseudo-atoms from a map, where there is no atomic model: nodes of an elastic network.

The softest motions of a molecule are those of its shape: a network of beads that are
spread evenly over its mass has nearly the same (Ming et al., PNAS 99, 8620, 2002).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel

_POINTS = 200  # for each bead, that its place is the mean of
_LEVEL = 0.3  # of the highest density but for one voxel in a thousand
_APART = 10
"""Numbers of residues between two beads, which are no neighbours along a chain."""


@dataclass(frozen=True)
class BeadModel:
    """Pseudo-atoms, and what of the map they stand for.

    Attributes
    ----------
    model : AtomicModel
        Alpha carbons of unknown residues, in angstrom from the first voxel.
    level : float
        Density above which the map was believed.
    volume_angstrom3 : float
        Above it.
    spread_angstrom : float
        Of the mass about its beads, root mean square along an axis: half the resolution
        that they are good for, or so.
    """

    model: AtomicModel
    level: float
    volume_angstrom3: float
    spread_angstrom: float


def beads_of_map(
    density: Tensor,
    pixel_size_angstrom: float,
    count: int,
    level: float | None,
    generator: torch.Generator,
) -> BeadModel:
    """Spread pseudo-atoms over the mass of a map.

    By k-means of points that are drawn from the density: every bead lies in the middle
    of the mass that is nearest to it.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
        Axes (z, y, x), the molecule bright.
    pixel_size_angstrom : float
    count : int
        Of beads.
    level : float, optional
        Density below which there is none of the molecule, at least 0; by default three
        tenths of what one voxel in a thousand is above.
    generator : torch.Generator

    Raises
    ------
    InputError
        If there are fewer voxels above the level than beads.
    """
    values = density.double().flatten()
    if level is None:
        few = max(1, len(values) // 1000)
        level = _LEVEL * float(values.topk(few).values[-1])
    level = max(level, 0.0)
    inside = torch.nonzero(values > level).squeeze(1)
    if len(inside) < count:
        raise InputError(
            f"{len(inside)} voxels of the map are above {level:.3g}, expected more "
            f"than beads ({count}): lower the level (--level), or ask for "
            "fewer (--count)"
        )
    share = values[inside].numpy()
    random = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    drawn = random.choice(inside.numpy(), _POINTS * count, p=share / share.sum())
    n = density.shape[-1]
    place = np.stack(np.unravel_index(drawn, (n, n, n))[::-1], 1)
    points = (place + random.random(place.shape) - 0.5) * pixel_size_angstrom
    centres, nearest = kmeans2(points, count, minit="++", seed=0)
    apart = points - centres[nearest]
    order = _tour(centres)
    centres, nearest = centres[order], np.argsort(order)[nearest]
    variance = np.bincount(nearest, (apart**2).mean(1), count) / np.maximum(
        np.bincount(nearest, minlength=count), 1
    )
    model = AtomicModel(
        coordinates_angstrom=centres,
        elements=("C",) * count,
        atom_names=("CA",) * count,
        residue_names=("UNK",) * count,
        chain_names=("A",) * count,
        residue_numbers=tuple(range(1, 1 + _APART * count, _APART)),
        insertion_codes=("",) * count,
        b_factors_angstrom2=8 * math.pi**2 * variance,
        residue_index=np.arange(count),
    )
    return BeadModel(
        model,
        level,
        len(inside) * pixel_size_angstrom**3,
        float(np.sqrt((apart**2).mean())),
    )


def _tour(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return an order in which each place is near the one before it.

    From the outermost to the nearest that is left, and so on: what draws a chain then
    draws a thread through the mass.
    """
    away = np.linalg.norm(places - places.mean(0), axis=1)
    order = [int(away.argmax())]
    left = np.ones(len(places), dtype=bool)
    for _ in range(len(places) - 1):
        left[order[-1]] = False
        distance = np.linalg.norm(places - places[order[-1]], axis=1)
        order.append(int(np.where(left, distance, np.inf).argmin()))
    return np.array(order, dtype=np.int64)
