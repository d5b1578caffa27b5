"""Mixing against fixed points that are known."""

import pytest
import torch
from torch import Tensor

from cryoinfer.workflows.acceleration import AndersonStep, next_references

SIDE = 4


def noise(seed: int) -> Tensor:
    return torch.randn(SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


class Linear:
    """A pass that contracts each direction by a factor of its own."""

    def __init__(self, factors: Tensor) -> None:
        self.factor = factors.view(SIDE, SIDE, SIDE)
        self.fixed = noise(1)

    def __call__(self, density: Tensor) -> Tensor:
        return self.fixed + self.factor * (density - self.fixed)

    def error(self, density: Tensor) -> float:
        return float((density - self.fixed).norm())


def run(step: Linear, passes: int, memory: int) -> float:
    """Return the distance from the fixed point, both halves alike."""
    reference, rounds = noise(2), ()
    for _ in range(passes):
        made = step(reference)
        rounds = (AndersonStep(7, (reference, reference), (made, made)), *rounds)[
            :memory
        ]
        reference, other = next_references(rounds)
        assert torch.equal(reference, other)
    return step.error(reference)


def test_one_factor_is_seen_through_at_once() -> None:
    step = Linear(torch.full((SIDE**3,), 0.7))
    # Rounding of the extrapolation, and the ridge.
    assert run(step, passes=2, memory=2) < 1e-4 * step.error(noise(2))


def test_a_slow_direction_among_fast_ones_is_reached_sooner() -> None:
    factors = torch.linspace(0.0, 0.3, SIDE**3)
    factors[0] = 0.75
    step = Linear(factors)
    assert run(step, passes=6, memory=3) < 0.1 * run(step, passes=6, memory=1)


def test_passes_of_another_radius_or_size_do_not_count() -> None:
    small, large = torch.zeros(2, 2, 2), noise(3)
    latest = AndersonStep(9, (noise(4), noise(5)), (large, large))
    for before in (
        AndersonStep(8, (noise(6), noise(7)), (noise(8), noise(9))),
        AndersonStep(9, (small, small), (noise(8), noise(9))),
    ):
        found = next_references((latest, before))
        assert found[0] is large
        assert found[1] is large


@pytest.mark.parametrize("grown", [True, False])
def test_a_map_that_grew_is_taken_as_it_is(grown: bool) -> None:
    small, large = torch.zeros(2, 2, 2), noise(3)
    tried = small if grown else large
    latest = AndersonStep(9, (tried, tried), (large, large))
    assert next_references((latest,))[0] is large


def test_a_pass_that_does_not_contract_is_not_thrown_far() -> None:
    step = Linear(torch.full((SIDE**3,), 0.999))
    start = noise(2)
    # Of the last change, a thousandth of the error, four lengths at most.
    assert run(step, passes=2, memory=2) > 0.99 * step.error(start)
