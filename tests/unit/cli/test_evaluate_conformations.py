"""Runs that have found conformations, against those of which particles were made."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner, Result

from cryoinfer.cli import evaluate as evaluation
from cryoinfer.cli.app import app
from cryoinfer.data.junk import JUNK
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulated_path import PATH, TURN
from cryoinfer.evaluation.conformation_against_truth import (
    FoundConformations,
    TrueConformation,
    compare_conformations,
)
from cryoinfer.geometry.rotations import rotate_in_image_frame
from cryoinfer.io.latents import write_columns
from cryoinfer.records import Pose
from cryoinfer.results import layout
from cryoinfer.results.posterior_files import write_posteriors
from cryoinfer.results.run_record import RunRecord

COUNT = 120
SD_RADIAN, SD_ANGSTROM = 0.02, 0.3
MODE, FRAME = "cryoinferMode1Angst", "cryoinferFrame"


def dice(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_truth(folder: Path, simulated: Path, **columns: np.ndarray) -> Path:
    """Write a truth with more columns, and no map."""
    true = Particles.load(simulated / "truth.star")
    folder.mkdir()
    true.with_results(columns=columns).save(folder / "truth.star")
    return folder


def make_run(
    folder: Path, simulated: Path, z: Tensor, turn: Tensor | None = None, **more: object
) -> Path:
    """Write a run that has found z, and poses with errors as large as stated.

    Parameters
    ----------
    turn : Tensor, shape (n, 3, 3), optional
        By how the frame in which each particle was found differs from the true one.
    more : columns of ``latents.parquet``, None to leave one out
    """
    true = Particles.load(simulated / "truth.star")
    assert true.pose is not None
    w = SD_RADIAN * torch.randn(COUNT, 3, generator=dice(5)).double()
    moved = SD_ANGSTROM * torch.randn(COUNT, 2, generator=dice(6)).double()
    rotation = true.pose.rotation
    if turn is not None:
        rotation = rotation @ turn
    pose = Pose(rotate_in_image_frame(rotation, w), true.pose.shift_angstrom + moved)
    folder.mkdir()
    found = true.with_results(pose=pose)
    found.save(folder / layout.PARTICLES)
    rows = (folder / layout.PARTICLES).read_text().splitlines()
    names = [one.split()[0] for one in rows if "particles.mrcs" in one]
    columns: dict = {"rlnImageName": names}
    for k in range(z.shape[1]):
        columns |= {f"z_{k + 1}": z[:, k].numpy(), f"z_{k + 1}_sd": np.ones(len(z))}
    columns |= more
    kept = {name: one for name, one in columns.items() if one is not None}
    write_columns(folder / layout.LATENTS, kept, {})
    q = 6 + z.shape[1]
    variance = torch.full((q,), SD_RADIAN**2)
    variance[3:5] = SD_ANGSTROM**2
    covariance = torch.diag(variance).expand(COUNT, q, q).numpy()
    write_posteriors(folder / layout.POSTERIORS, {"covariance": covariance})
    record = RunRecord.of_now("dynamics", {}, {}, 0, 1)
    replace(record, status="finished", results={"symmetry": "C1"}).write(folder)
    return folder


def evaluated(run: Path, truth: Path, screen: Console) -> dict:
    evaluation.evaluate(run, truth, screen)
    return json.loads((run / layout.EVALUATION).read_text())


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_continuous_truth_is_judged_by_ranks(
    simulated: Path, tmp_path: Path, screen: Console
) -> None:
    value = torch.rand(COUNT, generator=dice(1)).double()
    other = torch.randn(COUNT, generator=dice(2)).double()
    z = torch.stack([value**3 + 0.1 * other, value**3 - 0.1 * other], 1)
    z[7] = math.nan
    truth = make_truth(tmp_path / "truth", simulated, **{MODE: value.numpy()})
    run = make_run(tmp_path / "run", simulated, z)
    summary = evaluated(run, truth, screen)
    (found,) = summary["conformations"]
    assert (found["truth"], found["dimensions"]) == (MODE, 2)
    # The sum is 2 value^3 exactly, a direction that 60 particles show nearly.
    assert found["rank_correlation"] > 0.95
    assert found["monotone_r2"] > 0.9
    assert "hungarian_accuracy" not in found
    assert (summary["particles"], summary["unreadable"]) == (COUNT - 1, 1)
    assert (summary["fsc"], summary["resolution_angstrom"]) == (None, None)
    # Medians of chi distributions: 1.54 and 1.18 sd, known to 6 % of 120 draws.
    same = summary["hands"]["same"]
    assert same["geodesic_degrees_median"] == pytest.approx(1.76, rel=0.25)
    assert same["shift_angstrom_median"] == pytest.approx(0.354, rel=0.25)
    # Binomial: sd 0.027 at 0.9.
    assert summary["coverage"]["pose"][1] == pytest.approx(0.9, abs=0.09)
    said = shown(screen)
    assert f"Conformations (2 coordinates) of 119 particles against {MODE}" in said
    assert "best monotone function of z along the best direction" in said
    assert "resolution" not in said
    assert "How far a structure turns while it changes is a convention" in said


def test_two_states_have_a_confusion_error_and_frames_of_their_own(
    simulated: Path, tmp_path: Path, screen: Console
) -> None:
    second = torch.arange(COUNT) % 3 == 0
    turn = roma.rotvec_to_rotmat(second[:, None] * torch.tensor([0.0, 0.0, 0.4]))
    z = (second + 0.1 * torch.randn(COUNT, generator=dice(3))).double()[:, None]
    frame = torch.where(second, 2, 1).numpy()
    truth = make_truth(tmp_path / "truth", simulated, **{FRAME: frame})
    run = make_run(tmp_path / "run", simulated, z, turn.double())
    summary = evaluated(run, truth, screen)
    (found,) = summary["conformations"]
    # The states are 10 sd apart.
    assert found["states"] == [1.0, 2.0]
    assert found["confusion_error"] == 0.0
    assert (found["hungarian_accuracy"], found["adjusted_rand_index"]) == (1.0, 1.0)
    assert found["true_shares"] == pytest.approx([2 / 3, 1 / 3])
    assert found["population_total_variation"] == 0.0
    assert found["classes"] == "k-means of z"
    states = summary["states"][FRAME]
    assert [one["particles"] for one in states] == [80, 40]
    for one in states:
        # As above; of 40 draws it is known to 10 %.
        assert one["geodesic_degrees_median"] == pytest.approx(1.76, rel=0.35)
    # 23 degrees apart, which one frame for all cannot have.
    assert summary["hands"]["same"]["geodesic_degrees_p95"] > 15
    said = shown(screen)
    assert "every state in a frame of its own" in said
    assert "the smallest of 40 particles" in said


def test_classes_of_a_run_are_matched_with_those_of_the_truth(
    simulated: Path, tmp_path: Path, screen: Console
) -> None:
    state = torch.arange(COUNT) % 4 + 1
    truth = make_truth(tmp_path / "truth", simulated)
    text = (truth / "truth.star").read_text().splitlines()
    last = max(i for i, one in enumerate(text) if one.startswith("_"))
    number = int(text[last].split("#")[1]) + 1
    labels = iter(state.tolist())
    text = [f"{one} {next(labels)}" if "particles.mrcs" in one else one for one in text]
    text.insert(last + 1, f"_rlnClassNumber #{number}")
    (truth / "truth.star").write_text("\n".join(text) + "\n")
    classes = 5 - state
    classes[:12] = 1
    z = torch.randn(COUNT, 1, generator=dice(4)).double()
    run = make_run(tmp_path / "run", simulated, z, **{"class": classes.numpy()})
    (found,) = evaluated(run, truth, screen)["conformations"]
    # Class 1 is state 4: of the first twelve three are of it.
    assert found["hungarian_accuracy"] == pytest.approx(1 - 9 / 120)
    assert found["classes"] == "of the run"
    assert found["rank_correlation"] is None
    assert found["confusion_error"] is None


def test_coordinates_that_say_nothing_are_said_to(
    simulated: Path, tmp_path: Path, screen: Console
) -> None:
    second = torch.arange(COUNT) % 20 == 0
    truth = make_truth(tmp_path / "truth", simulated, **{FRAME: second.int().numpy()})
    z = torch.randn(COUNT, 1, generator=dice(7)).double()
    evaluated(make_run(tmp_path / "run", simulated, z), truth, screen)
    said = shown(screen)
    assert "no better than to call all particles the larger state" in said
    assert "Rank correlation" not in said
    assert "One state holds 95% of the particles" in said


def test_a_rank_correlation_that_may_be_chance_is_said_to() -> None:
    value = torch.randn(COUNT, generator=dice(8)).double()
    z = torch.randn(COUNT, 1, generator=dice(9)).double()
    true = TrueConformation(MODE, value, is_ordered=True)
    found = compare_conformations(FoundConformations(z), true)
    assert any("may be chance" in text for text in found.cautions)
    assert (
        compare_conformations(FoundConformations(value[:, None]), true).cautions == ()
    )


def test_the_map_of_particles_that_move_is_judged_with_a_caution(
    finished: Path, simulated: Path, tmp_path: Path, screen: Console
) -> None:
    value = np.linspace(-1, 1, COUNT)
    truth = make_truth(tmp_path / "truth", simulated, **{MODE: value})
    (truth / "truth.mrc").write_bytes((simulated / "truth.mrc").read_bytes())
    summary = evaluated(finished, truth, screen)
    assert summary["conformations"] == []
    assert len(summary["cautions"]) == 2
    assert "The true map is of one conformation" in shown(screen)


def test_junk_is_judged_by_outlier_scores_and_by_nothing_else(
    simulated: Path, tmp_path: Path, screen: Console
) -> None:
    value = torch.rand(COUNT, generator=dice(1)).double()
    junk = torch.arange(COUNT) % 4 == 0
    z = torch.where(junk, 9.0, value)[:, None]
    columns = {PATH: value.numpy(), JUNK: junk.long().numpy()}
    truth = make_truth(tmp_path / "truth", simulated, **columns)
    run = make_run(tmp_path / "run", simulated, z)
    summary = evaluated(run, truth, screen)
    assert (summary["particles"], summary["unreadable"]) == (90, 0)
    (found,) = summary["conformations"]
    assert found["truth"] == PATH
    # What is left is the truth itself.
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert summary["junk"] == {
        "particles": 90,
        "junk": 30,
        "auc": None,
        "flagged_junk": None,
        "flagged_particles": None,
    }
    assert "30 images show no particle, 90 one" in shown(screen)
    # Every other image of junk scores above all particles, the others below all.
    score = torch.where(junk, torch.arange(COUNT) % 8 * 1.0, 2.0)
    flags = (score > 3).long()
    marked = Particles.load(run / layout.PARTICLES).with_results(
        columns={"cryoinferOutlierScore": score.numpy(), "cryoinferFlag": flags.numpy()}
    )
    marked.save(run / layout.PARTICLES)
    record = RunRecord.read(run)
    replace(record, results={**record.results, "left_out": {}}).write(run)
    judged = evaluated(run, truth, screen)["junk"]
    assert judged["auc"] == 0.5
    assert (judged["flagged_junk"], judged["flagged_particles"]) == (0.5, 0.0)
    assert "50.0% of the junk, 0.0% of the particles" in shown(screen)


def test_angles_of_a_whole_turn_are_compared_by_cosine_and_sine(
    simulated: Path, tmp_path: Path, screen: Console
) -> None:
    degrees = 3.0 * torch.arange(COUNT).double()
    angle = torch.deg2rad(degrees)
    truth = make_truth(tmp_path / "truth", simulated, **{TURN: degrees.numpy()})
    run = make_run(
        tmp_path / "run", simulated, torch.stack([angle.sin(), angle.cos()], 1)
    )
    found = evaluated(run, truth, screen)["conformations"]
    assert [one["truth"] for one in found] == [f"{TURN} (cosine)", f"{TURN} (sine)"]
    for one in found:
        # Either is one of the coordinates, which half of the particles show.
        assert one["rank_correlation"] > 0.99


def test_poses_that_were_given_have_no_credible_set(
    simulated: Path, tmp_path: Path, screen: Console
) -> None:
    value = np.linspace(-1, 1, COUNT)
    truth = make_truth(tmp_path / "truth", simulated, **{MODE: value})
    run = make_run(tmp_path / "run", simulated, torch.from_numpy(value)[:, None])
    held = np.zeros((COUNT, 7, 7), dtype=np.float32)
    write_posteriors(run / layout.POSTERIORS, {"covariance": held})
    assert evaluated(run, truth, screen)["coverage"] == {}


def cryoinfer(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


NAMES = [f"{row + 1:06d}@particles.mrcs" for row in range(COUNT)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"z_1": None}, "no coordinates of conformations: expected columns z_1"),
        ({"z_1": ["much"] * COUNT}, "expected numbers in the columns z_1"),
        ({"rlnImageName": None}, "no column rlnImageName"),
        ({"rlnImageName": NAMES[::-1]}, "is not of the particles of"),
    ],
)
def test_latents_that_do_not_belong_there_are_refused(
    simulated: Path, tmp_path: Path, columns: dict, said: str
) -> None:
    value = np.linspace(-1, 1, COUNT)
    truth = make_truth(tmp_path / "truth", simulated, **{MODE: value})
    z = torch.from_numpy(value)[:, None]
    run = make_run(tmp_path / "run", simulated, z, **columns)
    answer = cryoinfer("evaluate", run, "--truth", truth)
    assert answer.exit_code == 2, answer.output
    assert said in " ".join(answer.stderr.split())
    assert answer.stderr.count("Error") == 1


def test_a_truth_or_a_run_that_lacks_something_is_refused(
    simulated: Path, tmp_path: Path
) -> None:
    value = np.linspace(-1, 1, COUNT)
    run = make_run(tmp_path / "run", simulated, torch.from_numpy(value)[:, None])
    truth = make_truth(tmp_path / "truth", simulated, **{MODE: value})

    def refused(said: str, where: Path = truth) -> None:
        answer = cryoinfer("evaluate", run, "--truth", where)
        assert answer.exit_code == 2, answer.output
        assert said in " ".join(answer.stderr.split())

    refused("does not say which conformations", simulated)
    spoiled = make_truth(tmp_path / "spoiled", simulated, **{MODE: value})
    first = f"{value[2]:.9g}"
    text = (spoiled / "truth.star").read_text()
    assert first in text
    (spoiled / "truth.star").write_text(text.replace(first, "much"))
    refused(f"{MODE} must hold numbers, row 3", spoiled)
    write_columns(
        run / layout.LATENTS, {"rlnImageName": NAMES[:5], "z_1": value[:5]}, {}
    )
    refused("has 5 rows")
    (run / layout.LATENTS).write_bytes(b"PAR1 and no more")
    refused("is damaged, or no parquet file")
    (run / layout.LATENTS).unlink()
    refused("holds no latents.parquet")
