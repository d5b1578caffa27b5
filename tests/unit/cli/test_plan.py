"""What would be done, and what it would take."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cryoinfer.cli import runs
from cryoinfer.cli.app import app
from cryoinfer.cli.estimate import (
    Estimate,
    MotionWork,
    estimate_inference,
    estimate_motions,
    estimate_run,
    estimate_training,
)
from cryoinfer.cli.options import RunOptions
from cryoinfer.data.particles import Particles
from cryoinfer.world import ALONE


def test_motions_tell_what_they_take_and_write_nothing(
    simulated: Path, tmp_path: Path
) -> None:
    words = ["dynamics", str(simulated / "particles.star"), "--modes", "2"]
    words += ["--structure", "adenylate-kinase-open", "--out", str(tmp_path / "run")]
    answer = CliRunner().invoke(app, [*words, "-j", "1", "--dry-run"])
    assert answer.exit_code == 0, answer.output
    for word in (
        "cryoinfer dynamics, 2 modes of 1,656 atoms, into",
        "120 of 16 px",
        "1 thread\n",
        "Memory",
        "Disk",
        "Time",
        "Nothing was written.",
    ):
        assert word in answer.output
    assert not (tmp_path / "run").exists()


def test_estimates_are_those_of_the_benchmarks() -> None:
    # benchmarks/README.md: 393 s for 7,000 steps on two cores (section 9), posteriors
    # of 1,695 images of 128 pixels a second (9), 1,416 s for 10,000 images of 96 pixels
    # on one core that other work shared (20). Within a factor of two, as they say.
    def near(found: float, measured: float) -> bool:
        return measured / 2 < found < 2 * measured

    assert near(estimate_training(7000, 32, 128, 2).seconds, 393)
    posteriors = 100_000 / 1695  # the map comes on top
    assert posteriors < estimate_inference(100_000, 128, 2).seconds < 3 * posteriors
    work = MotionWork(atoms=1656, modes=3, steps=0, side=32, draws=0, rounds=0)
    assert near(estimate_motions(work, 10_000, 96, 1).seconds, 1416)


@pytest.mark.parametrize("more", ["atoms", "modes", "steps", "draws", "rounds"])
def test_more_work_takes_longer(more: str) -> None:
    work = MotionWork(atoms=1656, modes=3, steps=100, side=32, draws=1, rounds=1)
    longer = replace(work, **{more: 4 * getattr(work, more)})
    seconds = [estimate_motions(one, 1000, 64, 2).seconds for one in (work, longer)]
    assert seconds[0] < seconds[1]


def planned(options: RunOptions) -> Estimate:
    return runs._Job.prepare(options, ALONE).plan().estimate


def test_more_random_starts_take_longer(options: RunOptions) -> None:
    two, fifty = (planned(replace(options, starts=n)) for n in (2, 50))
    # Benchmarks, section 1: two starts take 5 s on two cores.
    assert fifty.seconds - two.seconds == pytest.approx(48 * 5.0)


def test_particles_that_are_left_out_take_no_time(
    options: RunOptions, simulated: Path, screen: Console
) -> None:
    flags = np.arange(120) % 2
    path = simulated / "half.star"
    truth = Particles.load(simulated / "truth.star")
    truth.with_results(columns={"cryoinferFlag": flags}).save(path)
    asked = replace(options, workflow="reconstruct", particles=path)
    found = planned(asked)
    assert found.seconds == estimate_run("reconstruct", 60, 16, 1).seconds
    # All are written.
    assert found.disk_bytes == estimate_run("reconstruct", 120, 16, 1).disk_bytes
    runs.run(replace(asked, dry_run=True), screen)
    assert isinstance(screen.file, io.StringIO)
    assert "60 of 120 particles are left out" in screen.file.getvalue()
