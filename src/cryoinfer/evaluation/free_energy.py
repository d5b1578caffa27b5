"""Free energy from a sample: minus the log of its density, with what is known of it.

A density that is drawn from a sample has hills that are chance. So kernels are as wide
as the sample asks for, a band says what other samples of as many would show, there is
nothing where hardly anything was seen, and only minima that resampling leaves count.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError

BAND = 0.95
"""Of the samples drawn anew that a band holds as wholes."""

FEWEST = 10
"""Values without which nothing is said."""

_FEWEST_SEEN = 5.0  # values under a kernel, where a density is shown
_STEPS_A_KERNEL = 4.0  # of the grid, which is never coarser than kernels are wide
_MOST_KERNELS, _MOST_KERNELS_IN_PLANE = 200, 50
"""Over the range of values: kernels are no narrower, however far out one value lies."""

_REACH_SDS = 3.0  # of a kernel, beyond the outermost values
_RESAMPLED = 400
_SURVIVES = 0.99  # of the samples drawn anew, in which a barrier stands
_HIGHEST_ERROR = 5.0  # in kT: a sample drawn anew may have no value at a place
_PART = 2000  # values at a time: memory does not grow with them


@dataclass(frozen=True)
class FreeEnergy:
    """Of a number that many particles have, at g places.

    Attributes
    ----------
    at : ndarray, shape (g,)
    energy, low, high : ndarray, shape (g,)
        In kT above the least of ``energy``, and the ends of a band that holds 95 of 100
        curves of samples drawn anew all along; NaN where fewer than five values lie
        under a kernel.
    log_density : float
        Natural logarithm of the density at that least energy, in 1 over the unit of
        ``at``.
    bandwidth : float
        Standard deviation of the kernels of values that are known better; those of
        others are their posteriors.
    minima : tuple of float
        Where the minima are that survive resampling, the lowest first; none if there
        are too few values.
    """

    at: NDArray[np.float64]
    energy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    log_density: float
    bandwidth: float
    minima: tuple[float, ...]

    @classmethod
    def of(
        cls, value: NDArray[np.float64], sd: NDArray[np.float64], seed: int = 0
    ) -> Self:
        """Estimate it from values and how well each of them is known.

        The density is the sum of a Gaussian a value, as wide as its posterior, or as
        the kernel of :func:`bandwidth` where that is wider.

        Parameters
        ----------
        value, sd : ndarray, shape (n,)
            Means and standard deviations of posteriors.
        seed : int
            Of the samples drawn anew.

        Raises
        ------
        InputError
            If there are fewer than ten values, or one is not finite.
        """
        _require_values(value, sd)
        narrowest = max(bandwidth(value), float(np.ptp(value)) / _MOST_KERNELS)
        width = np.maximum(sd, narrowest)
        at = _places(value, width)
        density, seen, again = _densities(value, width, at, seed)
        with np.errstate(divide="ignore"):
            energy, energies = -np.log(density), -np.log(again)
        blank = seen < _FEWEST_SEEN
        if blank.all():
            empty = np.full_like(at, np.nan)
            return cls(at, empty, empty, empty, math.nan, narrowest, ())
        least = float(energy[~blank].min())
        half = np.where(blank, np.nan, 0.0)
        half[~blank] = _half_width(energy[~blank], energies[~blank])
        return cls(
            at,
            np.where(blank, np.nan, energy - least),
            energy - least - half,
            energy - least + half,
            -least,
            narrowest,
            tuple(
                at[surviving_minima(np.where(blank, np.inf, energy), energies)].tolist()
            ),
        )


def bandwidth(value: NDArray[np.float64]) -> float:
    """Return the standard deviation of a Gaussian kernel that suits a sample.

    Sheather and Jones's direct plug-in in two stages (J. R. Stat. Soc. B 53, 683-690,
    1991; Wand and Jones, Kernel Smoothing, 1995, section 3.6): unlike a rule of thumb
    it does not take the sample for one Gaussian. Never less than a thousandth of the
    range, so that equal values have a width too.

    Parameters
    ----------
    value : ndarray, shape (n,)

    Returns
    -------
    float
        Above 0.
    """
    n = len(value)
    low, high = np.quantile(value, (0.25, 0.75))
    spread = float(min(value.std(), (high - low) / 1.349) or value.std())
    floor = max(1e-3 * float(np.ptp(value)), 1e-6 * float(np.abs(value).max()), 1e-9)
    if spread < floor:
        return floor
    # Sums over pairs, of counts in cells that are narrow beside any kernel.
    cells = int(np.clip(20 * np.ptp(value) / spread, 100, 4000))
    count, edges = np.histogram(value, cells)
    pairs = np.correlate(count, count, "full")[cells - 1 :].astype(np.float64)
    pairs[1:] *= 2
    apart = np.arange(cells) * (edges[1] - edges[0])
    root = math.sqrt(2 * math.pi)
    eighth = 105 / (32 * math.sqrt(math.pi) * spread**9)
    pilot = (30 / (root * eighth * n)) ** (1 / 9)
    z = (apart / pilot) ** 2
    normal = np.exp(-z / 2) / root
    sixth = (pairs * (z**3 - 15 * z**2 + 45 * z - 15) * normal).sum() / (
        n**2 * pilot**7
    )
    pilot = (-6 / (root * sixth * n)) ** (1 / 7) if sixth < 0 else spread
    z = (apart / pilot) ** 2
    normal = np.exp(-z / 2) / root
    fourth = (pairs * (z**2 - 6 * z + 3) * normal).sum() / (n**2 * pilot**5)
    if fourth <= 0:
        return max(0.9 * spread * n**-0.2, floor)
    return max(float((2 * math.sqrt(math.pi) * fourth * n) ** -0.2), floor)


@dataclass(frozen=True)
class FreeEnergyPlane:
    """Of two numbers that many particles have.

    Attributes
    ----------
    first, second : ndarray, shape (g,)
    energy : ndarray, shape (g, g)
        In kT above its least, by ``first`` and ``second``; NaN where fewer than five
        particles lie under a kernel.
    bandwidth : tuple of float
        Of either.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    energy: NDArray[np.float64]
    bandwidth: tuple[float, float]

    @classmethod
    def of(cls, value: NDArray[np.float64], sd: NDArray[np.float64]) -> Self:
        """Estimate it from pairs of values and how well each is known.

        Parameters
        ----------
        value, sd : ndarray, shape (n, 2)

        Raises
        ------
        InputError
            As for :meth:`FreeEnergy.of`.
        """
        _require_values(value, sd)
        # What suits one number is too narrow for two by n^(1/5 - 1/6).
        wider = len(value) ** (1 / 30)
        least = np.ptp(value, axis=0) / _MOST_KERNELS_IN_PLANE
        narrowest = [
            max(wider * bandwidth(value[:, axis]), float(least[axis]))
            for axis in range(2)
        ]
        width = np.maximum(sd, narrowest)
        first, second = (_places(value[:, axis], width[:, axis]) for axis in range(2))
        density = np.zeros((len(first), len(second)))
        seen = np.zeros_like(density)
        for begin in range(0, len(value), _PART):
            part = slice(begin, begin + _PART)
            along, across = (
                _kernel(at, value[part, axis], width[part, axis])
                for axis, at in enumerate((first, second))
            )
            seen += along @ across.T
            density += (along / width[part].prod(1)) @ across.T
        density[seen < _FEWEST_SEEN] = np.nan
        known = density[~np.isnan(density)]
        energy = -np.log(density / known.max()) if len(known) else density
        return cls(first, second, energy, (narrowest[0], narrowest[1]))


def _require_values(value: NDArray[np.float64], sd: NDArray[np.float64]) -> None:
    if len(value) < FEWEST:
        raise InputError(
            f"expected {FEWEST} particles or more for a free energy, found "
            f"{len(value)}: infer more of them"
        )
    if not (np.isfinite(value).all() and np.isfinite(sd).all()):
        raise InputError("expected finite values for a free energy: leave others out")


def _places(
    value: NDArray[np.float64], width: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return where densities are computed: closer together than kernels are wide."""
    reach = _REACH_SDS * float(np.median(width))
    low, high = float(value.min()) - reach, float(value.max()) + reach
    count = math.ceil(_STEPS_A_KERNEL * (high - low) / float(width.min())) + 1
    return np.linspace(low, high, count)


def _kernel(
    at: NDArray[np.float64], value: NDArray[np.float64], width: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return Gaussians of height 1 about n values at g places, shape (g, n)."""
    return np.asarray(np.exp(-0.5 * ((at[:, None] - value) / width) ** 2))


def _densities(
    value: NDArray[np.float64],
    width: NDArray[np.float64],
    at: NDArray[np.float64],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return density and values under a kernel (g,), and densities of samples (g, b).

    A sample drawn anew has each value a number of times that is of Poisson's law: a
    bootstrap that needs no more than one pass.
    """
    random = np.random.default_rng(seed)
    density, seen = np.zeros(len(at)), np.zeros(len(at))
    again, drawn = np.zeros((len(at), _RESAMPLED)), np.zeros(_RESAMPLED)
    for begin in range(0, len(value), _PART):
        part = slice(begin, begin + _PART)
        kernel = _kernel(at, value[part], width[part])
        seen += kernel.sum(1)
        kernel /= math.sqrt(2 * math.pi) * width[part]
        density += kernel.sum(1)
        times = random.poisson(1.0, (kernel.shape[1], _RESAMPLED)).astype(np.float64)
        again += kernel @ times
        drawn += times.sum(0)
    return density / len(value), seen, again / np.maximum(drawn, 1)


def _half_width(
    energy: NDArray[np.float64], energies: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return half the width of a band that holds whole curves, shape (g,).

    As many standard errors at every place as keep 95 of 100 curves inside all along.
    """
    away = np.minimum(np.abs(energies - energy[:, None]), _HIGHEST_ERROR)
    error = np.sqrt((away**2).mean(1))
    farthest = (away / np.maximum(error, 1e-12)[:, None]).max(0)
    return np.asarray(error * np.quantile(farthest, BAND))


def surviving_minima(
    energy: NDArray[np.float64], energies: NDArray[np.float64]
) -> list[int]:
    """Return the places of minima whose barriers stand when values are drawn anew.

    From the highest on, minima that do not stand are filled up to their barrier.

    Parameters
    ----------
    energy : ndarray, shape (g,)
        Infinite where it is not known.
    energies : ndarray, shape (g, b)
        Of the samples drawn anew.
    """
    minima = _minima(energy)
    while len(minima) > 1:
        barriers = [
            left + int(energy[left : right + 1].argmax())
            for left, right in itertools.pairwise(minima)
        ]
        share = {}
        for number, place in enumerate(minima):
            # The lower of its two barriers, beyond which there is a deeper minimum.
            sides = [
                barriers[side]
                for side, other in ((number - 1, number - 1), (number, number + 1))
                if 0 <= other < len(minima) and energy[minima[other]] <= energy[place]
            ]
            if sides:
                barrier = min(sides, key=lambda one: float(energy[one]))
                share[place] = float((energies[barrier] > energies[place]).mean())
        weakest = min(share, key=lambda place: share[place])
        if share[weakest] >= _SURVIVES:
            break
        minima.remove(weakest)
    return sorted(minima, key=lambda place: float(energy[place]))


def _minima(energy: NDArray[np.float64]) -> list[int]:
    """Return the places of all minima, one of each run of equal values."""
    around = np.concatenate([[np.inf], energy, [np.inf]])
    lower = (around[1:-1] < around[:-2]) & (around[1:-1] <= around[2:])
    return np.flatnonzero(lower & np.isfinite(energy)).tolist()
