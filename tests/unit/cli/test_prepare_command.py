"""Particles prepared by the command, and taken by all others."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cryoinfer.cli import preparation
from cryoinfer.cli.app import app
from cryoinfer.cli.inputs import require_unseen
from cryoinfer.data import shard_plan, shard_writing
from cryoinfer.data.particles import Particles
from cryoinfer.data.shards import INDEX, ShardIndex, particle_file_of
from cryoinfer.io.cryosparc import read_cs
from cryoinfer.io.mrc import StackWriter
from cryoinfer.io.star import read_star
from cryoinfer.results.run_files import fingerprint, save_particles
from cryoinfer.results.run_record import RunRecord

COUNT = 120


@dataclass(frozen=True)
class Asked:
    """What a command answered."""

    code: int
    said: str


def ask(*words: str | Path) -> Asked:
    answer = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "500"})
    assert answer.exception is None or isinstance(answer.exception, SystemExit)
    return Asked(answer.exit_code, " ".join(answer.output.split()))


@pytest.fixture
def particles(simulated: Path, tmp_path: Path) -> Path:
    """Return a file of particles with poses, beside its stack."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "particles.mrcs").symlink_to(simulated / "particles.mrcs")
    (folder / "given.star").write_bytes((simulated / "truth.star").read_bytes())
    return folder / "given.star"


@pytest.fixture
def prepared(particles: Path, tmp_path: Path) -> Path:
    out = tmp_path / "prepared"
    asked = ask("prepare", particles, "--box", "12", "--out", out)
    assert asked == Asked(
        0,
        f"Wrote 120 particles, 16 px of 6.4 A to 12 px of 8.533 A, to {out}: 0 MB of "
        "images, which take 0 MB as they are",
    )
    return out


def finished_run(folder: Path, given: Path) -> Path:
    """Return a run that has moved every particle by 1 A and found their classes."""
    given = particle_file_of(given)
    particles = Particles.load(given)
    pose = particles.pose
    assert pose is not None
    found = particles.with_results(
        pose=replace(pose, shift_angstrom=pose.shift_angstrom + 1),
        defocus_offset_angstrom=torch.full((len(particles),), 50.0),
        random_subset=torch.arange(len(particles)) % 2 + 1,
        columns={
            "rlnClassNumber": torch.arange(len(particles)) % 3 + 1,
            "cryoinferRotationSdDegrees": torch.arange(len(particles)) / 10,
        },
    )
    folder.mkdir()
    save_particles(folder / "particles.star", found)
    inputs = fingerprint(particles, given, None)
    record = RunRecord.of_now("refine", {"particles": str(given)}, inputs, 0, 1)
    replace(record, status="finished").write(folder)
    return folder


def test_the_index_tells_what_was_done(prepared: Path, particles: Path) -> None:
    index = ShardIndex.read(prepared)
    assert index.source["path"] == os.path.realpath(particles)
    assert index.settings["box"] == 12
    assert (index.count, index.finished) == (COUNT, True)
    assert {path.name for path in prepared.iterdir()} == {
        *(INDEX, "images_0001.mrcs", "particles.star")
    }


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("check", ()),
        ("convert", ("converted.cs",)),
        ("select", ("--where", "rlnDefocusU > 0", "-o", "chosen.star")),
        ("reconstruct", ("-o", "map", "--dry-run")),
        ("abinitio", ("-o", "run", "--dry-run")),
        ("refine", ("-o", "run", "--dry-run")),
        ("heterogeneity", ("-o", "run", "--dry-run")),
        (
            "dynamics",
            ("--structure", "adenylate-kinase-open", "-o", "run", "--dry-run"),
        ),
        ("prepare", ("-o", "again", "--box", "8", "--dry-run")),
    ],
)
def test_every_command_takes_the_folder(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: Any
) -> None:
    monkeypatch.chdir(prepared.parent)
    asked = ask(command, prepared, *options)
    assert asked.code == 0, asked.said
    assert "120" in asked.said


def test_infer_takes_the_folder(prepared: Path) -> None:
    assert require_unseen(prepared, False, None, False) == prepared / "particles.star"


def test_an_original_has_one_name_however_it_is_spelled(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, back = tmp_path / "out", tmp_path / "back.star"
    stack = simulated / "particles.mrcs"
    monkeypatch.chdir(simulated)
    assert ask("prepare", "particles.mrcs", "--out", out).code == 0
    monkeypatch.chdir(tmp_path)
    assert ask("select", out, "--on", stack, "--out", back).code == 0
    relative = os.path.relpath(stack)
    assert ask("prepare", relative, "--out", out, "--resume").code == 0
    assert ask("select", out, "--on", relative, "-o", back, "--overwrite").code == 0
    assert Particles.load(back).stacks[0].path.samefile(stack)


def test_a_reconstruction_is_that_of_the_cropped_images(
    prepared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map"
    assert ask("reconstruct", prepared, "-o", out).code == 0
    record = RunRecord.read(out)
    assert record.arguments["particles"] == str(prepared / "particles.star")
    names = read_star(out / "particles.star").blocks[1].columns["rlnImageName"]
    assert names[0] == "000001@../prepared/images_0001.mrcs"


def test_the_same_folder_is_not_written_twice(prepared: Path, particles: Path) -> None:
    words = ("prepare", particles, "--box", "12", "--out", prepared)
    before = (prepared / INDEX).stat().st_mtime_ns
    assert "already holds prepared particles" in ask(*words).said
    again = ask(*words, "--resume")
    assert again.code == 0
    assert "there is nothing to do" in again.said
    assert ask(*words, "--resume", "--overwrite").code == 2
    assert (prepared / INDEX).stat().st_mtime_ns == before
    other = ask("prepare", particles, "--box", "8", "--out", prepared, "--resume")
    assert other.code == 2
    assert "was started with other options" in other.said
    assert ask("prepare", particles, "-o", prepared, "--overwrite").code == 0
    assert Particles.load(prepared).box == 16


def test_particles_that_have_changed_are_not_gone_on_with(
    prepared: Path, particles: Path
) -> None:
    particles.write_text(particles.read_text() + "\n")
    words = ("prepare", particles, "--box", "12", "--out", prepared, "--resume")
    asked = ask(*words)
    assert asked.code == 2
    assert "with other particles, or they have changed since" in asked.said


def test_a_folder_that_is_taken_is_left_alone(particles: Path, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", particles)
    for more in ((), ("--overwrite",), ("--resume",)):
        asked = ask("prepare", particles, "-o", run, *more)
        assert (asked.code, "holds a run" in asked.said) == (2, True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "particles.star").write_text("mine")
    assert "already holds particles.star" in ask("prepare", particles, "-o", other).said
    assert (other / "particles.star").read_text() == "mine"
    stack = other / "images_0007.mrcs"
    stack.write_text("mine")
    (other / INDEX).write_text("of another program")
    assert ask("prepare", particles, "-o", other, "--overwrite").code == 0
    assert stack.read_text() == "mine"
    for more in ((), ("--overwrite",)):
        asked = ask("prepare", particles, "-o", particles.parent, *more)
        assert (asked.code, "holds what is read" in asked.said) == (2, True)


def test_prepared_particles_do_not_overwrite_themselves(prepared: Path) -> None:
    asked = ask("prepare", prepared, "--box", "8", "-o", prepared, "--overwrite")
    assert (asked.code, "holds what is read" in asked.said) == (2, True)
    assert Particles.load(prepared).box == 12


def test_an_interrupted_preparation_goes_on(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fifty images of 12 x 12 pixels of two bytes.
    monkeypatch.setattr(shard_plan, "_SHARD_BYTES", 50 * 12 * 12 * 2)
    words = ("prepare", particles, "--box", "12", "--threads", "1")
    assert ask(*words, "--out", tmp_path / "whole").code == 0
    write, out = shard_writing._write_shard, tmp_path / "out"
    written: list[str] = []

    def interrupted(*given: Any) -> Any:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(given[1].name)
        return write(*given)

    monkeypatch.setattr(shard_writing, "_write_shard", interrupted)
    asked = ask(*words, "--out", out)
    assert asked.code == 130
    assert "The same command with --resume goes on" in asked.said
    refused = ask("check", out)
    assert "not all prepared. Finish it first" in refused.said
    # The second shard is damaged meanwhile: it is written again.
    (out / written[1]).write_bytes(b"")
    written.pop()
    assert ask(*words, "--out", out, "--resume").code == 130
    written.clear()
    assert ask(*words, "--out", out, "--resume").code == 0
    assert written == ["images_0003.mrcs"]
    for path in sorted((tmp_path / "whole").iterdir()):
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_full_disk_is_told_beforehand(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "free_bytes", lambda _: 1000)
    asked = ask("prepare", particles, "--out", tmp_path / "out")
    assert asked.code == 2
    assert "0 MB are free. Free some space" in asked.said
    assert not (tmp_path / "out").exists()


def test_spoiled_images_are_told(tmp_path: Path) -> None:
    images = torch.randn(9, 16, 16, generator=torch.Generator().manual_seed(0))
    images[2, 0, 0], images[4] = torch.nan, 3.0
    with StackWriter(tmp_path / "raw.mrcs", 9, 16, 2.0) as writer:
        writer.write(images)
    asked = ask("prepare", tmp_path / "raw.mrcs", "--out", tmp_path / "out")
    assert asked.code == 0
    assert (
        "Caution: 1 of 9 images (rows 3) hold values that are no number" in asked.said
    )
    assert "Caution: 1 of 9 images (rows 5) are constant around" in asked.said
    shard = json.loads((tmp_path / "out" / INDEX).read_text())["shards"][0]
    assert (shard["unreadable"], shard["flat"], shard["clipped"]) == ([2], [4], [])


def test_options_that_contradict_each_other(particles: Path, tmp_path: Path) -> None:
    words = ("prepare", particles, "-o", tmp_path / "out", "--box", "12")
    assert "both say how to crop" in ask(*words, "--resolution", "20").said


def test_results_are_put_onto_the_original(
    prepared: Path, particles: Path, tmp_path: Path
) -> None:
    run, out = finished_run(tmp_path / "run", prepared), tmp_path / "full.star"
    asked = ask("select", run, "--class", "2", "--on", particles, "-o", out)
    assert asked == Asked(0, f"Wrote 40 of 120 particles (33.3%) to {out}")
    found, original = Particles.load(out), Particles.load(particles)
    rows = torch.arange(1, COUNT, 3)
    assert found.box == 16
    assert torch.equal(found.images(torch.arange(40)), original.images(rows))
    assert found.pose is not None
    assert original.pose is not None
    # Six decimals.
    torch.testing.assert_close(
        found.pose.shift_angstrom,
        original.pose.shift_angstrom[rows] + 1,
        rtol=0,
        atol=2e-6,
    )
    offset = found.optics.defocus_u_angstrom - original.optics.defocus_u_angstrom[rows]
    torch.testing.assert_close(offset, torch.full_like(offset, 50), rtol=0, atol=1e-5)
    words = read_star(out).blocks[1].columns
    assert set(words["rlnClassNumber"].tolist()) == {"2"}
    assert words["rlnRandomSubset"][:2].tolist() == ["2", "1"]
    sd = words["cryoinferRotationSdDegrees"].astype(float)
    np.testing.assert_allclose(sd, rows.numpy() / 10, rtol=1e-6)
    before = read_star(particles).blocks[1].columns
    for label in ("rlnAngleRot", "rlnDefocusAngle"):
        assert words[label].tolist() == before[label][rows.numpy()].tolist()


def test_all_results_may_be_put_onto_the_original(
    prepared: Path, particles: Path, tmp_path: Path
) -> None:
    # Sorted otherwise by another program.
    whole = Particles.load(prepared)
    order = torch.arange(COUNT - 1, -1, -1)
    whole.select(order).save(tmp_path / "sorted.star")
    words = ("select", tmp_path / "sorted.star", "--on", particles)
    assert ask(*words, "-o", tmp_path / "back.star").code == 0
    found = Particles.load(tmp_path / "back.star")
    expected = Particles.load(particles).images(order)
    assert torch.equal(found.images(torch.arange(COUNT)), expected)


def test_results_of_a_table_of_cryosparc(particles: Path, tmp_path: Path) -> None:
    given = particles.with_suffix(".cs")
    Particles.load(particles).save(given)
    folder = tmp_path / "prepared"
    assert ask("prepare", given, "--box", "12", "-o", folder).code == 0
    run, out = finished_run(tmp_path / "run", folder), tmp_path / "full.cs"
    asked = ask("select", run, "--class", "2", "--on", given, "-o", out)
    assert asked.code == 0, asked.said
    before, after = read_cs(given), read_cs(out)
    assert after["uid"].tolist() == before["uid"][1::3].tolist()
    assert after["blob/idx"].tolist() == before["blob/idx"][1::3].tolist()
    moved = after["alignments3D/shift"] - before["alignments3D/shift"][1::3]
    # RELION's sign, and pixels of 6.4 A.
    np.testing.assert_allclose(moved, -1 / 6.4, atol=1e-5)


def test_shards_of_another_stack_are_refused(
    prepared: Path, particles: Path, simulated: Path, tmp_path: Path
) -> None:
    words = ("select", prepared, "-o", tmp_path / "out.star", "--on")
    asked = ask(*words, simulated / "particles.star")
    assert asked.code == 2
    assert "The shards were not made from" in asked.said
    assert str(os.path.realpath(particles)) in asked.said
    other = ask("select", particles, "-o", tmp_path / "out.star", "--on", particles)
    assert other.code == 2
    assert "and " + str(particles.parent / "particles.mrcs") in other.said
    star = prepared / "particles.star"
    lines = star.read_text().splitlines(keepends=True)
    star.write_text("".join([*lines[:-2], lines[-2]]))
    changed = ask(*words, particles)
    assert changed.code == 2
    assert "has changed since it was prepared" in changed.said
    stack = ask(*words[:-1], "--on", particles, "--overwrite", "-o", particles)
    assert "is what is read" in stack.said


@pytest.mark.slow
def test_a_run_on_shards_is_compared_with_the_truth(
    prepared: Path, particles: Path, simulated: Path, tmp_path: Path
) -> None:
    truth, out = particles.parent, tmp_path / "run"
    (truth / "truth.star").write_bytes((simulated / "truth.star").read_bytes())
    (truth / "truth.mrc").symlink_to(simulated / "truth.mrc")
    assert ask("refine", prepared, "-o", out).code in (0, 3)
    assert ask("evaluate", out, "--truth", truth).code == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert found["particles"] == COUNT
    # It began with the true poses, at 10 dB.
    assert found["hands"]["same"]["view_degrees_median"] < 5
