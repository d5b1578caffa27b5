"""Conformations to look at: along an axis, between two, or of clusters."""

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.clusters import cluster_centres
from cryoinfer.reconstruction.kernel_regression import ConformationPosterior

_TAIL = 0.05
"""Of the particles beyond either end of an axis: the ends have their share of them."""


def along_axis(posterior: ConformationPosterior, axis: int, count: int) -> Tensor:
    """Return conformations along an axis of z, from 5 to 95 % of the particles.

    Parameters
    ----------
    posterior : ConformationPosterior
        Of some particles, all known.
    axis : int
        From 1; on the others all have the particles' median.
    count : int
        1 or more, equally spaced; one lies in the middle.

    Returns
    -------
    Tensor of float64, shape (count, q)

    Raises
    ------
    InputError
        If there is no such axis.
    """
    if not 1 <= axis <= posterior.dimensions:
        axes = f"1 to {posterior.dimensions}" if posterior.dimensions > 1 else "1"
        raise InputError(f"expected an axis of z, {axes}, found {axis}")
    targets = posterior.mean.median(0).values.repeat(count, 1)
    ends = torch.tensor([_TAIL, 1 - _TAIL], dtype=torch.float64)
    low, high = posterior.mean[:, axis - 1].quantile(ends)
    targets[:, axis - 1] = _between(low, high, count)
    return targets


def along_path(first: Tensor, last: Tensor, count: int) -> Tensor:
    """Return conformations on the straight line between two, ends included.

    Parameters
    ----------
    first, last : Tensor, shape (q,)
    count : int
        1 or more; one lies in the middle.

    Returns
    -------
    Tensor of float64, shape (count, q)

    Raises
    ------
    InputError
        If the ends have not the same number of dimensions.
    """
    if len(first) != len(last):
        raise InputError(
            f"expected two z of as many numbers, found {len(first)} and {len(last)}"
        )
    return _between(first.double(), last.double(), count)


def cluster_targets(posterior: ConformationPosterior, count: int) -> Tensor:
    """Return the centres of clusters of particles (k-means), largest first.

    Parameters
    ----------
    posterior : ConformationPosterior
        Of some particles, all known.
    count : int
        Of clusters; fewer if some stay empty.

    Returns
    -------
    Tensor of float64, shape (at most count, q)
    """
    return cluster_centres(posterior.mean, count).double()


def _between(first: Tensor, last: Tensor, count: int) -> Tensor:
    steps = torch.linspace(0.0, 1.0, count + 2 if count == 1 else count).double()
    steps = steps[1:-1] if count == 1 else steps
    return torch.stack([first + step * (last - first) for step in steps])
