"""A run in a folder whose name is no UTF-8 is a run like others."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cryoinfer.cli import evaluate, map_files, runs
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.report_page import write_report
from cryoinfer.data.particles import Particles
from cryoinfer.results.run_result import RunResult


@pytest.mark.parametrize(
    "name",
    [
        os.fsdecode(b"M\xfcller"),
        pytest.param("Müller", marks=pytest.mark.slow),
        pytest.param("it's # 1", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_read_by_every_command(
    tmp_path: Path,
    simulated: Path,
    options: RunOptions,
    workflow: Callable[..., RunResult],
    screen: Console,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(runs, "abinitio", workflow)
    folder = tmp_path / name
    shutil.copytree(simulated, folder)
    here = replace(options, particles=folder / "particles.star", out=folder / "run")
    runs.run(here, screen)
    assert len(Particles.load(folder / "run" / "particles.star")) == 120
    assert "cryoinfer abinitio" in (folder / "run" / "log.txt").read_text()
    evaluate.evaluate(folder / "run", folder, screen)
    map_files.flip(map_files.FlipOptions(folder / "run", folder / "flipped"), screen)
    write_report(folder / "flipped")
    assert "<svg" in (folder / "flipped" / "report.html").read_text()
    # From another folder the names of the stacks are paths.
    elsewhere = tmp_path / "elsewhere.star"
    Particles.load(folder / "run" / "particles.star").save(elsewhere)
    assert len(Particles.load(elsewhere)) == 120
