"""A workflow that knows its answer at once, and a run that it has made."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cryoinfer.cli import runs
from cryoinfer.cli.options import RunOptions
from cryoinfer.data.particles import Particles
from cryoinfer.interfaces import Monitor
from cryoinfer.results.run_result import RunResult
from cryoinfer.world import World

Workflow = Callable[..., RunResult]


@pytest.fixture
def workflow(result: RunResult) -> Workflow:
    """Return a workflow that gives the result, in one stage with a checkpoint."""

    def run(
        particles: Particles,
        config: object,
        monitor: Monitor,
        world: World,
        device: torch.device,
    ) -> RunResult:
        monitor.stage("search", len(particles))
        monitor.save_checkpoint({"step": 1, "poses": torch.eye(3)})
        monitor.advance(len(particles))
        return result

    return run


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def options(tmp_path: Path, simulated: Path) -> RunOptions:
    return RunOptions(
        workflow="abinitio",
        particles=simulated / "particles.star",
        out=tmp_path / "run",
        threads=1,
    )


@pytest.fixture
def finished(
    options: RunOptions, workflow, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(runs, "abinitio", workflow)
    runs.run(options, screen)
    return options.out
