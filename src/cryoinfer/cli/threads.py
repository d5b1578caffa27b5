"""How many threads a command computes with."""

import os

from cryoinfer.cli.processes import processes_on_this_machine


def use_threads(threads: int | None) -> int:
    """Let PyTorch and numba use so many threads.

    By default all that the process may, shared with others of the same command.

    Returns
    -------
    int
        How many were set.
    """
    import numba
    import torch

    if threads is None:
        has_affinity = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
        threads = max(1, cores // processes_on_this_machine())
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set late
    # Numba first: when it starts its threads it sets the number of PyTorch's as well,
    # which are OpenMP's too.
    numba.set_num_threads(min(threads, most))
    torch.set_num_threads(threads)
    return threads
