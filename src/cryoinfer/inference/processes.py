"""The processes that share a work, where ``torch.distributed`` has been initialised."""

from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def place() -> tuple[int, int]:
    """Return the number of this process, and how many there are: 0 of 1 if alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def told_by_first(value: T) -> T:
    """Return the value that the first process gives; all must ask."""
    told = [value]
    if place()[1] > 1:
        distributed.broadcast_object_list(told, src=0)
    return told[0]
