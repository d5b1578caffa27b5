"""One command in several processes, as ``torchrun`` starts them.

The first process does all that users see: folder, log, progress, results. The others
only share its work; what they cannot read they refuse as it does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed


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
