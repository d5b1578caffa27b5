"""Encoders at the command line: unseen particles, bad ones, and a folder that fills."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from cryoinfer.cli.app import app
from cryoinfer.cli.encoders import _read_training_data
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.inference.outlier_score import InlierStatistics
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_cube, read_map
from cryoinfer.results.layout import PARTICLES
from cryoinfer.results.run_record import RunRecord
from cryoinfer.workflows import infer as infer_workflow
from cryoinfer.workflows.encoder_file import load_encoder, save_encoder
from cryoinfer.workflows.train import EncoderConfig, TrainingData, train_encoder

BOX, PIXEL_SIZE, COUNT = 32, 2.8, 60
SETTINGS = SimulationConfig(
    n=COUNT, box=BOX, pixel_size_angstrom=PIXEL_SIZE, snr_db=0.0
)


def cryoinfer(*words: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two particle files of different images, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("sets")
    first, second = (
        simulate(replace(SETTINGS, seed=seed), folder / str(seed), SilentMonitor())
        for seed in (0, 1)
    )
    return first, second


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, files) -> Path:
    """Return the file of an encoder of three steps, which knows what is usual."""
    particles = Particles.load(files[0])
    # At 0 dB half of the variance is noise, which is white.
    variance = float(particles.images(torch.arange(COUNT)).var()) / 2
    noise = torch.full((BOX // 2 + 1,), variance)
    training_data = TrainingData(
        Simulation.of(SETTINGS).density(), PIXEL_SIZE, (noise,), 1.0, "C1"
    )
    config = EncoderConfig(
        network=PoseNetworkConfig(side=16, components=3, width=8),
        training=TrainingConfig(steps=3, batch=8, check_every=3),
    )
    trained = train_encoder(particles, training_data, config, SilentMonitor())
    # It has learned nothing: with what is usual behind it, all would be novel.
    trained = replace(
        trained, inliers=InlierStatistics(contrast_spread=10.0, power_spread=1.0)
    )
    path = tmp_path_factory.mktemp("encoder") / "encoder.pt"
    save_encoder(path, trained)
    return path


def deliver(star: Path, folder: Path, name: str) -> Path:
    """Put particles into a folder as a data collection does: the stack comes first."""
    folder.mkdir(exist_ok=True)
    shutil.copy(star.with_suffix(".mrcs"), folder / f"{name}.mrcs")
    text = star.read_text().replace("particles.mrcs", f"{name}.mrcs")
    (folder / f"{name}.star").write_text(text)
    return folder / f"{name}.star"


def test_flags_and_counts_are_written_and_told(encoder, files, tmp_path: Path) -> None:
    star = deliver(files[0], tmp_path / "in", "bad")
    stack = np.memmap(star.with_suffix(".mrcs"), "f4", "r+", 1024, (COUNT, BOX, BOX))
    stack[7, 3, 3] = np.nan
    stack[9] = np.inf
    stack.flush()
    run = tmp_path / "run"
    answer = cryoinfer("infer", encoder, star, "--out", run, "--threads", 1)
    assert answer.exit_code == 0, answer.output
    assert "2 with NaN or infinite pixels, the first in row 8" in answer.output
    assert "0 of 58 (0.0%) are flagged" in answer.output
    results = Particles.load(run / "particles.star").table.results
    flag = results["cryoinferFlag"]
    assert flag.tolist() == [2 if row in (7, 9) else 0 for row in range(COUNT)]
    assert (results["cryoinferOutlierScore"] == 1e9).tolist() == (flag == 2).tolist()
    page = (run / "report.html").read_text()
    assert "NaN or infinite pixels" in page
    # What is known of the encoder stands on the screen, on the page and in the record.
    verdict = load_encoder(encoder).verdict
    assert verdict.startswith(("too short", "not converged"))
    said = (answer.output, page, " ".join(RunRecord.read(run).results["cautions"]))
    for text in said:
        assert verdict in text
        assert "have not been tested" in text
        assert "from one map" in text
    assert "independent halves" not in page
    # No encoder is in what is made from the particles.
    assert inherited(run / PARTICLES) == []
    left_out = json.loads((run / "run.json").read_text())["results"]["left_out"]
    assert left_out["unreadable"] == 2
    # None of these is what the next encoder learns from.
    learned, training_data = _read_training_data(
        run, RunRecord.read(run), Particles.load(run / PARTICLES)
    )
    assert len(learned) == COUNT - 2
    assert training_data.density.shape == (BOX,) * 3
    # What the next encoder, and another inference, would take.
    for words in (("train", run, "--side", 16), ("infer", encoder, star)):
        out = tmp_path / "next"
        answer = cryoinfer(*words, "--out", out, "--dry-run", "--threads", 1)
        assert answer.exit_code == 0, answer.output
        assert f"Would run  cryoinfer {words[0]}, " in answer.output
        assert "Nothing was written." in answer.output
        assert not out.exists()
    answer = cryoinfer("infer", encoder, tmp_path, "--out", out, "--watch", "--dry-run")
    assert answer.exit_code == 2
    assert "name a file of the folder" in answer.output


def test_a_seed_chooses_the_halves_and_nothing_else(
    encoder, files, tmp_path: Path
) -> None:
    subsets, sizes = [], []
    for seed in (0, 3):
        run = tmp_path / str(seed)
        words = ["--out", run, "--seed", seed, "--threads", 1]
        answer = cryoinfer("infer", encoder, files[0], *words)
        assert answer.exit_code == 0, answer.output
        assert RunRecord.read(run).seed == seed
        subsets.append(Particles.load(run / PARTICLES).random_subset)
        sizes.append(float(read_map(run / "mask.mrc").density.sum()))
    assert not torch.equal(*subsets)
    # Of other halves, whose filter differs a little.
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_an_interrupted_inference_goes_on(
    encoder, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = ("infer", encoder, files[0], "--threads", 1, "--out", run)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cryoinfer.workflows.particle_pass.KEEP_SECONDS", 0.0)
        patch.setattr(infer_workflow, "reconstruct_inferred", stop)
        answer = cryoinfer(*words)
    assert answer.exit_code != 0
    assert "--resume goes on from its last checkpoint" in answer.output
    answer = cryoinfer(*words)
    assert answer.exit_code == 2
    assert "--resume to go on" in answer.stderr
    # Nothing is left to infer.
    with monkeypatch.context() as patch:
        patch.setattr("cryoinfer.workflows.particle_pass.ParticlePass.infer", stop)
        answer = cryoinfer(*words, "--resume")
    assert answer.exit_code == 0, answer.output
    assert len(Particles.load(run / PARTICLES)) == COUNT
    assert not (run / "checkpoint.pt").exists()
    answer = cryoinfer(*words, "--resume")
    assert answer.exit_code == 0
    assert "is finished: there is nothing to do" in answer.output


def test_a_map_on_another_grid_than_its_particles_teaches_nothing(
    encoder, files, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, box=40)
    larger = simulate(settings, tmp_path / "larger", SilentMonitor())
    run = tmp_path / "run"
    answer = cryoinfer("infer", encoder, larger, "--out", run, "--threads", 1)
    assert answer.exit_code == 0, answer.output
    answer = cryoinfer("train", run, "--out", tmp_path / "never")
    assert answer.exit_code == 2
    assert "has 32 voxels of 2.8 A, its particles 40 pixels of 2.8 A" in answer.stderr
    assert "cryoinfer refine" in answer.stderr


def test_stacks_that_have_moved_are_found_by_a_training(
    encoder, files, tmp_path: Path
) -> None:
    star = deliver(files[0], tmp_path / "first", "particles")
    run = tmp_path / "run"
    answer = cryoinfer("infer", encoder, star, "--out", run, "--threads", 1)
    assert answer.exit_code == 0, answer.output
    star.parent.rename(tmp_path / "moved")
    words = ["train", run, "--out", tmp_path / "out", "--threads", 1, "--side", 64]
    answer = cryoinfer(*words)
    assert answer.exit_code == 2
    assert "--datadir" in answer.stderr
    answer = cryoinfer(*words, "--datadir", tmp_path / "moved")
    # On it goes, to the picture, which is too large.
    assert answer.exit_code == 2
    assert "picture" in answer.stderr


def test_images_of_another_strength_than_the_map_teach_nothing(
    encoder, files, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    answer = cryoinfer("infer", encoder, files[0], "--out", run, "--threads", 1)
    assert answer.exit_code == 0, answer.output
    record = json.loads((run / "run.json").read_text())
    assert record["results"]["prepared_particles"] == 0
    record["results"]["prepared_particles"] = 60
    (run / "run.json").write_text(json.dumps(record))
    answer = cryoinfer("train", run, "--out", tmp_path / "never")
    assert answer.exit_code == 2
    assert "60 images of the run" in answer.stderr
    assert "cryoinfer refine" in answer.stderr


def test_an_encoder_that_knows_nothing_of_the_particles_says_so(
    encoder, files, tmp_path: Path
) -> None:
    # Of particles of ten times the contrast, these are none.
    strict = replace(load_encoder(encoder), inliers=InlierStatistics(contrast=10.0))
    save_encoder(tmp_path / "strict.pt", strict)
    run = tmp_path / "run"
    words = ("--out", run, "--threads", 1)
    answer = cryoinfer("infer", tmp_path / "strict.pt", files[0], *words)
    # Even then there is a report, and a map of nothing.
    assert answer.exit_code == 0, answer.output
    assert "does not know this molecule" in answer.output
    assert "does not know this molecule" in (run / "report.html").read_text()
    assert float(np.abs(read_cube(run / "map.mrc").density).max()) == 0.0


def watch(encoder: Path, folder: Path, run: Path, *words: object) -> Result:
    idle = ["--watch", "--until-idle", 1, "--threads", 1]
    return cryoinfer("infer", encoder, folder, "--out", run, *idle, *words)


@pytest.mark.slow
def test_a_folder_is_inferred_as_it_fills(encoder, files, tmp_path: Path) -> None:
    folder, run = tmp_path / "in", tmp_path / "run"
    deliver(files[0], folder, "one")
    (folder / "broken.star").write_text("no particles")
    later = threading.Timer(0.5, deliver, (files[1], folder, "two"))
    later.start()
    answer = watch(encoder, folder, run)
    later.join()
    assert answer.exit_code == 0, answer.output
    assert "Traceback" not in answer.output
    assert answer.output.count("broken.star is left for later") == 1
    said = "This map lacks particles of 1 file that could not be inferred: broken.star"
    for text in (answer.output, *RunRecord.read(run).results["cautions"][-1:]):
        assert said in text
    assert "one.star: 60 particles" in answer.output
    assert "two.star: 60 particles" in answer.output
    found = Particles.load(run / "particles.star")
    assert len(found) == 2 * COUNT
    # The same as of one file that holds both, but for the halves.
    whole = tmp_path / "whole"
    cryoinfer("infer", encoder, folder / "two.star", "--out", whole, "--threads", 1)
    alone = Particles.load(whole / "particles.star")
    assert found.pose is not None
    assert alone.pose is not None
    torch.testing.assert_close(found.pose.rotation[COUNT:], alone.pose.rotation)
    assert torch.equal(
        found.images(torch.arange(COUNT, 2 * COUNT)), alone.images(torch.arange(COUNT))
    )
    with np.load(run / "posteriors.npz") as posteriors:
        assert len(posteriors["rotation"]) == 2 * COUNT
    assert json.loads((run / "run.json").read_text())["status"] == "finished"

    # Nothing is inferred twice, and what has come since is added.
    before = read_map(run / "half1.mrc").density
    again = watch(encoder, folder, run)
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    answer = watch(encoder, folder, run, "--resume")
    assert answer.exit_code == 0, answer.output
    assert "Going on after 2 files, 120 particles" in answer.output
    assert ".star: 60 particles" not in answer.output
    np.testing.assert_array_equal(read_map(run / "half1.mrc").density, before)
    deliver(files[0], folder, "three")
    answer = watch(encoder, folder, run, "--resume")
    assert "three.star: 60 particles" in answer.output
    assert len(Particles.load(run / "particles.star")) == 3 * COUNT


def test_a_stack_that_is_still_being_written_is_waited_for(
    encoder, files, tmp_path: Path
) -> None:
    folder, run = tmp_path / "in", tmp_path / "run"
    star = deliver(files[0], folder, "late")
    stack = star.with_suffix(".mrcs")
    content = stack.read_bytes()
    stack.write_bytes(content[: len(content) // 2])

    def write_the_rest() -> None:
        log = run / "log.txt"
        while not (log.exists() and "left for later" in log.read_text()):
            time.sleep(0.1)
        stack.write_bytes(content)

    later = threading.Thread(target=write_the_rest, daemon=True)
    later.start()
    idle = ["--watch", "--until-idle", 3, "--threads", 1]
    answer = cryoinfer("infer", encoder, folder, "--out", run, *idle)
    later.join()
    assert answer.exit_code == 0, answer.output
    assert answer.output.count("late.star is left for later") == 1
    assert "is cut off" in answer.output
    assert "late.star: 60 particles" in answer.output


@pytest.mark.slow
def test_ctrl_c_ends_a_watch_with_everything_written(
    encoder, files, tmp_path: Path
) -> None:
    folder, run = tmp_path / "in", tmp_path / "run"
    deliver(files[0], folder, "one")
    words = ["infer", encoder, folder, "--out", run, "--watch", "--threads", 1]
    command = [sys.executable, "-m", "cryoinfer", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not (run / "watch.pt").exists() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            # Or a test that fails would wait for it for ever.
            process.kill()
    assert process.returncode == 0, output
    assert "Stopped" in output
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert len(Particles.load(run / "particles.star")) == COUNT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{star}", "--until-idle", "3"], "--until-idle goes with --watch"),
        (["{star}", "--watch"], "expects a folder"),
        (["{folder}", "--watch", "--until-idle", "0"], "a number above 0"),
        (["{folder}"], "give --watch"),
        (["{empty}", "--watch", "--until-idle", "0.1"], "no particles could be"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    encoder, files, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"star": files[0], "folder": files[0].parent, "empty": tmp_path / "empty"}
    spelled = [word.format(**places) for word in words]
    answer = cryoinfer("infer", encoder, *spelled, "--out", tmp_path / "run")
    assert answer.exit_code == 2
    assert message in answer.stderr


def test_what_a_watch_has_left_is_told_where_nothing_came_of_it(
    encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "broken.star").write_text("no particles")
    answer = watch(encoder, folder, tmp_path / "run")
    assert answer.exit_code == 2
    assert "no particles could be inferred" in answer.stderr
    assert "broken.star: " in answer.stderr


def test_an_encoder_whose_training_was_not_finished_is_not_used(
    files, tmp_path: Path
) -> None:
    RunRecord.of_now("train", {}, {}, 0, 1).write(tmp_path)
    answer = cryoinfer("infer", tmp_path, files[0], "--out", tmp_path / "run")
    assert answer.exit_code == 2
    assert "is running, not finished. Finish it first" in answer.stderr


def test_a_training_that_was_not_finished_has_no_report(tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    RunRecord.of_now("train", {}, {}, 0, 1).write(tmp_path)
    answer = cryoinfer("report", tmp_path)
    assert answer.exit_code == 2
    assert "has not been finished" in answer.stderr
