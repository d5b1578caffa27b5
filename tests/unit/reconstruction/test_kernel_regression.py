"""Which particles make a map: known answers, and naive twins of the nested sums."""

import math

import pytest
import torch

from cryoinfer.fourier.slices import FourierVolume, SliceAccumulator
from cryoinfer.reconstruction.kernel_regression import (
    NARROWEST,
    ConformationPosterior,
    bandwidths,
    effective_number,
    explained_power,
    narrowest_kernels,
    voxel_shells,
)


def one_dimensional(mean: list[float], variance: list[float]) -> ConformationPosterior:
    return ConformationPosterior(
        torch.tensor(mean, dtype=torch.float64)[:, None],
        torch.tensor(variance, dtype=torch.float64)[:, None, None],
    )


def test_the_distance_is_the_expected_one_in_units_of_the_spread() -> None:
    posterior = one_dimensional([1.0, -1.0], [0.5, 1.5])
    # Of means 1, of what is not known 1 in the mean.
    assert float(posterior.spread) == pytest.approx(2.0)
    found = posterior.squared_distance(torch.tensor([2.0]))
    # (1 + 0.5) / 2 and (9 + 1.5) / 2; the spread has 1e-9 added.
    torch.testing.assert_close(
        found, torch.tensor([0.75, 5.25]).double(), rtol=1e-8, atol=0
    )


def test_the_distance_is_the_mean_over_draws_of_the_posterior() -> None:
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(6, 3, 3, generator=generator, dtype=torch.float64)
    mean = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    posterior = ConformationPosterior(mean, factor @ factor.mT)
    target = torch.tensor([0.3, -0.2, 1.0]).double()
    draws = torch.randn(40_000, 6, 3, generator=generator, dtype=torch.float64)
    away = mean + torch.einsum("nij,snj->sni", factor, draws) - target
    naive = (away @ torch.linalg.inv(posterior.spread) * away).sum(-1)
    found = posterior.squared_distance(target)
    error = naive.std(0) / math.sqrt(len(draws))
    assert bool(((found - naive.mean(0)).abs() < 5 * error).all())


def test_who_says_little_is_farther_than_who_is_nearly_there() -> None:
    # The second says nothing: in units of its own covariance it would be nearer.
    posterior = one_dimensional([0.8, 0.0, -0.9], [0.01, 1.0, 0.01])
    found = posterior.squared_distance(torch.tensor([1.2]))
    assert found[0] < found[1] < found[2]


def test_what_is_unknown_is_far_and_near_to_nothing() -> None:
    posterior = one_dimensional([0.0, math.nan, 1.0], [0.1, math.nan, 0.1])
    assert posterior.known.tolist() == [True, False, True]
    assert posterior.squared_distance(torch.zeros(1))[1] == torch.inf
    assert posterior.is_near(torch.zeros(1)).tolist() == [True, False, False]
    assert not posterior.is_near(torch.tensor([9.0])).any()


def test_particles_that_are_all_alike_are_near_to_nothing_else() -> None:
    posterior = one_dimensional([2.0, 2.0], [0.0, 0.0])
    assert posterior.is_near(torch.tensor([2.0])).all()
    assert not posterior.is_near(torch.tensor([50.0])).any()


def test_kernels_hold_twice_as_many_of_either_half() -> None:
    # The distances of half 1 are those of half 0, in another order.
    half = torch.arange(800) % 2
    squared = torch.empty(800).double()
    squared[half == 0] = torch.arange(400).double()
    squared[half == 1] = torch.arange(400).double().flip(0)
    found = bandwidths(squared, half)
    # From 25 of each half to all 400 by factors of two: 16 = 2^4.
    assert found.tolist() == [24.0, 49.0, 99.0, 199.0, 399.0]
    kernel = narrowest_kernels(squared, found)
    assert torch.bincount(kernel).tolist() == [NARROWEST, 50, 100, 200, 400]


def test_few_particles_are_one_kernel_and_the_farther_half_decides() -> None:
    half = torch.tensor([0, 0, 1, 1, 1])
    squared = torch.tensor([1.0, 2.0, 3.0, 7.0, torch.inf]).double()
    found = bandwidths(squared, half)
    assert found.tolist() == [7.0]
    assert narrowest_kernels(squared, found).tolist() == [0, 0, 0, 0, 1]


def test_the_effective_number_is_that_of_kish() -> None:
    kernel = torch.tensor([0, 0, 1, 1, 1, 2])
    chosen = torch.tensor([0, 0, 1, 1])
    # To shell 2 the first two add to 1 + 4 voxels, three to 4, the last to none.
    weight = [1.0, 1.0, 0.8, 0.8, 0.8, 0.0]
    naive = sum(weight) ** 2 / sum(one**2 for one in weight)
    assert effective_number(kernel, chosen, 2) == pytest.approx(naive)
    assert effective_number(kernel, torch.tensor([0, 1, 1]), 2) == pytest.approx(5.0)


def sums_of(seed: int, box: int, radius: int) -> SliceAccumulator:
    empty = SliceAccumulator.empty(box, radius, 2.0)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(empty.sums.shape, generator=generator)
    values[..., 2:] = values[..., 2:].abs()
    return SliceAccumulator(values, radius, empty.padding)


@pytest.mark.parametrize("radius", [3, 4])
def test_explained_power_is_that_of_a_naive_loop(radius: int) -> None:
    images = sums_of(1, 10, radius), sums_of(2, 10, radius)
    shells = voxel_shells(images[0])
    halves = tuple(
        FourierVolume(sums_of(seed, 10, radius).sums[..., :2].contiguous(), radius, 2.0)
        for seed in (3, 4)
    )
    found = explained_power((halves[0], halves[1]), images, shells)
    centre = images[0].centre
    for wanted in range(radius + 1):
        numerator = denominator = 0.0
        for z, y, x in torch.cartesian_prod(*map(torch.arange, shells.shape)).tolist():
            k = math.sqrt((z - centre) ** 2 + (y - centre) ** 2 + x**2) / 2
            if round(k) != wanted:
                continue
            a, b = (complex(*half.values[z, y, x].tolist()) for half in halves)
            first, second = (one.sums[z, y, x].tolist() for one in images)
            numerator += (a.conjugate() * complex(*second[:2])).real
            numerator += (b.conjugate() * complex(*first[:2])).real
            denominator += abs((a + b) / 2) ** 2 * (first[2] + second[2])
        # Both are sums in double precision of the same numbers.
        naive = max(0.0, numerator) ** 2 / denominator
        assert float(found[wanted]) == pytest.approx(naive, rel=1e-9, abs=1e-12)
