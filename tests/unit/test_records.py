"""Records of tensors: taken apart, joined, and kept as plain dicts."""

import io
from dataclasses import dataclass, fields

import pytest
import torch

from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.records import Indexable, Latents, Optics, Pose


@dataclass(frozen=True)
class Labelled(Indexable):
    """A record in which another lies, in which yet another lies."""

    label: torch.Tensor
    latents: Latents


def latents(n: int, seed: int = 0) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    pose = Pose(random_rotations(n, generator), values[:, :2])
    return Latents(pose, values[:, 2], values[:, 3:])


def labelled(n: int, seed: int = 0) -> Labelled:
    return Labelled(torch.arange(n) + 100 * seed, latents(n, seed))


def require_same(one: Indexable, other: Indexable) -> None:
    torch.testing.assert_close(one.to_state(), other.to_state(), rtol=0, atol=0)


def test_a_state_is_of_dicts_and_tensors_and_gives_back_the_record() -> None:
    made = labelled(3)
    state = made.to_state()
    assert list(state) == ["label", "latents"]
    assert torch.equal(state["latents"]["pose"]["rotation"], made.latents.pose.rotation)
    torch.save(state, file := io.BytesIO())
    file.seek(0)
    # As checkpoints are read: nothing but tensors and what holds them.
    again = Labelled.of_state(torch.load(file, weights_only=True))
    assert isinstance(again, Labelled)
    assert isinstance(again.latents, Latents)
    assert isinstance(again.latents.pose, Pose)
    require_same(again, made)


def test_a_state_of_other_names_is_refused() -> None:
    state = labelled(3).to_state()
    del state["latents"]["pose"]["shift_angstrom"]
    with pytest.raises(KeyError, match="shift_angstrom"):
        Labelled.of_state(state)


def test_a_state_of_a_flat_record_is_its_tensors() -> None:
    optics = Optics.without_ctf(2, 1.5)
    assert list(optics.to_state()) == [field.name for field in fields(Optics)]
    require_same(Optics.of_state(optics.to_state()), optics)


def test_rows_of_nested_records_are_replaced() -> None:
    whole, part = labelled(5), labelled(2, seed=1)
    found = whole.with_rows(torch.tensor([3, 1]), part)
    assert found.label.tolist() == [0, 101, 2, 100, 4]
    require_same(found[torch.tensor([3, 1])], part)
    rest = torch.tensor([0, 2, 4])
    require_same(found[rest], whole[rest])
    # Neither is changed in place.
    require_same(whole, labelled(5))


def test_places_in_several_dimensions_are_replaced() -> None:
    table = latents(6)[torch.arange(6).view(2, 3)]
    rows, columns = torch.tensor([0, 1]), torch.tensor([2, 0])
    part = latents(2, seed=1)
    found = table.with_rows((rows, columns), part)
    require_same(found[rows, columns], part)
    require_same(found[:, 1], table[:, 1])


def test_parts_of_nested_records_are_joined_in_order() -> None:
    whole = labelled(5)
    require_same(Labelled.joined([whole[:2], whole[2:3], whole[3:]]), whole)
