"""Densities of z that noise is taken out of, and whether their bands are calibrated."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.evaluation.population_plane import PlanePopulation
from cryoinfer.evaluation.populations import BAND, AxisPopulation, mixture_weights

SHARE, HALF_WAY, SD = 0.7, 1.0, 0.3
"""Of the first of two states, at -1 and 1, each a normal."""


def posteriors(
    n: int, noise: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and widths of posteriors under N(0, 1) of two states in noise."""
    random = np.random.default_rng(seed)
    state = np.where(random.random(n) < SHARE, -HALF_WAY, HALF_WAY)
    seen = state + math.hypot(SD, noise) * random.standard_normal(n)
    variance = noise**2 / (1 + noise**2)
    return seen * (1 - variance), np.full(n, math.sqrt(variance))


def density(at: NDArray[np.float64], smoothed: float) -> NDArray[np.float64]:
    """Return the true density, smoothed."""
    width = math.hypot(SD, smoothed)
    bell = [np.exp(-0.5 * ((at - one) / width) ** 2) for one in (-HALF_WAY, HALF_WAY)]
    whole = SHARE * bell[0] + (1 - SHARE) * bell[1]
    return np.asarray(whole / (width * math.sqrt(2 * math.pi)))


def test_weights_of_components_that_tell_apart_are_shares() -> None:
    likelihood, count = np.eye(3), np.array([50.0, 30.0, 20.0])
    weight = mixture_weights(likelihood, count, np.full(3, 1 / 3))
    # Within 0.1 nats of 100 particles of the optimum: deviances of sqrt(0.2) sd.
    assert weight == pytest.approx([0.5, 0.3, 0.2], abs=0.02)


def test_the_optimum_has_no_slope_to_any_component() -> None:
    random = np.random.default_rng(0)
    likelihood, count = random.random((40, 25)) ** 4, random.poisson(20, 40) + 1.0
    weight = mixture_weights(likelihood, count, np.full(25, 1 / 25))
    slope = count @ (likelihood / (likelihood @ weight)[:, None])
    # Which bounds what the log-likelihood lacks, in nats.
    assert slope.max() - count.sum() < 0.1
    assert weight.min() >= 0
    assert weight.sum() == pytest.approx(1)


def test_weights_seen_through_noise_as_wide_as_their_distance() -> None:
    mean, sd = posteriors(10_000, noise=2 * HALF_WAY, seed=1)
    share = AxisPopulation.of(mean, sd).mixture.share(-math.inf, 0.0)
    assert share.share_low < SHARE < share.share_high
    assert share.standard_error < 0.1
    # Of the means, Phi(1 / 2.02) of the one and the rest of the other: 57.6 %.
    histogram = float((mean < 0).mean())
    assert histogram < share.share_low
    assert histogram == pytest.approx(0.576, abs=4 * 0.005)


def test_states_are_told_apart_with_their_shares_and_blanks() -> None:
    mean, sd = posteriors(3000, noise=0.3, seed=0)
    found = AxisPopulation.of(mean, sd)
    first, second = found.basins
    assert first.share + second.share == pytest.approx(1)
    for basin, share in ((first, SHARE), (second, 1 - SHARE)):
        # Binomial: 0.8 % a sd; what z does not tell adds little to it.
        assert basin.share == pytest.approx(share, abs=4 * 0.0084)
        assert 0.006 < basin.standard_error < 0.016
    assert abs(first.high) < 0.4
    # No particle is beyond five widths of the outer state.
    assert np.isnan(found.energy[np.abs(found.at) > 3]).all()
    seen = ~np.isnan(found.energy)
    assert found.energy[seen].min() == 0
    assert (found.energy_low[seen] <= found.energy_high[seen]).all()
    step = found.at[1] - found.at[0]
    assert found.density.sum() * step == pytest.approx(1, abs=1e-3)
    # Between the states, against the smoothed truth: bands are of about 0.3 kT.
    middle = np.abs(found.at) < 0.05
    true = -np.log(
        density(found.at, found.width) / density(found.at, found.width).max()
    )
    assert found.energy[middle] == pytest.approx(true[middle], abs=0.6)


def test_particles_that_say_nothing_do_no_harm() -> None:
    mean, sd = posteriors(2000, noise=0.5, seed=2)
    mean, sd = np.append(mean, [0.0] * 500), np.append(sd, [1.0] * 500)
    share = AxisPopulation.of(mean, sd).mixture.share(-math.inf, 0.0)
    assert share.share_low < SHARE < share.share_high


def test_three_states_in_a_plane_have_their_depths_and_a_blank_corner() -> None:
    random = np.random.default_rng(0)
    middle, share = np.array([[-1, -1], [1, -1], [1, 1.0]]), np.array([0.5, 0.3, 0.2])
    noise, n = 0.4, 1500
    seen = middle[random.choice(3, n, p=share)]
    seen = seen + math.hypot(0.2, noise) * random.standard_normal((n, 2))
    variance = noise**2 / (1 + noise**2)
    mean, sd = seen * (1 - variance), np.full((n, 2), math.sqrt(variance))
    first, second = (AxisPopulation.of(mean[:, k], sd[:, k]) for k in range(2))
    covariance = np.tile(variance * np.eye(2), (n, 1, 1))
    plane = PlanePopulation.of((first, second), mean, covariance)

    def at(x: float, y: float) -> float:
        row = np.abs(plane.first - x).argmin(), np.abs(plane.second - y).argmin()
        return float(plane.energy[row])

    depths = [at(*one) for one in middle]
    # A share of 20 % of 1,500 is known to 6 % by counting, and half as well here.
    assert depths == pytest.approx(np.log(share[0] / share), abs=0.4)
    assert math.isnan(at(-1, 1))


def test_the_same_seed_gives_the_same_band() -> None:
    mean, sd = posteriors(300, noise=1.0, seed=3)
    first, again = (AxisPopulation.of(mean, sd, 5) for _ in range(2))
    assert np.array_equal(first.low, again.low)


@pytest.mark.parametrize(
    ("mean", "sd", "said"),
    [
        ([0.0] * 9, [0.5] * 9, "10 particles or more"),
        ([math.nan] * 20, [0.5] * 20, "finite"),
        ([0.0] * 20, [0.0] * 20, "finite"),
    ],
)
def test_what_says_nothing_is_refused(
    mean: list[float], sd: list[float], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        AxisPopulation.of(np.array(mean), np.array(sd))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_bands_hold_what_they_say(noise: float) -> None:
    """Of 100 sets, 90 % bands hold 80 to 97: 3.3 sd of Binomial(100, 0.9) below, 2.3
    above."""
    places = np.array([-1.5, -1.0, -0.3, 0.3, 1.0, 1.5])
    held, shares = np.zeros(len(places)), 0
    for seed in range(100):
        found = AxisPopulation.of(*posteriors(1000, noise, seed), seed)
        true = density(places, found.width)
        low, high = (
            np.interp(places, found.at, one) for one in (found.low, found.high)
        )
        held += (low <= true) & (true <= high)
        share = found.mixture.share(-math.inf, 0.0)
        shares += share.share_low <= SHARE <= share.share_high
    assert BAND == 0.9
    assert 80 <= shares <= 97
    # Places of one set hang together: each is a count of 100 independent sets.
    assert 80 <= held.min()
    assert held.max() <= 97
