"""Run the command line: ``cryoinfer``, or ``python -m cryoinfer``."""

import os
import sys

from cryoinfer.cli.signals import ENDING
from cryoinfer.memory_allocator import keep_freed_memory
from cryoinfer.thread_waiting import wait_briefly_for_work


def main() -> None:
    """Run the command line, and end with its exit code whatever signal arrives."""
    with ENDING:
        try:
            wait_briefly_for_work()
            from cryoinfer.cli.app import main as run

            keep_freed_memory()
            run()
        except KeyboardInterrupt:  # before the command has begun
            sys.exit(ENDING.code or 130)
        finally:
            ENDING.leave_to_the_system()
            _flush()


def _flush() -> None:
    """Write what is left for the terminal; Python would complain of a full disk."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
