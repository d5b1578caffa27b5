"""Conformations that stand for those of many particles."""

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

_CENTRES = 5


def cluster_centres(amplitude_angstrom: Tensor) -> Tensor:
    """Return amplitudes at the centres of clusters, largest first.

    Parameters
    ----------
    amplitude_angstrom : Tensor, shape (n, c)
        Of n particles along c modes.

    Returns
    -------
    Tensor, shape (m, c)
        Of at most five clusters (k-means), none of them empty.
    """
    points = amplitude_angstrom.numpy()
    count = min(_CENTRES, len(points))
    centres, label = kmeans2(points, count, seed=0, minit="++")
    size = np.bincount(label, minlength=count)
    order = [one for one in np.argsort(-size).tolist() if size[one]]
    return torch.from_numpy(centres[order])
