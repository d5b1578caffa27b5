"""The option --method: some particles searched, all of them inferred."""

import functools
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cryoinfer.cli import runs
from cryoinfer.cli.app import app
from cryoinfer.data.particles import Particles
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.workflows import amortize
from cryoinfer.workflows.train import EncoderConfig

COUNT, SUBSET = 240, 150
TINY = EncoderConfig(
    network=PoseNetworkConfig(side=16, components=3, width=8),
    training=TrainingConfig(steps=4, batch=16, check_every=2),
)


def cryoinfer(*words: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "sim"
    words = ["--n", COUNT, "--box", 32, "--pixel-size", 3.2, "--snr-db", 10]
    answer = cryoinfer(
        "simulate", "adenylate-kinase-open", *words, "--shift", 3, "--out", folder
    )
    assert answer.exit_code == 0, answer.output
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the parts be short: what they are made of is chosen by the program."""
    config = functools.partial(amortize.AmortizeConfig, subset=SUBSET)
    monkeypatch.setattr(runs, "AmortizeConfig", config)
    monkeypatch.setattr(runs, "fitting_encoder", lambda box: TINY)


def test_all_particles_come_back_from_a_search_of_some(
    simulated: Path, tmp_path: Path
) -> None:
    run, particles = tmp_path / "run", simulated / "particles.star"
    words = ["--method", "amortized", "--starts", 1, "--threads", 1, "--out", run]
    answer = cryoinfer("abinitio", particles, *words)
    assert answer.exit_code == 0, answer.output
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["arguments"]["method"] == "amortized"
    assert record["results"]["particles"] == COUNT
    assert record["results"]["searched_particles"] == SUBSET
    assert record["results"]["verdict"].startswith(("too short", "not converged"))
    stages = [name.partition(":")[0] for name in record["stage_seconds"]]
    assert set(stages) == {"subset", "encoder", "all particles"}
    # What the halves prove is said beside the number.
    assert "of half-maps with poses from one map" in answer.output
    assert "of halves refined apart" in answer.output
    assert record["results"]["verdict"] in answer.output
    assert "--method" in (run / "report.html").read_text()
    found = Particles.load(run / "particles.star")
    assert len(found) == COUNT
    assert found.pose is not None
    assert found.random_subset is not None
    # The encoder stays, for particles that are yet to come.
    new = tmp_path / "new"
    answer = cryoinfer("infer", run, particles, "--threads", 1, "--out", new)
    assert answer.exit_code == 0, answer.output


@pytest.mark.slow
def test_an_interrupted_run_goes_on_behind_its_search(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, truth = tmp_path / "run", simulated / "truth.star"
    words = ["--threads", 1, "--out", run]
    chosen = ["--method", "semi-amortized"]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(amortize, "infer", stop)
        answer = cryoinfer("refine", truth, *words, *chosen)
    assert answer.exit_code != 0
    assert "--resume goes on from its last checkpoint" in answer.output
    answer = cryoinfer("refine", truth, *words, "--resume")
    assert answer.exit_code != 0
    assert "started with --method semi-amortized" in answer.stderr
    monkeypatch.setattr(runs, "refine", stop)
    answer = cryoinfer("refine", truth, *words, *chosen, "--resume")
    assert answer.exit_code == 0, answer.output
    assert len(Particles.load(run / "particles.star")) == COUNT
    assert not (run / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_refinement_from_a_map_is_of_some_particles_too(
    simulated: Path, tmp_path: Path
) -> None:
    words = ["--map", simulated / "truth.mrc", "--method", "semi-amortized"]
    words += ["--resolution", 9, "--refine-defocus", "--threads", 1]
    answer = cryoinfer(
        "refine", simulated / "particles.star", *words, "--out", tmp_path / "run"
    )
    assert answer.exit_code == 0, answer.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["results"]["searched_particles"] == SUBSET


def test_a_plan_counts_the_training_in(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "fitting_encoder", lambda box: EncoderConfig())
    particles, out = simulated / "particles.star", tmp_path / "run"
    words = ["--threads", 1, "--dry-run", "--out", out]
    times = {}
    for method in ("search", "semi-amortized"):
        answer = cryoinfer("abinitio", particles, *words, "--method", method)
        assert answer.exit_code == 0, answer.output
        times[method] = answer.stdout.partition("Time")[2].splitlines()[0].strip()
    assert "s" in times["search"]
    assert "min" in times["semi-amortized"]
    assert not out.exists()
    assert cryoinfer("abinitio", particles, "--method", "guess", *words).exit_code == 2
