"""One process or many: how a run is shared between the processes of ``torchrun``.

Every process reads the same files and follows the same steps. What costs time, the
particles, is shared out by place, so that results do not depend on who is faster; sums
are added up over all processes, and whatever is decided is decided by the first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor, distributed

from cryoinfer.errors import ResourceError

T = TypeVar("T")

_LOST = ("onnection", "by peer", "imed out")
"""In what gloo says where another process does not answer any more."""


@dataclass(frozen=True)
class World:
    """The processes that share a run; by default one, alone.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Self:
        """Return the world of ``torch.distributed`` where it has been initialised."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this process does all that users see."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """Return those of some rows that are this process's, next to each other."""
        return torch.tensor_split(rows, self.size)[self.rank]

    def add_up(self, *tensors: Tensor) -> None:
        """Add up tensors over all processes, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            own = tensor.cpu()  # where processes tell each other
            with self._answering():
                distributed.all_reduce(own)
            if own is not tensor:
                tensor.copy_(own)

    def gathered(self, part: T) -> list[T]:
        """Return what every process gives, in the order of their numbers."""
        if self.size == 1:
            return [part]
        parts: list[T | None] = [None] * self.size
        with self._answering():
            distributed.all_gather_object(parts, part)
        return [one for one in parts if one is not None]

    def of_first(self, value: T) -> T:
        """Return the value that the first process gives; all must ask."""
        if self.size == 1:
            return value
        values = [value]
        with self._answering():
            distributed.broadcast_object_list(values, src=0)
        return values[0]

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Run a body that waits for the others.

        Raises
        ------
        ResourceError
            If one of them has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if not any(word in str(error) for word in _LOST):
                raise
            raise ResourceError(
                f"expected {self.size} processes, found that one of them has ended: "
                "look for what it said itself, or for who has ended it. A run can then "
                "be continued with --resume."
            ) from error


ALONE = World()
"""The world of one process."""
