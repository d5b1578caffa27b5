"""How well coordinates of conformations tell what particles were made of.

Coordinates z have a gauge: any smooth and monotone change of one of them, and any
linear mixture of several, describes the same conformations. So what is measured allows
for such a change. What is fitted is never judged on the particles that it was fitted
to: they are dealt into two halves at random, what is fitted to one half is judged on
the other, and the other way round, so that every particle is judged once.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata
from torch import Tensor

from cryoinfer.errors import InputError

FEWEST = 4
"""Particles of a state, or in all, that halves of two can be made of."""

_Numbers = NDArray[np.float64]


def confusion_error(z: Tensor, is_second: Tensor, generator: torch.Generator) -> float:
    """Return the share of particles that a threshold puts into the wrong of two states.

    The confusion error of cryoFIRE (Levy et al. 2022) for a threshold in z. With
    several coordinates the threshold lies along Fisher's linear discriminant. Of all
    thresholds the one is taken that errs least in a half of the particles of either
    state; its errors in the other half count.

    Parameters
    ----------
    z : Tensor, shape (n, q)
    is_second : Tensor of bool, shape (n,)
        Which particles are truly of the second state.
    generator : torch.Generator
        Deals the halves.

    Returns
    -------
    float
        In [0, 1]. One state for all errs by the share of the smaller one: a larger
        error than that says that z knows nothing of the states.

    Raises
    ------
    InputError
        If a state has fewer than 4 particles.
    """
    points, second = _points(z), is_second.numpy().astype(bool)
    wrong = 0
    for fitted, judged in _halves(second.astype(np.int64), generator):
        axis = _discriminant(points[fitted], second[fitted])
        threshold = _best_threshold(points[fitted] @ axis, second[fitted])
        wrong += int(((points[judged] @ axis > threshold) != second[judged]).sum())
    return wrong / len(second)


def rank_correlation(z: Tensor, value: Tensor, generator: torch.Generator) -> float:
    """Return Spearman's correlation of z with the truth, without its sign.

    Of several coordinates the best direction is taken: that of the least-squares fit
    to the ranks of the truth in one half, judged on the other; the mean of both.

    Parameters
    ----------
    z : Tensor, shape (n, q)
    value : Tensor, shape (n,)
        The true conformation.
    generator : torch.Generator
        Deals the halves.

    Returns
    -------
    float
        In [0, 1]; about ``0.8 / sqrt(n)`` for a single z that knows nothing. Where
        particles share k values of the truth, alike many each, it is at most
        ``sqrt(1 - 1 / k**2)``: their order is not known.

    Raises
    ------
    InputError
        If there are fewer than 4 particles, or all are alike.
    """
    points, truth = _points(z), _varying(value)
    if points.shape[1] == 1:
        return abs(_spearman(points[:, 0], truth))
    found = [
        _spearman(
            points[judged] @ _direction(points[fitted], truth[fitted]), truth[judged]
        )
        for fitted, judged in _halves(np.zeros(len(truth), np.int64), generator)
    ]
    return abs(sum(found) / len(found))


def monotone_r2(z: Tensor, value: Tensor, generator: torch.Generator) -> float:
    """Return the share of the truth's variance that a monotone function of z explains.

    Isotonic regression of the truth on z, or along the direction of
    :func:`rank_correlation` of several coordinates, rising or falling as the particles
    do that it is fitted to. Between fitted points it is interpolated, beyond them
    constant.

    Parameters
    ----------
    z : Tensor, shape (n, q)
    value : Tensor, shape (n,)
        The true conformation.
    generator : torch.Generator
        Deals the halves.

    Returns
    -------
    float
        At most 1; 0 is what the mean explains, and less is worse than that.

    Raises
    ------
    InputError
        If there are fewer than 4 particles, or all are alike.
    """
    points, truth = _points(z), _varying(value)
    left = total = 0.0
    for fitted, judged in _halves(np.zeros(len(truth), np.int64), generator):
        axis = _direction(points[fitted], truth[fitted])
        monotone = _isotonic(points[fitted] @ axis, truth[fitted])
        left += float(((truth[judged] - monotone(points[judged] @ axis)) ** 2).sum())
        total += float(((truth[judged] - truth[judged].mean()) ** 2).sum())
    return 1 - left / total if total > 0 else 0.0


def _points(z: Tensor) -> _Numbers:
    return np.asarray(z.detach().double().numpy())


def _varying(value: Tensor) -> _Numbers:
    truth = np.asarray(value.detach().double().numpy())
    if len(truth) < FEWEST or np.ptp(truth) == 0:
        raise InputError(
            f"expected the conformations of {FEWEST} particles or more that are not "
            f"all alike, found {len(truth):,}"
        )
    return truth


def _halves(
    state: NDArray[np.int64], generator: torch.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield which rows to fit and which to judge, twice; a half of every state."""
    first: list[NDArray[np.int64]] = []
    second: list[NDArray[np.int64]] = []
    for one in np.unique(state):
        rows = np.flatnonzero(state == one)
        if len(rows) < FEWEST:
            raise InputError(
                f"expected {FEWEST} particles or more of every state, found one of "
                f"{len(rows)}"
            )
        rows = rows[torch.randperm(len(rows), generator=generator).numpy()]
        first.append(rows[: len(rows) // 2])
        second.append(rows[len(rows) // 2 :])
    halves = np.concatenate(first), np.concatenate(second)
    yield halves
    yield halves[::-1]


def _discriminant(points: _Numbers, second: NDArray[np.bool_]) -> _Numbers:
    """Return Fisher's direction, along which the second state is larger on average."""
    groups = points[~second], points[second]
    apart = groups[1].mean(0) - groups[0].mean(0)
    inner = np.concatenate([one - one.mean(0) for one in groups])
    return np.asarray(np.linalg.pinv(inner.T @ inner / len(inner)) @ apart)


def _best_threshold(along: _Numbers, second: NDArray[np.bool_]) -> float:
    """Return above which a particle is best taken for one of the second state."""
    order = np.argsort(along)
    ends = np.concatenate([[-np.inf], along[order], [np.inf]])
    # Wrong with the threshold below the particle of each place, or above the last.
    below = np.concatenate([[0], np.cumsum(second[order])])
    above = (~second).sum() - np.concatenate([[0], np.cumsum(~second[order])])
    wrong = np.where(ends[:-1] < ends[1:], below + above, len(second) + 1)
    place = int(wrong.argmin())
    # A mean with infinity is infinity.
    return float((ends[place] + ends[place + 1]) / 2)


def _direction(points: _Numbers, truth: _Numbers) -> _Numbers:
    """Return the direction along which z rises as the ranks of the truth do."""
    rank = rankdata(truth)
    centred = points - points.mean(0)
    if points.shape[1] == 1:
        falls = float(rankdata(points[:, 0]) @ (rank - rank.mean())) < 0
        return np.array([-1.0 if falls else 1.0])
    return np.asarray(np.linalg.lstsq(centred, rank - rank.mean(), rcond=None)[0])


def _spearman(first: _Numbers, second: _Numbers) -> float:
    """Return the correlation of ranks; 0 where all are alike."""
    ranks = [rankdata(one) - (len(one) + 1) / 2 for one in (first, second)]
    size = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float(ranks[0] @ ranks[1] / size) if size > 0 else 0.0


def _isotonic(along: _Numbers, truth: _Numbers) -> Callable[[_Numbers], _Numbers]:
    """Return the rising function that fits best by least squares."""
    place, inverse, count = np.unique(along, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, truth) / count
    fitted = isotonic_regression(mean, weights=count.astype(np.float64)).x
    return lambda where: np.interp(where, place, fitted)
