"""A command that is interrupted at its n-th event: at the same moment anywhere.

Events are what a run tells its monitor, and the files that it writes. Run as a script,
with the number of a signal, of an event and the words of a command, it is a process
that can be killed.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

_TOLD = ("stage", "advance", "message", "save_checkpoint")

_SMALLER = {
    "cryoinfer.workflows.train._FEWEST_FITTED": 50,
    "cryoinfer.inference.training._HELD_BACK": 50,
    "cryoinfer.inference.training._FITTED": 50,
    "cryoinfer.workflows.encoder_calibration.IMAGES": 50,
    "cryoinfer.workflows.problem.CHUNK": 20,
    "cryoinfer.workflows.particle_pass.KEEP_SECONDS": 0.0,
    "cryoinfer.workflows.particle_pass._SEGMENT": 1,
    "cryoinfer.workflows.motion_inference.BATCH": 20,
    "cryoinfer.workflows.motion_learning.BATCH": 20,
    "cryoinfer.workflows.motion_calibration._FEWEST_TRIED": 20,
}
"""Sizes at which a training takes seconds, and checkpoints that come often."""


@contextmanager
def events(at: Callable[[int], object]) -> Iterator[list[int]]:
    """Call a function with the number of each event, from 0; yield them in a list."""
    seen: list[int] = []

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **others: Any) -> Any:
            seen.append(len(seen))
            at(seen[-1])
            return function(*arguments, **others)

        return call

    from cryoinfer.cli.progress import RichMonitor
    from cryoinfer.inference.training import TrainingConfig
    from cryoinfer.io import replacing
    from cryoinfer.workflows.particle_pass import ParticlePass

    for name in _SMALLER:
        # All of them first: what one imports of another is then what it always is.
        importlib.import_module(name.rpartition(".")[0])
    with ExitStack() as stack:
        for name, value in _SMALLER.items():
            stack.enter_context(mock.patch(name, value))
        often = partial(TrainingConfig, batch=8, check_every=4)
        stack.enter_context(mock.patch("cryoinfer.cli.encoders.TrainingConfig", often))
        few = partial(ParticlePass, batch_size=20)
        for workflow in ("infer", "iteration", "reconstruct"):
            name = f"cryoinfer.workflows.{workflow}.ParticlePass"
            stack.enter_context(mock.patch(name, few))
        for name in _TOLD:
            told = counted(getattr(RichMonitor, name))
            stack.enter_context(mock.patch.object(RichMonitor, name, told))
        # Every file of a run takes its place by this, in the middle of its writing.
        placed = mock.patch.object(replacing.os, "fsync", counted(os.fsync))
        stack.enter_context(placed)
        yield seen


def main() -> None:
    """Send this process a signal at an event of a command."""
    number, event = int(sys.argv[1]), int(sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    from cryoinfer.__main__ import main as run

    def at(now: int) -> None:
        if now == event:
            os.kill(os.getpid(), number)

    with events(at):
        run()


if __name__ == "__main__":
    main()
