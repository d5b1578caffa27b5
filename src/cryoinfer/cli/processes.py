"""One command in several processes, as ``torchrun`` starts them.

The first process does all that users see: folder, log, progress, results. The others
only share its work; what they cannot read they refuse as it does.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import distributed

from cryoinfer.errors import InputError
from cryoinfer.world import World


@contextmanager
def joined_processes() -> Iterator[World]:
    """Join the processes that ``torchrun`` has started, if it has.

    With ``gloo``, for what they tell each other lies in the memory of CPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    distributed.init_process_group("gloo")
    try:
        yield World.current()
    finally:
        distributed.destroy_process_group()


@contextmanager
def leading(world: World) -> Iterator[Callable[[], None]]:
    """Yield what bids the other processes begin; entered by the first one alone.

    Without a call they go home at the end, of whatever kind it is: what refuses the
    first process would leave them waiting.
    """
    begun = []

    def begin() -> None:
        begun.append(world.of_first(True))

    try:
        yield begin
    finally:
        if not begun:
            world.of_first(False)


def is_bidden(world: World) -> bool:
    """Wait for the first process, and tell whether this one is to begin."""
    return world.of_first(False)


def require_alone(world: World, what: str, instead: str = "") -> None:
    """Refuse several processes for what runs in one.

    Parameters
    ----------
    world : World
    what : str
        A command, or a method of one.
    instead : str
        What else can be done; follows the advice to leave torchrun out.

    Raises
    ------
    InputError
    """
    if world.size > 1:
        raise InputError(
            f"{what} runs in one process, found {world.size}: leave torchrun out"
            f"{instead}"
        )


def processes_on_this_machine() -> int:
    """Return how many share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def place_on_this_machine() -> int:
    """Return the number of this process among those that share it, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))
