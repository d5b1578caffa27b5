"""How threads that have nothing to do wait for work, where that can be told."""

import os

_SPINS = 1000  # some tens of microseconds


def wait_briefly_for_work() -> None:
    """Let idle threads look for work for microseconds, and then sleep.

    PyTorch and numba have a pool of threads each. By default GNU OpenMP's threads look
    for work some 10 ms long, and keep another program, or the other pool, from the core
    meanwhile. A run beside a busy core took 3.5 times as long so as with one thread.
    Holds for libraries that are loaded later; what the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
