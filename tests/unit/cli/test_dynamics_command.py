"""The command about motions: which particles it uses, and what it refuses."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.cli.dynamics import DynamicsOptions, dynamics
from cryoinfer.cli.particle_options import AS_WRITTEN
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.conventions.relion import table_to_relion
from cryoinfer.io.conventions.table import ImageReferences
from cryoinfer.io.mrc import StackWriter, read_map
from cryoinfer.results.flags import FLAG
from cryoinfer.results.run_record import RunRecord

COUNT, NOVEL, UNREADABLE = 16, 3, 5  # particles, and the rows of flagged ones


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with particles and their truth."""
    folder = tmp_path_factory.mktemp("moving")
    config = SimulationConfig(n=COUNT, box=32, pixel_size_angstrom=4.0, snr_db=5.0)
    simulate(config, folder, SilentMonitor())
    return folder


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=200)


def asked(particles: Path, out: Path, **more: object) -> DynamicsOptions:
    settings: dict[str, object] = {
        "particles": particles,
        "out": out,
        "structure": "adenylate-kinase-open",
        "modes": 1,
        "amplitude": 2.0,
        "cutoff": 15.0,
        "poses": "given",
        "shift": None,
        "defocus_error": 0.0,
        "steps": 20,
        "side": 16,
        "draws": 0,
        "symmetry": "C1",
        "inference": "refinement",
        "learn": 0,
        "reading": AS_WRITTEN,
        "seed": 0,
        "threads": 1,
        "resume": False,
        "overwrite": False,
    }
    return DynamicsOptions(**(settings | more))  # type: ignore[arg-type]


def test_flagged_particles_are_left_out_and_stay_in_the_files(
    moving: Path, tmp_path: Path, screen: Console
) -> None:
    before = Particles.load(moving / "truth.star")
    flags = np.zeros(COUNT, dtype=np.int64)
    flags[[NOVEL, UNREADABLE]] = 1, 2
    given = moving / "flagged.star"
    before.with_results(columns={FLAG: flags}).save(given)
    dynamics(asked(given, tmp_path / "run"), screen)
    said = f"2 of {COUNT} particles are left out, as an earlier run has flagged them"
    assert isinstance(screen.file, io.StringIO)
    assert said in screen.file.getvalue()
    assert said in (tmp_path / "run" / "log.txt").read_text()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "0 unreadable, 2 left out as an earlier run flagged them" in page
    assert f"<li>{said}" in page
    found = json.loads((tmp_path / "run" / "run.json").read_text())["results"]
    assert found["flagged_left_out"] == 2
    assert (found["particles"], found["unreadable"]) == (COUNT, 0)
    after = Particles.load(tmp_path / "run" / "particles.star")
    assert (after.table.results[FLAG] == flags).all()
    # What was left out keeps its pose, to six decimals.
    assert before.pose is not None
    assert after.pose is not None
    moved = (after.pose.shift_angstrom - before.pose.shift_angstrom).norm(dim=1)
    left = torch.from_numpy(flags != 0)
    assert moved[left].max() < 1e-5
    assert moved[~left].median() > 0.01
    # Half-maps of all conformations, and how far they agree.
    half1, half2 = (read_map(tmp_path / "run" / f"half{k}.mrc").density for k in (1, 2))
    assert half1.shape == half2.shape == (32, 32, 32)
    assert not np.array_equal(half1, half2)
    assert (tmp_path / "run" / "fsc.star").exists()
    assert "Half-maps" in screen.file.getvalue()
    table = pd.read_parquet(tmp_path / "run" / "latents.parquet")
    assert (table[FLAG] == flags).all()
    assert (table["mode_1"].isna() == (flags != 0)).all()


def test_poses_of_a_run_that_found_nothing_are_not_taken_in_silence(
    moving: Path, tmp_path: Path, screen: Console
) -> None:
    run = tmp_path / "nothing"
    run.mkdir()
    Particles.load(moving / "truth.star").save(run / "particles.star")
    record = RunRecord.of_now("abinitio", {}, {}, 0, 1)
    replace(record, results={"structure_found": False}).write(run)
    dynamics(asked(run / "particles.star", tmp_path / "run"), screen)
    said = "found no structure"
    assert isinstance(screen.file, io.StringIO)
    assert said in screen.file.getvalue()
    assert said in (tmp_path / "run" / "report.html").read_text()
    assert said in (tmp_path / "run" / "log.txt").read_text()
    found = json.loads((tmp_path / "run" / "run.json").read_text())["results"]
    assert any(said in text for text in found["cautions"])


def test_particles_that_are_all_flagged_are_refused(
    moving: Path, tmp_path: Path, screen: Console
) -> None:
    given = moving / "all.star"
    flags = np.ones(COUNT, dtype=np.int64)
    particles = Particles.load(moving / "truth.star")
    particles.with_results(columns={FLAG: flags}).save(given)
    with pytest.raises(InputError, match=f"all {COUNT} particles are flagged"):
        dynamics(asked(given, tmp_path / "run"), screen)
    assert not (tmp_path / "run").exists()


def test_two_particles_have_a_spread_and_one_has_none(
    moving: Path, tmp_path: Path, screen: Console
) -> None:
    particles = Particles.load(moving / "truth.star")
    two, one = moving / "two.star", moving / "one.star"
    particles.select(torch.arange(COUNT) < 2).save(two)
    particles.select(torch.arange(COUNT) < 1).save(one)
    dynamics(asked(two, tmp_path / "two"), screen)
    with np.load(tmp_path / "two" / "posteriors.npz") as arrays:
        assert np.isfinite(arrays["extent_angstrom"]).all()
    for dry_run in (True, False):
        with pytest.raises(InputError, match=r"at least 2 particles .*found 1"):
            dynamics(asked(one, tmp_path / "one", dry_run=dry_run), screen)
    assert not (tmp_path / "one").exists()


def test_two_particles_one_of_which_cannot_be_read_are_one(
    moving: Path, tmp_path: Path, screen: Console
) -> None:
    particles = Particles.load(moving / "truth.star")
    images = particles.batch(torch.arange(2)).images
    images[1, 3, 3] = torch.nan
    with StackWriter(tmp_path / "spoiled.mrcs", 2, 32, 4.0) as writer:
        writer.write(images)
    table = replace(
        particles.select(torch.arange(COUNT) < 2).table,
        images=ImageReferences(
            ("spoiled.mrcs",), np.zeros(2, dtype=np.int64), np.arange(2)
        ),
    )
    table_to_relion(table).write(tmp_path / "spoiled.star")
    with pytest.raises(InputError, match=r"at least 2 particles .*found 1"):
        dynamics(asked(tmp_path / "spoiled.star", tmp_path / "run"), screen)


@pytest.mark.parametrize("wrong", ["no poses", "another symmetry"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_cannot_be_inferred_is_refused_before_anything_is_written(
    moving: Path, tmp_path: Path, screen: Console, wrong: str, dry_run: bool
) -> None:
    particles, message = moving / "particles.star", "expects particles with poses"
    symmetry = "C1"
    if wrong == "another symmetry":
        particles, message = moving / "truth.star", "a model of the point group C2"
        symmetry = "C2"
    options = asked(particles, tmp_path / "run", dry_run=dry_run, symmetry=symmetry)
    with pytest.raises(InputError, match=message):
        dynamics(options, screen)
    assert not (tmp_path / "run").exists()


def test_motions_are_inferred_by_variational_inference(
    moving: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.star"
    Particles.load(moving / "truth.star").select(torch.arange(12)).save(few)
    words = ("--modes", "1", "--poses", "given", "--threads", "1")
    out = tmp_path / "run"
    call = ["dynamics", str(few), "--structure", "adenylate-kinase-open", *words]
    call += ["--inference", "variational", "--out", str(out)]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    record = json.loads((out / "run.json").read_text())
    assert record["arguments"]["inference"] == "variational"
    # Widths are as they were fitted.
    assert set(record["results"]["covariance_inflation"]) == {1.0}
    table = pd.read_parquet(out / "latents.parquet")
    assert len(table) == 12
    assert (table["mode_1_sd"] > 0).all()
    # The structure is at rest, and images of 5 dB tell an amplitude to less than 1 A of
    # the prior's 2 A.
    assert table["mode_1"].abs().median() < 1.0
    assert table["mode_1_sd"].median() < 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--inference", "mcmc"), "'mcmc' is not one of"),
        (("--inference", "variational", "--draws", "2"), "leave --draws out"),
    ],
)
def test_an_inference_that_cannot_be_is_refused(
    moving: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    call = ["dynamics", str(moving / "truth.star"), *words, "--out"]
    call += [str(tmp_path / "run"), "--structure", "adenylate-kinase-open"]
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    refused = CliRunner().invoke(app, call, env=environment)
    assert refused.exit_code == 2
    assert refused.output.count(message) == 1
    assert "Traceback" not in refused.output
    assert not (tmp_path / "run").exists()
