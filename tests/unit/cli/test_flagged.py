"""Particles that an earlier run has flagged, when they come back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from cryoinfer.cli import evaluate as evaluation
from cryoinfer.cli import runs
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.rejected_particles import flag_words, used_particles
from cryoinfer.cli.report_page import read_content
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import read_cs, with_fields, write_cs
from cryoinfer.results.flags import given_flags, read_flags
from cryoinfer.results.posterior_files import Posteriors
from cryoinfer.results.run_record import RunRecord, require_finished
from cryoinfer.results.run_result import Reconstruction, RunResult
from cryoinfer.workflows.inferred import with_rejected

FLAGS = np.arange(120) % 12 == 3  # ten of them
UNREADABLE_ROW = 5


@pytest.fixture
def flagged(simulated: Path) -> Path:
    """Return particles with poses, ten flagged as novel and one as unreadable."""
    flag = FLAGS.astype(np.int64)
    flag[UNREADABLE_ROW] = 2
    path = simulated / "flagged.star"
    truth = Particles.load(simulated / "truth.star")
    truth.with_results(columns={"cryoinferFlag": flag}).save(path)
    return path


def some(result: RunResult, rows: torch.Tensor) -> RunResult:
    return replace(
        result,
        inferred=result.inferred[rows],
        random_subset=result.random_subset[rows],
    )


def test_flagged_particles_stay_out_of_a_refinement_and_in_its_file(
    flagged: Path,
    simulated: Path,
    options: RunOptions,
    result: RunResult,
    screen: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = torch.nonzero(torch.from_numpy(~FLAGS)).squeeze(1)
    kept = kept[kept != UNREADABLE_ROW]

    def refined(particles: Particles, *_: object) -> RunResult:
        assert len(particles) == 109
        rows = torch.from_numpy(particles.table.images.row)
        assert torch.equal(rows, kept)
        return some(result, rows)

    monkeypatch.setattr(runs, "refine", refined)
    asked = replace(options, workflow="refine", particles=flagged)
    assert runs.run(asked, screen) == 0
    record = require_finished(options.out)
    assert record.results["flagged_left_out"] == 11
    assert record.results["particles"] == 120
    log = (options.out / "log.txt").read_text()
    assert "11 of 120 particles are left out" in log
    assert "11 particles that an earlier run flagged" in (
        (options.out / "report.html").read_text()
    )
    before, after = (
        Particles.load(flagged),
        Particles.load(options.out / "particles.star"),
    )
    assert len(after) == 120
    flag = after.table.results["cryoinferFlag"]
    assert (flag == before.table.results["cryoinferFlag"]).all()
    assert before.pose is not None
    assert after.pose is not None
    # What was left out keeps its pose, to six decimals, and has no posterior.
    moved = (after.pose.shift_angstrom - before.pose.shift_angstrom).norm(dim=1)
    left = torch.from_numpy(flag != 0)
    assert moved[left].max() < 1e-5
    assert moved[~left].median() > 0.1
    posteriors = Posteriors.read(options.out)
    assert posteriors is not None
    assert (posteriors.mode_weight[left.numpy()] == 0).all()
    assert posteriors.entropy_nats[left.numpy()].min() > (
        posteriors.entropy_nats[~left.numpy()].max()
    )
    # Nor are they shown, or judged.
    assert len(read_content(options.out).pose) == 109
    evaluation.evaluate(options.out, simulated, screen)
    summary = json.loads((options.out / "evaluation.json").read_text())
    assert (summary["particles"], summary["unreadable"]) == (109, 11)


def test_poses_of_what_is_left_out_are_kept_to_the_last_digit(
    flagged: Path, result: RunResult
) -> None:
    particles = Particles.load(flagged)
    used = torch.from_numpy(~FLAGS)
    rows = torch.nonzero(used).squeeze(1)
    found = with_rejected(some(result, rows), used, particles, torch.zeros(120).bool())
    assert particles.pose is not None
    for name in ("rotation", "shift_angstrom"):
        pose, given = getattr(found.latents.pose, name), getattr(particles.pose, name)
        assert torch.equal(pose[~used], given[~used])
        assert torch.equal(pose[used], getattr(result.latents.pose, name)[used])
    posterior = found.inferred
    assert torch.equal(posterior.weight[used], result.inferred.weight[used])
    assert not posterior.weight[~used].any()
    assert posterior.log_likelihood[~used].isinf().all()
    assert torch.equal(found.random_subset[used], result.random_subset[used])


def test_an_encoder_answers_for_no_flag_of_an_earlier_run(
    simulated: Path,
    options: RunOptions,
    result: RunResult,
    screen: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flag = np.arange(120) % 5 < 3  # 72 of them
    path = simulated / "mostly_flagged.star"
    truth = Particles.load(simulated / "truth.star")
    truth.with_results(columns={"cryoinferFlag": flag.astype(np.int64)}).save(path)

    def refined(particles: Particles, *_: object) -> RunResult:
        rows = torch.from_numpy(particles.table.images.row)
        score = torch.zeros(48)
        score[7] = 20.0
        none = torch.zeros(48).bool()
        made = some(result, rows)
        return replace(made, outlier_score_nats=score, unreadable=none, prepared=none)

    monkeypatch.setattr(runs, "refine", refined)
    runs.run(replace(options, workflow="refine", particles=path), screen)
    found = RunRecord.read(options.out).results
    assert found["left_out"] == {
        "particles": 48,
        "novel": 1,
        "unreadable": 0,
        "first_unreadable": 0,
        "judged_together": False,
    }
    assert not [text for text in found["cautions"] if "do not fit the map" in text]
    page = (options.out / "report.html").read_text()
    assert "1 of 48 (2.1%) are flagged" in page
    assert "72 particles that an earlier run flagged are left out" in page
    # They keep their flags.
    after = Particles.load(options.out / "particles.star").table.results
    assert int((after["cryoinferFlag"] == 1).sum()) == 73


def test_flagged_particles_stay_out_of_a_reconstruction(
    flagged: Path,
    options: RunOptions,
    reconstruction: Reconstruction,
    screen: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def made(particles: Particles, *_: object) -> Reconstruction:
        seen.append(len(particles))
        return reconstruction

    monkeypatch.setattr(runs, "reconstruct", made)
    asked = replace(options, workflow="reconstruct", particles=flagged)
    runs.run(asked, screen)
    assert seen == [109]
    assert len(Particles.load(options.out / "particles.star")) == 120
    assert RunRecord.read(options.out).results["flagged_left_out"] == 11
    assert len(read_content(options.out).pose) == 109


def test_a_search_from_nothing_asks_no_earlier_map(flagged: Path) -> None:
    particles = Particles.load(flagged)
    used = used_particles("abinitio", particles)
    assert torch.nonzero(~used).flatten().tolist() == [UNREADABLE_ROW]
    left, kept = flag_words("abinitio", particles)
    assert left.startswith("1 of 120 particles are left out")
    assert kept.startswith("10 particles")
    assert flag_words("refine", Particles.load(flagged.parent / "truth.star")) == []


def test_where_all_are_flagged_it_is_said(flagged: Path) -> None:
    only = Particles.load(flagged).select(torch.from_numpy(FLAGS))
    with pytest.raises(InputError, match="all 10 particles are flagged"):
        used_particles("refine", only)
    assert bool(used_particles("abinitio", only).all())


@pytest.mark.parametrize("ending", [".star", ".cs"])
def test_flags_are_the_same_in_either_format(flagged: Path, ending: str) -> None:
    path = flagged.with_name(f"again{ending}")
    Particles.load(flagged).save(path)
    particles = Particles.load(path)
    flags = given_flags(particles)
    assert flags.bincount().tolist() == [109, 10, 1]
    assert torch.equal(flags == 1, torch.from_numpy(FLAGS))
    (words,) = flag_words("refine", particles)
    assert words.startswith("11 of 120 particles are left out")
    assert len(particles.select(used_particles("refine", particles))) == 109


def test_flags_of_the_other_byte_order_are_read(flagged: Path) -> None:
    path = flagged.with_name("swapped.cs")
    Particles.load(flagged).save(path)
    table = read_cs(path)
    swapped = table["cryoinfer/cryoinferFlag"].astype(">i2")
    write_cs(path, with_fields(table, {"cryoinfer/cryoinferFlag": swapped}))
    assert given_flags(Particles.load(path)).bincount().tolist() == [109, 10, 1]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.full(120, 0.5), "row 1 holds 0.5"),
        (np.full(120, np.nan), "row 1 holds nan"),
        (np.arange(120), "row 4 holds 3 .117 such rows"),
        (np.array([b"novel"] * 120), "row 1 holds novel"),
    ],
)
def test_flags_of_another_meaning_are_refused(
    flagged: Path, values: np.ndarray, found: str
) -> None:
    path = flagged.with_name("odd.cs")
    Particles.load(flagged).save(path)
    table = with_fields(read_cs(path), {"cryoinfer/cryoinferFlag": values})
    write_cs(path, table)
    with pytest.raises(InputError, match=f"must hold 0, 1 or 2, but {found}"):
        given_flags(Particles.load(path))
    record = RunRecord("refine", {}, {}, 0, {}, {}, results={"flagged_left_out": 1})
    with pytest.raises(InputError, match=found):
        read_flags(record, Particles.load(path).table)
