"""What all tests share: a core each, no window, and GPU tests that skip loudly."""

import os

import pytest

os.environ["MPLBACKEND"] = "Agg"


def pytest_configure() -> None:
    """Give a worker a core of its own, as if there were no other.

    Two workers that have all cores wait for each other's threads.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        number = int(worker.removeprefix("gw"))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Libraries count the cores when they are imported.
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="this machine has no CUDA device"))
