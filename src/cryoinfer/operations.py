"""Which version of a computation runs: by the kind of device that its tensors are on.

An operation has a plain version in PyTorch's own functions, which runs on every device,
and kernels for some kinds of device. All versions take and return the same tensors. A
kernel for another kind of device is a function in a file of its own, beside that of the
CPU, and one more word where the operation is defined.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar

import torch


class OnDevice(Protocol):
    """A tensor, or a record of tensors that are on one device."""

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""


First = TypeVar("First", bound=OnDevice)
Others = ParamSpec("Others")
Result = TypeVar("Result")

_plain_only = ContextVar("plain_only", default=False)
_kernels_of: dict[str, frozenset[str]] = {}


class Operation(Generic[First, Others, Result]):
    """A computation that chooses its version by the device of its first argument.

    Parameters
    ----------
    name : str
        What messages call it.
    plain : callable
        The version for every device, in the precision of its arguments.
    **kernels : callable
        Versions for one kind of device each, as ``cpu`` or ``cuda``.

    Attributes
    ----------
    plain : callable
    """

    def __init__(
        self,
        name: str,
        plain: Callable[Concatenate[First, Others], Result],
        **kernels: Callable[Concatenate[First, Others], Result],
    ) -> None:
        self.plain = plain
        self._kernels = kernels
        _kernels_of[name] = frozenset(kernels)

    def __call__(
        self, first: First, *others: Others.args, **named: Others.kwargs
    ) -> Result:
        """Run the version for the device of ``first``."""
        version = self._kernels.get(first.device.type, self.plain)
        if _plain_only.get():
            version = self.plain
        return version(first, *others, **named)


@contextmanager
def plain_only() -> Iterator[None]:
    """Run the plain version of every operation, also where there is a kernel."""
    before = _plain_only.set(True)
    try:
        yield
    finally:
        _plain_only.reset(before)


def without_kernel(device_type: str) -> list[str]:
    """Return the names of the operations that run as plain PyTorch there, sorted.

    Of those operations that have been imported.

    Parameters
    ----------
    device_type : str
        As ``cpu`` or ``cuda``.
    """
    names = _kernels_of.items()
    return sorted(name for name, kernels in names if device_type not in kernels)
