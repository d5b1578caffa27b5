"""Coordinates of conformations against true ones, by cases whose answer is known."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.conformation import (
    confusion_error,
    monotone_r2,
    rank_correlation,
)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float) -> Tensor:
    return torch.tensor(values).double()[:, None]


def test_states_apart_are_never_confused() -> None:
    z = column(-3.0, -2.0, -2.5, -2.2, 2.0, 2.5, 2.2, 3.0)
    second = torch.arange(8) >= 4
    assert confusion_error(z, second, dice()) == 0.0
    # The sign of z is a gauge, and so are its unit and its origin.
    assert confusion_error(-1e-6 * z + 40, second, dice()) == 0.0


@pytest.mark.parametrize("apart", [1.0, 3.0])
def test_the_error_of_two_gaussians_is_that_of_the_best_threshold(apart: float) -> None:
    n = 40_000
    second = torch.arange(n) % 2 == 0
    z = torch.randn(n, 1, generator=dice()).double() + apart * second[:, None]
    # Half of them apart: the normal distribution beyond half the distance.
    known = 0.5 * math.erfc(apart / 2 / math.sqrt(2))
    # Binomial: 4 sd are 4 sqrt(0.31 * 0.69 / 40,000) = 0.009; the fitted threshold
    # costs less than 1 / sqrt(n).
    assert confusion_error(z, second, dice(1)) == pytest.approx(known, abs=0.012)


def test_the_discriminant_looks_past_a_wide_coordinate_that_says_nothing() -> None:
    n = 4000
    second = torch.arange(n) % 2 == 0
    useful = torch.randn(n, generator=dice()).double() + 6.0 * second
    wide = 100 * torch.randn(n, generator=dice(1)).double()
    turned = torch.stack([useful + wide, useful - wide], 1)
    # 3 sd from the threshold: 0.0013, of 4,000 particles 5.4 with an sd of 2.3.
    assert confusion_error(turned, second, dice(2)) < 0.004


def test_a_coordinate_that_says_nothing_errs_by_the_smaller_share() -> None:
    n = 4000
    second = torch.arange(n) < n // 4
    z = torch.randn(n, 3, generator=dice()).double()
    # What is fitted to one half and judged on the other cannot do better than to call
    # all the first state but by chance, a few sd of sqrt(0.19 / 4000) = 0.007.
    assert confusion_error(z, second, dice(1)) == pytest.approx(0.25, abs=0.02)


def test_states_of_few_particles_have_no_confusion_error() -> None:
    second = torch.arange(10) >= 7
    with pytest.raises(InputError, match="4 particles or more of every state"):
        confusion_error(torch.randn(10, 1), second, dice())


def test_a_rank_correlation_by_hand() -> None:
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * 4 / (5 * 24) = 0.8.
    z = column(10.0, 20.0, 30.0, 40.0, 1e6)
    value = torch.tensor([2.0, 1.0, 4.0, 3.0, 5.0])
    assert rank_correlation(z, value, dice()) == pytest.approx(0.8, abs=1e-12)
    assert rank_correlation(-z, value, dice()) == pytest.approx(0.8, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 10])
def test_ties_in_the_truth_hold_a_rank_correlation_below_one(k: int) -> None:
    z = torch.arange(600).double()[:, None]
    value = torch.arange(600) * k // 600
    known = math.sqrt(1 - 1 / k**2)
    # Of endlessly many particles; of n it is off by the order of 1 / n^2.
    assert rank_correlation(z, value, dice()) == pytest.approx(known, abs=1e-5)


def test_a_monotone_map_is_a_gauge() -> None:
    value = torch.rand(4000, generator=dice()).double()
    z = torch.exp(-5 * value)[:, None]
    assert rank_correlation(z, value, dice()) == pytest.approx(1.0, abs=1e-12)
    # Between fitted points, 1 / 2,000 apart, errors are of that order.
    assert monotone_r2(z, value, dice()) == pytest.approx(1.0, abs=1e-5)


def test_a_mixture_of_coordinates_is_a_gauge() -> None:
    value = torch.rand(4000, generator=dice()).double()
    other = torch.randn(4000, generator=dice(1)).double()
    z = torch.stack([value + other, value - other], 1)
    # The direction is known to about 1 / sqrt(2,000) of the other coordinate, whose sd
    # is 3.5 times that of the truth: 0.08, of which the cosine lacks 0.003.
    assert rank_correlation(z, value, dice(2)) > 0.99
    assert monotone_r2(z, value, dice(2)) > 0.98
    # One of them alone shows little.
    assert rank_correlation(z[:, :1], value, dice(2)) < 0.35


def test_noise_leaves_what_it_leaves_of_the_variance() -> None:
    n = 20_000
    value = torch.randn(n, generator=dice()).double()
    z = (value + torch.randn(n, generator=dice(1)).double())[:, None]
    # The best function is z / 2, and explains half; known to about 1 / sqrt(n) = 0.7 %,
    # and isotonic regression costs about as much.
    assert monotone_r2(z, value, dice(2)) == pytest.approx(0.5, abs=0.03)
    # Of Gaussians that correlate by r: (6 / pi) asin(r / 2), r = sqrt(1 / 2).
    known = 6 / math.pi * math.asin(math.sqrt(0.5) / 2)
    assert rank_correlation(z, value, dice(3)) == pytest.approx(known, abs=0.02)


def test_coordinates_that_say_nothing_explain_nothing() -> None:
    n = 4000
    value = torch.randn(n, generator=dice()).double()
    z = torch.randn(n, 8, generator=dice(1)).double()
    # Twice the sd of a correlation, 1 / sqrt(n) = 0.016, and more for chance.
    assert rank_correlation(z, value, dice(2)) < 0.05
    # A fit to noise costs in the other half: never above 0 but by chance.
    assert -0.1 < monotone_r2(z, value, dice(2)) < 0.01


def test_truths_that_are_all_alike_are_refused() -> None:
    for measure in (rank_correlation, monotone_r2):
        with pytest.raises(InputError, match="not all alike"):
            measure(torch.randn(10, 1), torch.ones(10), dice())
