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
        rounds = (AndersonStep.of(7, (reference, reference), (made, made)), *rounds)[
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
    latest = AndersonStep.of(9, (noise(4), noise(5)), (large, large))
    for before in (
        AndersonStep.of(8, (noise(6), noise(7)), (noise(8), noise(9))),
        AndersonStep.of(9, (small, small), (noise(8), noise(9))),
    ):
        found = next_references((latest, before))
        assert torch.equal(found[0], large)
        assert torch.equal(found[1], large)


@pytest.mark.parametrize("grown", [True, False])
def test_a_map_that_grew_is_taken_as_it_is(grown: bool) -> None:
    small, large = torch.zeros(2, 2, 2), noise(3)
    tried = small if grown else large
    latest = AndersonStep.of(9, (tried, tried), (large, large))
    assert torch.equal(next_references((latest,))[0], large)


def test_a_pass_that_does_not_contract_is_not_thrown_far() -> None:
    step = Linear(torch.full((SIDE**3,), 0.999))
    start = noise(2)
    # Of the last change, a thousandth of the error, four lengths at most.
    assert run(step, passes=2, memory=2) > 0.99 * step.error(start)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_maps_within_masks_are_mixed_as_whole_ones(lead: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(5)

    def masked(low: int, high: int) -> Tensor:
        density = torch.zeros(*lead, 9, 9, 9)
        cut = (..., slice(low, high), slice(2, high), slice(3, 8))
        density[cut] = torch.randn(density[cut].shape, generator=random)
        return density

    maps = [[masked(low, 7) for _ in range(4)] for low in (1, 2, 3)]
    rounds = tuple(AndersonStep.of(5, (a, b), (c, d)) for a, b, c, d in maps)
    found = next_references(rounds)
    # A voxel that is not zero in a corner keeps all of a map.
    for one in (tensor for four in maps for tensor in four):
        one[..., 0, 0, 0] = one[..., -1, -1, -1] = 1e-30
    whole = tuple(AndersonStep.of(5, (a, b), (c, d)) for a, b, c, d in maps)
    assert whole[0].made[0].values.shape[-3:] == (9, 9, 9)
    assert rounds[2].made[0].values.shape[-3:] == (4, 5, 5)
    for one, other in zip(found, next_references(whole), strict=True):
        # Sums of as many numbers and some zeros, in another order.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_empty_map_stays_empty() -> None:
    empty = torch.zeros(5, 5, 5)
    step = AndersonStep.of(3, (empty, empty), (empty, empty))
    assert torch.equal(next_references((step, step))[0], empty)
