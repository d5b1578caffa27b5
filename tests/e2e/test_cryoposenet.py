"""The option --method cryoposenet of abinitio, from files to a folder."""

import json
from pathlib import Path

import pytest
from torch import Tensor
from typer.testing import CliRunner, Result

from cryoinfer.cli.app import app
from cryoinfer.data.particles import Particles
from cryoinfer.inference.published_training import PublishedConfig, PublishedModel
from cryoinfer.records import ParticleBatch

COUNT = 120


def cryoinfer(*words: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "sim"
    words = ["--n", COUNT, "--box", 24, "--pixel-size", 3.8, "--snr-db", 10]
    answer = cryoinfer("simulate", "adenylate-kinase-open", *words, "--out", folder)
    assert answer.exit_code == 0, answer.output
    return folder


def train(particles: Path, run: Path, *words: object) -> Result:
    given = ["--method", "cryoposenet", "--threads", 1, "--out", run]
    return cryoinfer("abinitio", particles, *given, *words)


def test_known_poses_end_in_a_map(simulated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer = train(simulated / "truth.star", run, "--head", "known", "--steps", 20)
    assert answer.exit_code == 0, answer.output
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["arguments"]["head"] == "known"
    assert record["results"]["structure_found"] is True
    assert record["results"]["evidence"]["astray_share"] < 0.1
    assert "auto-encoder" in record["stage_seconds"]
    page = (run / "report.html").read_text()
    # What the halves prove.
    assert "Their poses were given" in page
    assert "from one map" not in page + answer.output
    assert "--head" in page
    assert "runs converged" not in answer.output + page
    found = Particles.load(run / "particles.star")
    assert len(found) == COUNT
    assert found.random_subset is not None
    # Judged like any other run.
    answer = cryoinfer("evaluate", run, "--truth", simulated, "--threads", 1)
    assert answer.exit_code == 0, answer.output


def test_a_run_that_has_not_converged_has_found_nothing(
    simulated: Path, tmp_path: Path
) -> None:
    run, particles = tmp_path / "run", simulated / "particles.star"
    words = ("--head", "free", "--steps", 60)
    answer = train(particles, run, *words)
    assert "variance is left" in answer.output
    assert answer.exit_code == 3, answer.output
    assert "the poses do not fit the map" in answer.output
    assert "Resolution  none" in answer.output
    # Before the training, and in the summary.
    assert answer.output.count("Caution: 0 of 10 runs of free poses converged") == 2
    record = json.loads((run / "run.json").read_text())
    assert record["results"]["structure_found"] is False
    assert record["results"]["resolution_angstrom"] is None
    page = (run / "report.html").read_text()
    assert "the poses do not fit the map" in page
    assert "learned together with one map" in page
    assert "0 of 10 runs of free poses converged" in page
    # So does the same command when it is asked again.
    again = train(particles, run, *words, "--resume")
    assert again.exit_code == 3
    assert "there is nothing to do" in again.output


def test_an_interrupted_run_goes_on_with_the_same_bits(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(steps: int) -> PublishedConfig:
        return PublishedConfig(steps, batch=16, check_every=2)

    monkeypatch.setattr("cryoinfer.cli.published_method.PublishedConfig", short)
    particles, words = simulated / "particles.star", ("--steps", 3, "--seed", 5)
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(particles, whole, *words).exit_code == 3

    taken, loss = [], PublishedModel.loss

    def stop_at_the_third(model: PublishedModel, batch: ParticleBatch) -> Tensor:
        taken.append(batch)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return loss(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PublishedModel, "loss", stop_at_the_third)
        answer = train(particles, run, *words)
    assert "--resume goes on from its last checkpoint" in answer.output
    answer = train(particles, run, "--steps", 4, "--seed", 5, "--resume")
    assert answer.exit_code == 2
    assert "started with --steps 3" in answer.stderr
    # The first two steps are not taken again.
    answer = train(particles, run, *words, "--resume")
    assert answer.exit_code == 3, answer.output
    assert "step 3: " in answer.output
    assert "step 2: " not in answer.output
    for name in ("posteriors.npz", "map.mrc"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert not (run / "checkpoint.pt").exists()


def test_plans_and_refusals(simulated: Path, tmp_path: Path) -> None:
    run, particles = tmp_path / "run", simulated / "particles.star"
    answer = train(particles, run, "--dry-run")
    assert answer.exit_code == 0, answer.output
    assert "Caution: 0 of 30 runs" in answer.output
    assert "min" in answer.stdout.partition("Time")[2].splitlines()[0]
    answer = train(particles, run, "--head", "known")
    assert answer.exit_code == 2
    assert "takes those of the file" in answer.stderr
    answer = train(particles, run, "--symmetry", "C4")
    assert answer.exit_code == 2
    assert "--symmetry does not go with --method cryoposenet" in answer.stderr
    answer = cryoinfer("abinitio", particles, "--steps", 5, "--out", run)
    assert answer.exit_code == 2
    assert "--steps goes with --method cryoposenet" in answer.stderr
    words = ["--map", simulated / "truth.mrc", "--method", "cryoposenet"]
    assert cryoinfer("refine", particles, *words, "--out", run).exit_code == 2
    assert "0 of 30 runs converged" in cryoinfer("abinitio", "--help").output
    assert not run.exists()
