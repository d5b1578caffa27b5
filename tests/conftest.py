"""What all tests share: a core each, signals, no window, GPU tests that skip loudly.

With ``--matrix-units`` every product goes through an emulated processor with matrix
units (:class:`MatrixUnits`).
"""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ["MPLBACKEND"] = "Agg"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--matrix-units",
        action="store_true",
        help="emulate a processor that may round the factors of products",
    )


def take_one_core() -> None:
    """Give a worker a core of its own, as if there were no other.

    Two workers that have all cores wait for each other's threads.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        number = int(worker.removeprefix("gw"))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


# Now: libraries count the cores when they are imported, which the conftest.py of a
# folder that is named on the command line does before pytest is configured.
take_one_core()


def pytest_configure(config: pytest.Config) -> None:
    """Hear signals as a shell's command does, and see no GPU but in tests for one.

    A process that was started in the background, or by nohup, ignores SIGINT or SIGHUP,
    and so would every command that a test interrupts. Commands compute on a GPU where
    there is one, which never rounds the same way twice.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Libraries count the cores when they are imported.
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device, or no -m gpu"))


def emulated_matrix_units() -> Any:
    """Return what does to products what a processor with matrix units does.

    Where PyTorch's settings allow it, factors are rounded to bfloat16 and sums stay in
    single precision. Where nothing allows it, nothing changes. So whoever brings such a
    setting back fails here, on any machine, as the processor would.
    """
    import torch
    from torch import Tensor
    from torch.overrides import TorchFunctionMode

    matmul, whole = torch.backends.mkldnn.matmul, torch.backends.mkldnn
    names = "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "conv2d"
    products = {getattr(torch, name) for name in names}
    products |= {getattr(Tensor, name) for name in ("matmul", "mm", "bmm")}
    products |= {Tensor.__matmul__, Tensor.__rmatmul__, torch.nn.functional.linear}

    def rounded(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            return value.bfloat16().float()
        if isinstance(value, list | tuple):
            return type(value)(rounded(part) for part in value)
        return value

    class MatrixUnits(TorchFunctionMode):
        def __torch_function__(
            self,
            function: Callable[..., Any],
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            if function in products and "bf16" in (
                matmul.fp32_precision,
                whole.fp32_precision,
            ):
                args = tuple(rounded(arg) for arg in args)
            return function(*args, **(kwargs or {}))

    return MatrixUnits()


@pytest.fixture(name="matrix_units")
def matrix_units_fixture() -> Callable[[], Any]:
    """Return the function that makes such a processor, a context manager."""
    return emulated_matrix_units


@pytest.fixture(autouse=True, scope="session")
def _processor(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.config.getoption("--matrix-units"):
        yield
        return
    with emulated_matrix_units():
        yield
