"""Which device a command computes on, on machines that this one is not."""

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from cryoinfer.cli import runs
from cryoinfer.cli.device import chosen_device, device_words
from cryoinfer.cli.options import RunOptions
from cryoinfer.errors import ResourceError
from cryoinfer.operations import without_kernel
from cryoinfer.results.run_record import RunRecord
from cryoinfer.results.run_result import RunResult


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Return a function that plays a machine with so many GPUs."""

    def play(count: int, build: str | None = "12.8") -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H100")
        monkeypatch.setattr(torch.version, "cuda", build)

    return play


def test_a_gpu_is_taken_if_it_is_asked_for(gpus) -> None:
    gpus(1)
    assert chosen_device("auto") == chosen_device("cpu") == torch.device("cpu")
    assert chosen_device("cuda") == torch.device("cuda", 0)


def test_processes_of_a_machine_take_its_gpus_in_turn(gpus, monkeypatch) -> None:
    gpus(2)
    found = []
    for rank in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        found.append(chosen_device("cuda").index)
    assert found == [0, 1, 0]


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (None, "built without CUDA.*install"),
        ("12.8", "built for CUDA 12.8.*nvidia-smi"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(gpus, build, advice) -> None:
    gpus(0, build)
    with pytest.raises(ResourceError, match=f"found none.*{advice}"):
        chosen_device("cuda")


def test_what_has_no_kernel_there_is_named(gpus) -> None:
    gpus(1)
    (words,) = device_words(torch.device("cuda", 0))
    assert "H100 (cuda:0)" in words
    named = without_kernel("cuda")
    assert "local refinement of poses" in named
    assert all(name in words for name in named)
    assert device_words(torch.device("cpu")) == []


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    options: RunOptions, screen: Console, gpus
) -> None:
    gpus(0)
    with pytest.raises(ResourceError, match="found none"):
        runs.run(replace(options, device="cuda"), screen)
    assert not options.out.exists()


def test_a_run_on_a_gpu_says_so_once_and_records_it(
    options: RunOptions, screen: Console, workflow, gpus, monkeypatch
) -> None:
    seen = []

    def on_device(*given: Any) -> RunResult:
        seen.append(given[4])
        return workflow(*given)

    gpus(1)
    monkeypatch.setattr(runs, "abinitio", on_device)
    runs.run(replace(options, device="cuda"), screen)
    assert seen == [torch.device("cuda", 0)]
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().count("inserted on H100") == 1
    log = (options.out / "log.txt").read_text()
    assert "symmetry of sums" in log
    record = RunRecord.read(options.out)
    assert record.machine["device"] == "cuda:0"
    assert "device" not in record.arguments
