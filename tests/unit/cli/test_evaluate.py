"""Runs against what their particles were made of."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cryoinfer.cli import evaluate as evaluation
from cryoinfer.cli import map_files
from cryoinfer.cli.report_page import read_content
from cryoinfer.cli.results import write_results
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.io.mrc import read_map
from cryoinfer.results.run_record import RunRecord, require_finished
from cryoinfer.results.run_result import RunResult
from cryoinfer.results.truth import evaluate


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_evaluation_finds_what_the_errors_were(
    finished: Path, simulated: Path, screen: Console
) -> None:
    evaluation.evaluate(finished, simulated, screen)
    summary = json.loads((finished / "evaluation.json").read_text())
    assert summary["hand"] == "same"
    assert summary["particles"] == 120
    assert summary["cautions"] == summary["conformations"] == []
    same, opposite = summary["hands"]["same"], summary["hands"]["opposite"]
    # The median of a chi distribution of 3 degrees is 1.54 sd: 4.4 degrees of 2.86;
    # of 120 draws it is known to about 6 %.
    assert same["geodesic_degrees_median"] == pytest.approx(4.4, rel=0.25)
    assert opposite["geodesic_degrees_median"] > 30
    # The map is the true one: Nyquist.
    assert same["resolution_angstrom_fsc_0.5"] == pytest.approx(12.8, rel=0.05)
    for region in ("pose", "rotation", "shift"):
        # Binomial: sd 0.046 at 0.5, 0.027 at 0.9.
        assert summary["coverage"][region][0] == pytest.approx(0.5, abs=0.15)
        assert summary["coverage"][region][1] == pytest.approx(0.9, abs=0.09)
    page = (finished / "report.html").read_text()
    assert "Against the truth" in page
    assert "90%" in shown(screen)


def test_particles_without_a_pose_are_not_judged(
    simulated: Path, result: RunResult, screen: Console, tmp_path: Path
) -> None:
    unreadable = torch.arange(120) < 40
    score = torch.zeros(120).masked_fill(unreadable, torch.inf)
    rotation = result.latents.pose.rotation.clone()
    rotation[unreadable] = torch.eye(3).double()
    pose = replace(result.latents.pose, rotation=rotation)
    found = replace(
        result,
        inferred=result.inferred.with_first_mode(replace(result.latents, pose=pose)),
        outlier_score_nats=score,
        unreadable=unreadable,
    )
    run = tmp_path / "run"
    with RunFolder(run, RunRecord.of_now("infer", {}, {}, 0, 1)) as folder:
        write_results(folder, Particles.load(simulated / "particles.star"), found)
    assert len(read_content(run).pose) == len(read_content(run).variance) == 80
    evaluation.evaluate(run, simulated, screen)
    assert "40 without a pose" in shown(screen)
    summary = json.loads((run / "evaluation.json").read_text())
    assert (summary["particles"], summary["unreadable"]) == (80, 40)
    # As of all 120 without the 40, known to about 7 %.
    same = summary["hands"]["same"]
    assert same["geodesic_degrees_median"] == pytest.approx(4.4, rel=0.25)


def test_the_mirror_image_is_recognised(
    finished: Path, simulated: Path, screen: Console, tmp_path: Path
) -> None:
    flipped = tmp_path / "flipped"
    map_files.flip(map_files.FlipOptions(finished, flipped), screen)
    assert require_finished(flipped).mirrored
    evaluation.evaluate(finished, simulated, screen)
    evaluation.evaluate(flipped, simulated, screen)
    before, after = (
        json.loads((folder / "evaluation.json").read_text())
        for folder in (finished, flipped)
    )
    assert after["hand"] == "opposite"
    # Coverage of mirrored posteriors is that of the posteriors.
    for region, values in before["coverage"].items():
        assert after["coverage"][region] == pytest.approx(values, abs=0.01)
    for name in ("geodesic_degrees_median", "shift_angstrom_median"):
        assert after["hands"]["opposite"][name] == pytest.approx(
            before["hands"]["same"][name], rel=0.01
        )
    again = tmp_path / "again"
    map_files.flip(map_files.FlipOptions(flipped, again), screen)
    assert not require_finished(again).mirrored
    first, last = (read_map(f / "map.mrc").density for f in (finished, again))
    assert (first == last).all()


def test_the_truth_of_other_particles_is_refused(
    finished: Path, screen: Console, tmp_path: Path, simulated: Path
) -> None:
    with pytest.raises(
        InputError, match=r"truth\.mrc is missing|truth\.star is missing"
    ):
        evaluation.evaluate(finished, tmp_path, screen)
    for name in ("truth.star", "truth.mrc", "particles.mrcs"):
        (tmp_path / name).write_bytes((simulated / name).read_bytes())
    with pytest.raises(InputError, match="None of the particles"):
        evaluation.evaluate(finished, tmp_path, screen)


@pytest.mark.parametrize(
    ("workflow_name", "advice"),
    [("dynamics", "latents.parquet"), ("train", "that it learned from")],
)
def test_runs_without_maps_or_conformations_are_not_evaluated(
    finished: Path,
    simulated: Path,
    screen: Console,
    workflow_name: str,
    advice: str,
) -> None:
    record = RunRecord.read(finished)
    replace(record, workflow=workflow_name, results={"verdict": ""}).write(finished)
    with pytest.raises(InputError, match=advice):
        evaluation.evaluate(finished, simulated, screen)


def test_maps_are_aligned_without_poses_that_are_wrong(
    simulated: Path, result: RunResult, screen: Console, tmp_path: Path
) -> None:
    """The map is the true one, in another frame and in the other hand."""
    rotation = random_rotations(120, torch.Generator().manual_seed(2))
    pose = replace(result.latents.pose, rotation=rotation.double())
    maps = result.reconstruction
    turn = GlobalAlignment(rotation[7].double(), True, torch.tensor([9.0, -4.0, 2.0]))
    voxel = maps.pixel_size_angstrom
    density = transform_map(maps.density, turn, voxel)
    found = replace(
        result,
        inferred=result.inferred.with_first_mode(replace(result.latents, pose=pose)),
        reconstruction=replace(maps, density=density, mask=torch.ones_like(density)),
    )
    run = tmp_path / "run"
    with RunFolder(run, RunRecord.of_now("refine", {}, {}, 0, 1)) as folder:
        write_results(folder, Particles.load(simulated / "particles.star"), found)
    evaluation.evaluate(run, simulated, screen)
    summary = json.loads((run / "evaluation.json").read_text())
    assert summary["hand"] == "opposite"
    assert summary["hands"]["opposite"]["geodesic_degrees_median"] > 30
    # Nyquist, as with the true poses; in the other hand a few of eight shells less.
    assert summary["resolution_angstrom"] == pytest.approx(2 * voxel, rel=0.05)
    same = summary["hands"]["same"]["resolution_angstrom_fsc_0.5"]
    assert same is None or same > 2.5 * voxel
    assert len(summary["cautions"]) == 1
    assert "aligned without them" in summary["cautions"][0]
    assert "aligned without them" in " ".join(shown(screen).split())


def test_another_map_is_said_to_be_one(simulated: Path, result: RunResult) -> None:
    """Noise, at random poses: no rotation does better than others by chance."""
    generator = torch.Generator().manual_seed(4)
    rotation = random_rotations(120, generator).double()
    pose = replace(result.latents.pose, rotation=rotation)
    noise = torch.randn(result.reconstruction.density.shape, generator=generator)
    found = evaluate(
        replace(
            result,
            inferred=result.inferred.with_first_mode(
                replace(result.latents, pose=pose)
            ),
            reconstruction=replace(result.reconstruction, density=noise),
        ),
        simulated,
    )
    assert len(found.cautions()) == 2
    assert "by chance" in found.cautions()[1]
