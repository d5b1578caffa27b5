"""One command in several processes, as ``torchrun`` starts them.

The first process does all that users see: folder, log, progress, results. The others
only share its work.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed

from cryoinfer.interfaces import SilentMonitor


@contextmanager
def joined_processes() -> Iterator[int]:
    """Join the processes that ``torchrun`` has started, if it has; yields one's number.

    With ``gloo``, for all tensors lie in the memory of CPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    distributed.init_process_group("gloo")
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def processes_on_this_machine() -> int:
    """Return how many share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def told_by_first(value: bool) -> bool:
    """Return the value that the first process gives; all must ask."""
    if not distributed.is_initialized():
        return value
    told = [value]
    distributed.broadcast_object_list(told, src=0)
    return told[0]


class Follower(SilentMonitor):
    """What the other processes watch their work with: they begin where the first does.

    Parameters
    ----------
    checkpoint : Path
        Of the first.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint

    def load_checkpoint(self) -> Mapping[str, object] | None:
        """Return the state that the first process goes on from, if there is one."""
        if not self._checkpoint.exists():
            return None
        state: dict[str, object] = torch.load(self._checkpoint, weights_only=True)
        return state
