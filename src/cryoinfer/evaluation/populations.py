"""How many particles have which z: densities that blur and noise are taken out of.

What an image says of z is a likelihood, not a place: a histogram of posterior means is
not the population, whatever the number of particles. Here the density of z is the one
that makes all images likeliest (nonparametric maximum likelihood: Kiefer and Wolfowitz
1956; Laird 1978), a mixture of narrow kernels on a grid, whose weights are a convex
problem. What is finer than the particles are known comes out of it as spikes that are
chance. So it is shown smoothed, by a width that is told, and the band is that of the
smoothed density.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import ndtr

from cryoinfer.errors import InputError
from cryoinfer.evaluation.free_energy import FEWEST, bandwidth, surviving_minima

BAND = 0.9
"""Of the densities of particles drawn anew that lie inside the band, at any place."""

_ENDS = (0.5 - BAND / 2, 0.5 + BAND / 2)
_SMOOTHED = 0.7
"""Of the median width of likelihoods, by which densities are smoothed: at 0.5 bands of
90 % held 65 to 92 % of the truths, at this 78 to 92 % (40 sets each)."""

_KERNELS_A_WIDTH = 4.0  # kernels of the mixture are narrower than what is shown
_STEPS_A_KERNEL = 1.5
_MOST_STEPS = 100
_SHOWN_PLACES = 201
_RESAMPLED = 100
_BIN = 0.1  # of a likelihood's width, in which particles count as one
_MOST_BINS, _SD_CLASSES = 200, 3
_LEAST_INFORMATION = 1e-3
"""Over that of the prior: the posterior of what says nothing may be as wide."""

_FEWEST_SEEN = 5.0  # particles within a width, where a density is shown
_GAP_NATS = 0.1
_MOST_STEPS_TO_OPTIMUM = 200


@dataclass(frozen=True)
class Share:
    """How many particles are between two places along z.

    Attributes
    ----------
    low, high : float
        The places; may be infinite.
    share : float
        Of the particles.
    share_low, share_high : float
        Ends of a 90 % interval.
    standard_error : float
    """

    low: float
    high: float
    share: float
    share_low: float
    share_high: float
    standard_error: float


@dataclass(frozen=True)
class Mixture:
    """A density of z: kernels with weights, and those of particles drawn anew.

    Attributes
    ----------
    at : ndarray, shape (m,)
        Where the kernels are.
    kernel_width : float
    weight : ndarray, shape (m,)
        Of sum 1.
    again : ndarray, shape (m, b)
        Of b samples drawn anew.
    """

    at: NDArray[np.float64]
    kernel_width: float
    weight: NDArray[np.float64]
    again: NDArray[np.float64]

    def share(self, low: float, high: float) -> Share:
        """Return how many particles are between two places, with its error."""
        inside = ndtr((high - self.at) / self.kernel_width)
        inside -= ndtr((low - self.at) / self.kernel_width)
        shares = inside @ self.again
        first, last = np.quantile(shares, _ENDS).tolist()
        whole = float(inside @ self.weight)
        return Share(low, high, whole, first, last, float(shares.std()))

    def smoothed(
        self, at: NDArray[np.float64], width: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the density, smoothed, at g places: (g,), and (g, b) drawn anew."""
        shown = math.hypot(width, self.kernel_width)
        kernel = np.exp(-0.5 * ((at[:, None] - self.at) / shown) ** 2)
        kernel /= math.sqrt(2 * math.pi) * shown
        return kernel @ self.weight, kernel @ self.again


@dataclass(frozen=True)
class AxisPopulation:
    """The density of z along one axis, at g places.

    Attributes
    ----------
    at : ndarray, shape (g,)
    density, low, high : ndarray, shape (g,)
        Smoothed by ``width``, and the ends of a band that holds 90 of 100 densities of
        particles drawn anew, place by place.
    energy, energy_low, energy_high : ndarray, shape (g,)
        Minus the logarithm of the density, in kT above its least; NaN where fewer than
        five particles lie within a width.
    width : float
        Standard deviation of the Gaussian by which the density is smoothed: what is
        narrower is shown as wide as it.
    likelihood_sd : float
        How well the images tell z of a particle, without the prior (median).
    mixture : Mixture
        Before it is smoothed.
    basins : tuple of Share
        Between barriers that survive resampling, in order.
    """

    at: NDArray[np.float64]
    density: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    energy: NDArray[np.float64]
    energy_low: NDArray[np.float64]
    energy_high: NDArray[np.float64]
    width: float
    likelihood_sd: float
    mixture: Mixture
    basins: tuple[Share, ...]

    @classmethod
    def of(
        cls, mean: NDArray[np.float64], sd: NDArray[np.float64], seed: int = 0
    ) -> Self:
        """Estimate it from posteriors of z under the prior N(0, 1).

        Parameters
        ----------
        mean, sd : ndarray, shape (n,)
            Of the posteriors; the prior is divided out of them.
        seed : int
            Of the particles drawn anew.

        Raises
        ------
        InputError
            If there are fewer than ten particles, or a value is not finite.
        """
        seen = _Likelihoods.of(mean, sd)
        width = max(_SMOOTHED * seen.sd, bandwidth(seen.at))
        bins = seen.binned()
        support = _support(bins, width)
        likelihood = bins.of_kernels(support.at, support.width)
        flat = np.full(len(support.at), 1 / len(support.at))
        weight = mixture_weights(likelihood, bins.count, flat)
        again = _again(likelihood, bins.count, weight, np.random.default_rng(seed))
        mixture = Mixture(support.at, support.width, weight, again)
        reach = 3 * width
        places = (support.at[0] - reach, support.at[-1] + reach, _SHOWN_PLACES)
        return cls._shown(np.linspace(*places), mixture, width, seen)

    @classmethod
    def _shown(
        cls,
        at: NDArray[np.float64],
        mixture: Mixture,
        width: float,
        seen: "_Likelihoods",
    ) -> Self:
        """Return the density at some places, and blanks where hardly a particle is."""
        density, densities = mixture.smoothed(at, width)
        low, high = np.quantile(densities, _ENDS, axis=1)
        shown = math.hypot(width, mixture.kernel_width)
        within = len(seen.at) * math.sqrt(2 * math.pi) * shown
        blank = density * within < _FEWEST_SEEN
        least = 1 / within  # one particle within a width, for a sample with none
        energy, energies = _energy(density, least), _energy(densities, least)
        lowest = float(energy.min())
        hidden = np.where(blank, np.nan, 0.0)
        minima = surviving_minima(np.where(blank, np.inf, energy), energies)
        return cls(
            at=at,
            density=density,
            low=low,
            high=high,
            energy=energy - lowest + hidden,
            energy_low=_energy(high, least) - lowest + hidden,
            energy_high=_energy(low, least) - lowest + hidden,
            width=shown,
            likelihood_sd=seen.sd,
            mixture=mixture,
            basins=_basins(at, energy, sorted(minima), mixture),
        )


def mixture_weights(
    likelihood: NDArray[np.float64],
    count: NDArray[np.float64],
    start: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the weights of a mixture that make what was seen likeliest.

    By Wang's constrained Newton steps (J. R. Stat. Soc. B 69, 185-198, 2007): the
    log-likelihood's quadratic form is maximised over weights that are nowhere below 0.
    It is concave, and no weights gain more than the largest slope towards one
    component: it ends where that is below 0.1 nats of all particles together.

    Parameters
    ----------
    likelihood : ndarray, shape (r, m)
        Of each row in each component, in any unit of the row's own.
    count : ndarray, shape (r,)
        How many particles a row stands for.
    start : ndarray, shape (m,)
        Above 0 somewhere where each row has a likelihood.

    Returns
    -------
    ndarray, shape (m,)
        Not negative, of sum 1.
    """
    weight, total = start, float(count.sum())
    mixed = likelihood @ weight
    root = np.sqrt(count)
    for _ in range(_MOST_STEPS_TO_OPTIMUM):
        ratio = likelihood / mixed[:, None]
        slope = count @ ratio
        if slope.max() - total < _GAP_NATS:
            break
        rows = np.vstack(
            [ratio * root[:, None], np.full((1, len(weight)), math.sqrt(total))]
        )
        goal = np.append(2 * root, math.sqrt(total))
        found = nnls(rows, goal, maxiter=50 * len(weight))[0]
        towards = found / found.sum() - weight
        gain, step = float(slope @ towards), 1.0
        before = count @ np.log(mixed)
        while True:
            moved = weight + step * towards
            mixed = likelihood @ moved
            # The line search of Armijo; the direction ascends.
            if step < 1e-6 or count @ np.log(mixed) >= before + step * gain / 3:
                break
            step /= 2
        weight = moved
    return weight


@dataclass(frozen=True)
class _Likelihoods:
    """What images say of z without a prior: Gaussians of n particles."""

    at: NDArray[np.float64]
    variance: NDArray[np.float64]

    @classmethod
    def of(cls, mean: NDArray[np.float64], sd: NDArray[np.float64]) -> Self:
        """Divide the prior N(0, 1) out of posteriors."""
        if len(mean) < FEWEST:
            raise InputError(
                f"expected {FEWEST} particles or more for a population, found "
                f"{len(mean)}: infer more of them"
            )
        if not (np.isfinite(mean).all() and np.isfinite(sd).all() and (sd > 0).all()):
            raise InputError("expected finite z and widths for a population")
        information = np.maximum(1 / sd**2 - 1, _LEAST_INFORMATION)
        return cls(mean / sd**2 / information, 1 / information)

    @property
    def sd(self) -> float:
        """Median width."""
        return float(np.sqrt(np.median(self.variance)))

    def binned(self) -> "_Bins":
        """Return particles that say much the same as one row."""
        known = self.variance < np.median(self.variance) * 100
        spread = float(np.ptp(self.at[known])) or 1.0
        size = max(_BIN * self.sd, spread / _MOST_BINS)
        ranks = np.linspace(0, 1, _SD_CLASSES + 1)[1:-1]
        kind = np.searchsorted(np.quantile(self.variance, ranks), self.variance)
        key = np.floor(self.at / size) * _SD_CLASSES + kind
        _, row, count = np.unique(key, return_inverse=True, return_counts=True)
        return _Bins(
            np.bincount(row, self.at) / count,
            np.bincount(row, self.variance) / count,
            count.astype(np.float64),
        )


@dataclass(frozen=True)
class _Bins:
    """Rows that each stand for several particles."""

    at: NDArray[np.float64]
    variance: NDArray[np.float64]
    count: NDArray[np.float64]

    def of_kernels(self, at: NDArray[np.float64], width: float) -> NDArray[np.float64]:
        """Return likelihoods of Gaussian kernels, the largest of each row 1."""
        variance = (self.variance + width**2)[:, None]
        log = -0.5 * (at - self.at[:, None]) ** 2 / variance
        return np.asarray(np.exp(log - log.max(1, keepdims=True)))


@dataclass(frozen=True)
class _Support:
    """Kernels of a mixture."""

    at: NDArray[np.float64]
    width: float


def _support(bins: _Bins, width: float) -> _Support:
    """Return kernels where z may be: within four spreads of the middle, if seen."""
    n = bins.count.sum()
    # By what images tell: those that say nothing may lie anywhere.
    trust = bins.count / bins.variance
    middle = float((trust * bins.at).sum() / trust.sum())
    squares = float((trust * (bins.at - middle) ** 2).sum() / trust.sum())
    noise = float(n / trust.sum())
    spread = math.sqrt(max(squares - noise, 0.05 * noise)) + width
    low = max(float(bins.at.min()), middle - 4 * spread)
    high = min(float(bins.at.max()), middle + 4 * spread)
    kernel = width / _KERNELS_A_WIDTH
    step = max(kernel / _STEPS_A_KERNEL, (high - low) / _MOST_STEPS)
    places = np.arange(low, high + step, step)
    return _Support(places, max(kernel, _STEPS_A_KERNEL * step))


def _again(
    likelihood: NDArray[np.float64],
    count: NDArray[np.float64],
    weight: NDArray[np.float64],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Return weights for particles drawn anew, shape (m, b): a Poisson bootstrap."""
    start = 0.9 * weight + 0.1 / len(weight)
    found = np.empty((len(weight), _RESAMPLED))
    for column in range(_RESAMPLED):
        times = random.poisson(count).astype(np.float64)
        drawn = times > 0
        found[:, column] = mixture_weights(likelihood[drawn], times[drawn], start)
    return found


def _energy(density: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    return np.asarray(-np.log(np.maximum(density, least)))


def _basins(
    at: NDArray[np.float64],
    energy: NDArray[np.float64],
    minima: list[int],
    mixture: Mixture,
) -> tuple[Share, ...]:
    """Return the populations between the highest places between minima."""
    barriers = []
    for left, right in itertools.pairwise(minima):
        between = energy[left : right + 1]
        # Where nothing was seen all places are as high: the middle of them.
        highest = np.flatnonzero(between >= between.max() - 1e-9)
        barriers.append(float(at[left + int(np.median(highest))]))
    edges = [-math.inf, *barriers, math.inf]
    return tuple(mixture.share(low, high) for low, high in itertools.pairwise(edges))
