"""Ranks, their uniformity, and coverage in random balls: calibrated and not."""

import math

import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.calibration import (
    coverage_curve,
    expected_calibration_error,
    posterior_ranks,
    rank_levels,
    rank_uniformity_p_value,
    rotation_ranks,
    tarp_levels,
)
from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame

N, DRAWS = 1000, 199


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def conjugate(
    generator: torch.Generator, width: float = 1.0, bias: float = 0.0, d: int = 1
) -> tuple[Tensor, Tensor]:
    """Return truths (n, d) and draws (l, n, d) of a normal mean seen in noise.

    Prior and noise have unit variance, so that the posterior's mean is half of what
    is seen and its variance a half; width and bias spoil it.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, d, generator=generator, dtype=torch.float64)

    truth = normal(N)
    seen = truth + normal(N)
    sd = math.sqrt(0.5)
    return truth, seen / 2 + bias * sd + width * sd * normal(DRAWS, N)


def p_value(truth: Tensor, draws: Tensor, generator: torch.Generator) -> float:
    ranks = posterior_ranks(truth[..., 0], draws[..., 0], generator)
    return rank_uniformity_p_value(ranks, DRAWS)


def test_ranks_count_the_draws_below(generator: torch.Generator) -> None:
    draws = torch.tensor([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])
    ranks = posterior_ranks(torch.tensor([2.5, 0.0]), draws, generator)
    assert ranks.tolist() == [2, 0]


def test_ties_are_broken_at_random(generator: torch.Generator) -> None:
    draws = torch.tensor([0.0, 1.0, 1.0, 2.0])[:, None].expand(4, 3000)
    ranks = posterior_ranks(torch.ones(3000), draws, generator)
    # Ranks 1, 2 and 3 are equally likely: a sd of sqrt(3000 * 2/9) = 26.
    counts = torch.bincount(ranks, minlength=5)
    assert counts[0] == counts[4] == 0
    assert (counts[1:4] - 1000).abs().max() < 4 * 26


def test_exact_posteriors_have_uniform_ranks(generator: torch.Generator) -> None:
    found = [p_value(*conjugate(generator), generator) for _ in range(20)]
    # p-values are uniform themselves: the least of 20 is below 0.0005 once in 100.
    assert min(found) > 5e-4
    # And their mean has a sd of 0.065.
    assert sum(found) / 20 == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize(
    ("width", "bias"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.3), (1.0, -0.3)]
)
def test_wrong_posteriors_are_caught(
    generator: torch.Generator, width: float, bias: float
) -> None:
    truth, draws = conjugate(generator, width, bias)
    assert p_value(truth, draws, generator) < 1e-3
    levels = rank_levels(
        posterior_ranks(truth[:, 0], draws[..., 0], generator), DRAWS, generator
    )
    # Calibrated it is 0.31 / sqrt(1000) = 0.01.
    assert expected_calibration_error(levels) > 0.03


def test_bins_of_unlike_size_are_expected() -> None:
    # 7 draws: 8 ranks in 3 bins of 3, 3 and 2 ranks.
    even = torch.arange(8).repeat(4)
    assert rank_uniformity_p_value(even, 7) == pytest.approx(1.0)
    # All in one half of two bins of 10: chi-square 20 of one degree of freedom.
    assert rank_uniformity_p_value(torch.zeros(20).long(), 1) == pytest.approx(
        math.erfc(math.sqrt(20 / 2)), rel=1e-6
    )


def test_too_few_ranks_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="20 ranks or more from 0 to 9, found 19"):
        rank_uniformity_p_value(torch.zeros(19).long(), 9)
    with pytest.raises(InputError, match="from 0 to 9"):
        rank_uniformity_p_value(torch.full((30,), 10), 9)
    with pytest.raises(InputError, match=r"shape \(l, 3\), found \(5, 4\)"):
        posterior_ranks(torch.zeros(3), torch.zeros(5, 4), generator)


def turned(
    mode: Tensor, sd: float, generator: torch.Generator, count: int | None = None
) -> Tensor:
    shape = (len(mode), 3) if count is None else (count, len(mode), 3)
    step = torch.randn(shape, generator=generator, dtype=torch.float64)
    return rotate_in_image_frame(mode.expand(*shape, 3), sd * step)


@pytest.mark.parametrize(
    ("true_sd", "calibrated"), [(0.05, True), (0.07, False), (0.035, False)]
)
def test_ranks_of_rotations(
    generator: torch.Generator, true_sd: float, calibrated: bool
) -> None:
    # A flat prior: the truth about the mode is distributed as the mode about it.
    mode = random_rotations(N, generator)
    truth = turned(mode, true_sd, generator)
    draws = turned(mode, 0.05, generator, DRAWS)
    ranks = rotation_ranks(truth, draws, mode, generator)
    p = rank_uniformity_p_value(ranks, DRAWS)
    assert (p > 0.01) if calibrated else (p < 1e-3)
    # Seen from elsewhere, spread along one direction is judged.
    elsewhere = random_rotations(N, generator)
    ranks = rotation_ranks(truth, draws, elsewhere, generator)
    p = rank_uniformity_p_value(ranks, DRAWS)
    assert (p > 0.01) if calibrated else (p < 1e-3)


def test_levels_keep_the_order_of_ranks(generator: torch.Generator) -> None:
    levels = rank_levels(torch.tensor([0, 1, 9]), 9, generator)
    assert (levels * 10).floor().tolist() == [0, 1, 9]


@pytest.mark.parametrize(
    ("width", "bias", "caught"),
    [(1.0, 0.0, False), (0.7, 0.0, True), (1.4, 0.0, True), (1.0, 0.5, True)],
)
def test_coverage_of_balls_about_random_points(
    generator: torch.Generator, width: float, bias: float, caught: bool
) -> None:
    truth, draws = conjugate(generator, width, bias, d=3)
    # One more draw is a random point that does not know the truth.
    point, draws = draws[0], draws[1:]
    levels = tarp_levels(
        (truth - point).norm(dim=-1), (draws - point).norm(dim=-1), generator
    )
    error = expected_calibration_error(levels)
    # 0.01 is expected of calibrated ones, with a sd of 0.005.
    assert (error > 0.03) if caught else (error < 0.025)


def test_errors_of_known_levels() -> None:
    even = (torch.arange(1000) + 0.5) / 1000
    assert expected_calibration_error(even) == pytest.approx(0.0, abs=1e-3)
    # All at the centre: coverage 0 below one half and 1 above, off by 1/4 on average.
    middle = torch.full((100,), 0.5)
    assert expected_calibration_error(middle) == pytest.approx(0.25, abs=0.006)
    assert coverage_curve(middle, torch.tensor([0.4, 0.6])).tolist() == [0.0, 1.0]
