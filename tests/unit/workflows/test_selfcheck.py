"""The check of a machine passes here, and finds each operation that is made wrong."""

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.workflows import selfcheck
from cryoinfer.workflows.machine import Machine


def test_every_operation_agrees_on_this_machine() -> None:
    result = CliRunner().invoke(app, ["selfcheck"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert Machine.here().processor in result.output
    assert result.output.count(" ok\n") == 12


def is_double(first: Any) -> bool:
    """Tell whether an operation is asked of double precision, by its first argument."""
    for name in ("volume", "values", "sums"):
        if not isinstance(first, torch.Tensor):
            first = getattr(first, name, first)
    return first.dtype == torch.float64


def a_little_more(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is wrong by a part in a thousand in single precision."""

    def wrong(first: Any, *words: Any, **named: Any) -> Any:
        found = function(first, *words, **named)
        if is_double(first):
            return found
        if isinstance(found, torch.Tensor):
            return found * 1.001
        if hasattr(found, "sums"):
            return replace(found, sums=found.sums * 1.001)
        if hasattr(found, "information"):
            return replace(found, information=found.information * 1.001)
        return replace(found, mean_weight=found.mean_weight * 1.001)

    return wrong


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("oversampled_transform", "Fourier transforms"),
        ("extract_slices", "slices of a volume"),
        ("MapProjector.log_likelihood", "likelihood of poses"),
        ("MapProjector.normal_equations", "normal equations of poses"),
        ("shell_sums", "weights of shells"),
        ("solve", "map from sums"),
        ("symmetrise", "symmetry of sums"),
    ],
)
def test_an_operation_that_is_wrong_is_named(
    function: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = attrgetter(function)(selfcheck)
    place = f"cryoinfer.workflows.selfcheck.{function}"
    monkeypatch.setattr(place, a_little_more(right))
    found = {check.name: check for check in selfcheck.self_check()}
    assert not found[name].is_good
    assert found["products of matrices"].is_good


def test_insertion_that_loses_a_weight_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = selfcheck.insert_slices

    def wrong(*words: Any) -> None:
        right(*words[:-1], words[-1] * (1.0 if is_double(words[0]) else 1.001))

    monkeypatch.setattr(selfcheck, "insert_slices", wrong)
    found = {check.name: check for check in selfcheck.self_check()}
    assert not found["insertion into a volume"].is_good


def test_not_a_number_is_a_difference() -> None:
    assert not selfcheck.OperationCheck("x", float("nan"), 1.0).is_good
