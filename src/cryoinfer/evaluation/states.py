"""How well classes of particles, their poses and their numbers agree with true states.

The classes of a program have no names: which of them is which state is a matching, the
one that makes most particles right. The maps of different states have no common frame
either: by how much a structure turns while it changes is a convention.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.against_truth import nearer_hand
from cryoinfer.evaluation.pose_error import PoseErrors
from cryoinfer.records import Pose

FEWEST_ALIGNED = 10
"""Particles of a state that a frame of its own is fitted to: its six numbers take up a
part of the errors of so few."""


@dataclass(frozen=True)
class ClassAgreement:
    """How classes that were found agree with true states.

    Attributes
    ----------
    accuracy : float
        Share of particles whose class is the one that is matched with their state, in
        the matching that makes it largest (the Hungarian method). A state or class
        without a partner is wrong altogether.
    adjusted_rand_index : float
        Of Hubert and Arabie (1985): of pairs of particles, how many are together, or
        apart, in both; 0 by chance, 1 if all are.
    true_shares, found_shares : Tensor of float64, shape (states,)
        Of each state, and of the class that is matched with it; what the latter lack of
        1 is in classes without a partner.
    total_variation : float
        Between the two, in [0, 1]: the share of particles that would have to change
        their class for the numbers to be right.
    """

    accuracy: float
    adjusted_rand_index: float
    true_shares: Tensor
    found_shares: Tensor
    total_variation: float


@dataclass(frozen=True)
class DensityDistance:
    """How far two densities are apart.

    Attributes
    ----------
    l1 : float
        The integral of the size of their difference, in [0, 2].
    total_variation : float
        Half of it: the most by which they differ about the share of anything.
    """

    l1: float
    total_variation: float


def class_agreement(found: Tensor, true: Tensor) -> ClassAgreement:
    """Compare classes with true states.

    Parameters
    ----------
    found, true : Tensor of any numbers, shape (n,)
        Class and state of each particle.

    Returns
    -------
    ClassAgreement
        States in the order of their numbers.

    Raises
    ------
    InputError
        If there are no particles, or the numbers differ.
    """
    if len(found) != len(true) or len(true) == 0:
        raise InputError(
            f"expected classes of {len(true):,} particles, found {len(found):,}"
        )
    table = _contingency(found, true)
    n = len(true)
    states, classes = linear_sum_assignment(table, maximize=True)
    true_shares = table.sum(1) / n
    found_shares = np.zeros(len(table))
    found_shares[states] = table.sum(0)[classes] / n
    missing = 1 - found_shares.sum()
    apart = (np.abs(true_shares - found_shares).sum() + missing) / 2
    return ClassAgreement(
        accuracy=float(table[states, classes].sum() / n),
        adjusted_rand_index=_adjusted_rand_index(table),
        true_shares=torch.from_numpy(true_shares),
        found_shares=torch.from_numpy(found_shares),
        total_variation=float(apart),
    )


def density_distance(first: Tensor, second: Tensor) -> DensityDistance:
    """Return how far two densities on one grid are apart.

    Parameters
    ----------
    first, second : Tensor of one shape
        Histograms, or densities at the points of a regular grid; each is divided by
        its sum. Histograms of n particles in m bins differ by chance, by up to about
        ``sqrt(m / n)`` in l1.

    Returns
    -------
    DensityDistance

    Raises
    ------
    InputError
        If they are on different grids, or one holds nothing.
    """
    if first.shape != second.shape:
        raise InputError(
            "expected two densities on one grid, found shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    for one in (first, second):
        if not (bool((one >= 0).all()) and 0 < float(one.sum()) < torch.inf):
            raise InputError("expected densities that are nowhere below 0 and not 0")
    shares = [one.double() / one.double().sum() for one in (first, second)]
    l1 = float((shares[0] - shares[1]).abs().sum())
    return DensityDistance(l1, l1 / 2)


def state_pose_errors(
    estimated: Pose, true: Pose, state: Tensor, symmetry: Tensor
) -> Mapping[float, PoseErrors]:
    """Return the errors of the poses of each state, in a frame of its own.

    Parameters
    ----------
    estimated, true : Pose
        Of n particles in the same order.
    state : Tensor, shape (n,)
        The true one of each particle, a number.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave every true map as it is, the identity among them.

    Returns
    -------
    mapping of float to PoseErrors
        By state, of those with at least 10 particles; of the hand with the smaller
        median error of the rotation.
    """
    errors = {}
    for one in torch.unique(state).tolist():
        chosen = torch.nonzero(state == one).squeeze(1)
        if len(chosen) >= FEWEST_ALIGNED:
            errors[one] = nearer_hand(estimated[chosen], true[chosen], symmetry)
    return errors


def _contingency(found: Tensor, true: Tensor) -> NDArray[np.int64]:
    """Return how many particles of each state (row) are in each class (column)."""
    of_state, row = np.unique(true.numpy(), return_inverse=True)
    of_class, column = np.unique(found.numpy(), return_inverse=True)
    shape = len(of_state), len(of_class)
    counts = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
    return np.asarray(counts.reshape(shape))


def _adjusted_rand_index(table: NDArray[np.int64]) -> float:
    def pairs(counts: NDArray[np.int64]) -> float:
        many = counts.astype(np.float64)
        return float((many * (many - 1) / 2).sum())

    together, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    everyone = pairs(table.sum(keepdims=True))
    chance = rows * columns / everyone if everyone else 0.0
    most = (rows + columns) / 2
    # All in one, or each alone, in both.
    return (together - chance) / (most - chance) if most != chance else 1.0
