import math

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.calibration import coverage_curve, mahalanobis_levels


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def covariances(n: int, d: int, generator: torch.Generator) -> Tensor:
    root = torch.randn((n, d, d), generator=generator, dtype=torch.float64)
    return root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64)


def draw(covariance: Tensor, generator: torch.Generator) -> Tensor:
    n, d, _ = covariance.shape
    white = torch.randn((n, d, 1), generator=generator, dtype=torch.float64)
    return (torch.linalg.cholesky(covariance) @ white).squeeze(-1)


def test_known_levels() -> None:
    # One sigma in one dimension holds erf(1/sqrt 2); in two 1 - exp(-1/2).
    one = mahalanobis_levels(torch.tensor([[2.0]]), torch.tensor([[[4.0]]]))
    assert float(one) == pytest.approx(math.erf(1 / math.sqrt(2)))
    two = mahalanobis_levels(torch.tensor([[0.0, 3.0]]), torch.eye(2)[None] * 9)
    assert float(two) == pytest.approx(1 - math.exp(-0.5))


def test_calibrated_levels_are_uniform(generator: torch.Generator) -> None:
    covariance = covariances(4000, 5, generator)
    levels = mahalanobis_levels(draw(covariance, generator), covariance)
    nominal = torch.linspace(0, 1, 11)
    # Binomial sd is at most 0.5/sqrt(4000) = 0.008.
    assert (coverage_curve(levels, nominal) - nominal).abs().max() < 0.032


def test_overconfident_posterior_covers_too_little(
    generator: torch.Generator,
) -> None:
    covariance = covariances(1000, 3, generator)
    levels = mahalanobis_levels(draw(covariance, generator), covariance / 4)
    assert coverage_curve(levels, torch.tensor([0.9]))[0] < 0.7


def test_dimensions_not_inferred_are_left_out(generator: torch.Generator) -> None:
    covariance, error = torch.zeros(50, 6, 6).double(), torch.ones(50, 6).double()
    covariance[:, :5, :5] = covariances(50, 5, generator)
    error[:, :5] = draw(covariance[:, :5, :5], generator)
    expected = mahalanobis_levels(error[:, :5], covariance[:, :5, :5])
    torch.testing.assert_close(mahalanobis_levels(error, covariance), expected)
    chosen = mahalanobis_levels(error, covariance, dims=range(5))
    torch.testing.assert_close(chosen, expected)


def test_dims_are_marginals(generator: torch.Generator) -> None:
    covariance = covariances(50, 4, generator)
    error = draw(covariance, generator)
    torch.testing.assert_close(
        mahalanobis_levels(error, covariance, dims=[3, 1]),
        mahalanobis_levels(
            error[:, [1, 3]], covariance[:, [1, 3]][:, :, [1, 3]].contiguous()
        ),
    )


def test_units_do_not_matter(generator: torch.Generator) -> None:
    covariance = covariances(50, 3, generator)
    error = draw(covariance, generator)
    unit = torch.tensor([1e-3, 1.0, 1e5], dtype=torch.float64)
    torch.testing.assert_close(
        mahalanobis_levels(error * unit, covariance * unit * unit[:, None]),
        mahalanobis_levels(error, covariance),
    )


def test_singular_covariance_loses_a_degree_of_freedom() -> None:
    covariance = torch.ones(1, 2, 2)
    level = mahalanobis_levels(torch.tensor([[1.0, 1.0]]), covariance)
    assert float(level) == pytest.approx(math.erf(1 / math.sqrt(2)))


def test_nothing_inferred_is_nan_and_left_out() -> None:
    levels = mahalanobis_levels(torch.ones(3, 2), torch.zeros(3, 2, 2))
    assert levels.isnan().all()
    assert coverage_curve(levels, torch.tensor([0.5])).isnan().all()
    mixed = torch.tensor([math.nan, 0.2, 0.8])
    assert coverage_curve(mixed, torch.tensor([0.5])).tolist() == [0.5]
