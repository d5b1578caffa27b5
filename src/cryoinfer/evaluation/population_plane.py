"""The density of two coordinates of z at once, noise and prior taken out."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cryoinfer.evaluation.populations import AxisPopulation, mixture_weights

_MOST_PARTICLES = 2000
"""That the density is found from, drawn at random: sums over pairs of kernels grow with
them, and no band is drawn."""

_LEAST_WEIGHT = 1e-3  # of a kernel along an axis, that pairs are made of
_LEAST_INFORMATION = 1e-3
_FEWEST_SEEN = 5.0
_SHOWN_PLACES = 61


@dataclass(frozen=True)
class PlanePopulation:
    """Where particles are along the first two axes.

    Attributes
    ----------
    first, second : ndarray, shape (g,)
    energy : ndarray, shape (g, g)
        Minus the logarithm of the smoothed density, by ``first`` and ``second``, in kT
        above its least; NaN where fewer than five particles lie within the widths.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    energy: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        axes: tuple[AxisPopulation, AxisPopulation],
        mean: NDArray[np.float64],
        covariance: NDArray[np.float64],
        seed: int = 0,
    ) -> Self:
        """Estimate it from posteriors under the prior N(0, 1).

        Kernels are at the pairs of places where the densities along either axis have
        theirs, as wide, and smoothed as much.

        Parameters
        ----------
        axes : tuple of two AxisPopulation
        mean, covariance : ndarray, shapes (n, 2), (n, 2, 2)
            Of the posteriors.
        seed : int
            Of which particles it is found from.
        """
        n = len(mean)
        some = np.random.default_rng(seed).permutation(n)[:_MOST_PARTICLES]
        at, variance = _likelihoods(mean[some], covariance[some])
        parts = [one.mixture for one in axes]
        kept = [np.flatnonzero(one.weight > _LEAST_WEIGHT) for one in parts]
        places = [one.at[rows] for one, rows in zip(parts, kept, strict=True)]
        start = np.outer(*(w.weight[r] for w, r in zip(parts, kept, strict=True)))
        pairs = np.stack(np.meshgrid(*places, indexing="ij"), -1).reshape(-1, 2)
        kernel = np.diag([one.kernel_width**2 for one in parts])
        inverse = np.linalg.inv(variance + kernel)
        away = pairs - at[:, None]
        log = -0.5 * np.einsum("rmi,rij,rmj->rm", away, inverse, away)
        likelihood = np.exp(log - log.max(1, keepdims=True))
        flat = np.ones_like(start) / start.size
        weight = mixture_weights(
            likelihood,
            np.ones(len(some)),
            (0.9 * start / start.sum() + 0.1 * flat).reshape(-1),
        )
        shown = [np.linspace(one.at[0], one.at[-1], _SHOWN_PLACES) for one in axes]
        bells = [
            _bells(grid, middle, one.width)
            for grid, middle, one in zip(shown, places, axes, strict=True)
        ]
        density = bells[0] @ weight.reshape(start.shape) @ bells[1].T
        within = n * 2 * math.pi * axes[0].width * axes[1].width
        blank = density * within < _FEWEST_SEEN
        energy = -np.log(np.maximum(density, 1 / within) / density.max())
        return cls(shown[0], shown[1], np.where(blank, np.nan, energy))


def _likelihoods(
    mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide the prior out: return means (n, 2) and covariances (n, 2, 2)."""
    precision = np.linalg.inv(covariance)
    size, axes = np.linalg.eigh(precision - np.eye(2))
    size = np.maximum(size, _LEAST_INFORMATION)
    variance = np.einsum("nij,nj,nkj->nik", axes, 1 / size, axes)
    return np.einsum("nij,njk,nk->ni", variance, precision, mean), variance


def _bells(
    at: NDArray[np.float64], middle: NDArray[np.float64], width: float
) -> NDArray[np.float64]:
    """Return normal densities about some places, shape (g, m)."""
    height = 1 / (width * math.sqrt(2 * math.pi))
    return np.asarray(height * np.exp(-0.5 * ((at[:, None] - middle) / width) ** 2))
