"""Outlier scores beside what images show."""

import math

import pytest
import torch

from cryoinfer.evaluation.junk import compare_junk

IS_JUNK = torch.tensor([True, True, False, False, False])


@pytest.mark.parametrize(
    ("score", "auc"),
    [
        ([5.0, 4.0, 1.0, 2.0, 3.0], 1.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.0),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 0.5),
        # Of six pairs (5 above all, 2 above one and beside one) 4.5.
        ([5.0, 2.0, 1.0, 2.0, 3.0], 4.5 / 6),
        ([math.nan, 2.5, 1.0, 2.0, 3.0], 5 / 6),
    ],
)
def test_the_area_is_the_share_of_pairs_in_order(
    score: list[float], auc: float
) -> None:
    found = compare_junk(IS_JUNK, torch.tensor(score), None)
    assert found.auc == pytest.approx(auc)
    assert (found.junk, found.particles) == (2, 3)
    assert found.flagged_junk is None


def test_flags_are_counted_of_either_kind() -> None:
    flagged = torch.tensor([True, False, False, False, True])
    found = compare_junk(IS_JUNK, None, flagged)
    assert (found.auc, found.flagged_junk) == (None, 0.5)
    assert found.flagged_particles == pytest.approx(1 / 3)


def test_without_particles_there_is_nothing_to_compare() -> None:
    every = torch.ones(2, dtype=torch.bool)
    found = compare_junk(every, torch.ones(2), every)
    assert (found.auc, found.flagged_junk) == (None, None)
