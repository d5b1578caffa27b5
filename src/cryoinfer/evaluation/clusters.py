"""Conformations that stand for those of many particles."""

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

_CENTRES = 5
_STARTS = 10


def cluster_centres(points: Tensor, most: int = _CENTRES) -> Tensor:
    """Return conformations at the centres of clusters, largest first.

    Parameters
    ----------
    points : Tensor, shape (n, c)
        Of n particles: amplitudes along c modes, or z.
    most : int
        How many clusters there are at most.

    Returns
    -------
    Tensor, shape (m, c)
        Of the clusters (k-means), none of them empty.
    """
    count = min(most, len(points))
    centres, label = kmeans2(points.numpy(), count, seed=0, minit="++")
    size = np.bincount(label, minlength=count)
    order = [one for one in np.argsort(-size).tolist() if size[one]]
    return torch.from_numpy(centres[order])


def cluster_labels(z: Tensor, count: int) -> Tensor:
    """Return the clusters of particles, of k-means with the least sum of squares.

    Parameters
    ----------
    z : Tensor, shape (n, q)
        Not scaled: a coordinate that spreads more counts more.
    count : int
        Clusters.

    Returns
    -------
    Tensor of int64, shape (n,)
        From 0; the best of ten starts (k-means++ from seeds 0 to 9).
    """
    points = np.asarray(z.detach().double().numpy())
    count = min(count, len(np.unique(points, axis=0)))
    best, least = np.zeros(len(points), dtype=np.int64), np.inf
    for seed in range(_STARTS):
        with warnings.catch_warnings():
            # That a cluster is empty; another start is better then.
            warnings.simplefilter("ignore", UserWarning)
            centre, label = kmeans2(points, count, seed=seed, minit="++")
        squares = float(((points - centre[label]) ** 2).sum())
        if squares < least:
            best, least = label, squares
    return torch.from_numpy(np.asarray(best)).long()
