"""Orthogonal steps reach the weights that they belong to."""

import copy

import torch
from torch import nn

from cryoinfer.inference.optimiser import Optimiser


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6, 5)
    )
    for weight in layers.parameters():
        if weight.dim() == 4:
            weight.data = weight.contiguous(memory_format=torch.channels_last)
    return layers


def learn(layers: nn.Sequential, optimiser: Optimiser) -> None:
    picture = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    layers.zero_grad()
    layers(picture).square().sum().backward()
    optimiser.step(0.01)


def test_the_first_step_of_a_hidden_matrix_is_nearly_orthogonal() -> None:
    layers = network()
    before = layers[1].weight.detach().clone()
    learn(layers, Optimiser(layers, ends=("0.", "3.")))
    change = (layers[1].weight.detach() - before).flatten(1) / (20 * 0.01)
    values = torch.linalg.svdvals(change)
    own = torch.linalg.svdvals(layers[1].weight.grad.flatten(1))
    # Muon's five iterations bring large singular values to 0.7 .. 1.2, and raise the
    # smallest, here 30 times below the largest, by a factor of several.
    assert own.max() / own.min() > 20
    assert values.max() / values.min() < 5
    assert 0.7 < values.max() < 1.3


def test_ends_and_biases_are_learned_too() -> None:
    layers = network()
    before = [weight.detach().clone() for weight in layers.parameters()]
    learn(layers, Optimiser(layers, ends=("0.", "3.")))
    for old, new in zip(before, layers.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_a_state_goes_on_as_before() -> None:
    one, other = network(), network()
    first, second = (Optimiser(x, ends=("0.", "3.")) for x in (one, other))
    learn(one, first)
    other.load_state_dict(one.state_dict())
    # States hold the optimiser's own tensors.
    second.load(copy.deepcopy(first.state()))
    learn(one, first)
    learn(other, second)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
