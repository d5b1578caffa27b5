"""Amplitudes that the pose, or one another, could make up for."""

import pytest
import torch

from cryoinfer.evaluation.identifiability import amplitude_identifiability


def covariance(correlated: float, among: float) -> torch.Tensor:
    """Return unit variances: rotation about y with mode 1, and mode 1 with mode 2.

    The defocus is held.
    """
    matrix = torch.eye(8, dtype=torch.float64)
    matrix[1, 6] = matrix[6, 1] = correlated
    matrix[6, 7] = matrix[7, 6] = among
    matrix[5] = matrix[:, 5] = 0
    return matrix


def test_known_answers_of_gaussians() -> None:
    # Of two correlated unknowns the one is 1 / sqrt(1 - r^2) narrower given the other.
    found = amplitude_identifiability(covariance(0.6, 0.0).expand(5, 8, 8))
    assert found.widened_by_pose == pytest.approx((1.25, 1.0), rel=1e-12)
    assert found.correlation[0] == pytest.approx((1.0, 0.0), abs=1e-12)
    apart = amplitude_identifiability(covariance(0.0, -0.8)[None])
    assert apart.widened_by_pose == pytest.approx((1.0, 1.0), rel=1e-12)
    assert apart.correlation[1] == pytest.approx((0.8, 1.0), rel=1e-12)


def test_scales_do_not_matter_and_medians_are_taken() -> None:
    scale = torch.tensor([1e-3, 1e-2, 1e-3, 0.5, 2.0, 1.0, 0.1, 4.0]).double()
    each = [covariance(r, 0.0) * scale[:, None] * scale for r in (0.0, 0.6, 0.8)]
    found = amplitude_identifiability(torch.stack(each))
    assert found.widened_by_pose == pytest.approx((1.25, 1.0), rel=1e-9)
