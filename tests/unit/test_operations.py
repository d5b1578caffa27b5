"""Which version of an operation runs."""

import pytest
import torch
from torch import Tensor

from cryoinfer import operations
from cryoinfer.operations import Operation, plain_only, without_kernel


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Operation[Tensor, [], str]:
    monkeypatch.setattr(operations, "_kernels_of", {})
    return Operation("x", lambda _: "plain", meta=lambda _: "of meta")


def test_the_device_of_the_first_argument_chooses(named) -> None:
    assert named(torch.zeros(1)) == "plain"
    assert named(torch.zeros(1, device="meta")) == "of meta"


def test_plain_versions_can_be_asked_for(named) -> None:
    with plain_only():
        assert named(torch.zeros(1, device="meta")) == "plain"
    assert named(torch.zeros(1, device="meta")) == "of meta"


def test_an_error_ends_the_asking_too(named) -> None:
    with pytest.raises(KeyError), plain_only():
        raise KeyError
    assert named(torch.zeros(1, device="meta")) == "of meta"


def test_operations_without_a_kernel_are_named(named) -> None:
    assert without_kernel("cpu") == ["x"]
    assert without_kernel("meta") == []
