"""A folder that fills, and what of it is taken when."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from unit.cli.watches.conftest import Loading, Start, deliver

from cryoinfer.cli import watching
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.results.run_record import RunRecord
from cryoinfer.workflows.inferred import Inferred


def test_of_a_file_that_grows_the_further_particles_are_inferred(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    source, run = tmp_path / "in", tmp_path / "run"
    deliver(simulated, source, "one")
    star = source / "one.star"
    whole, text = Particles.load(star), star.read_text()
    whole.select(torch.arange(50, 120)).save(star)
    watch, screen = start(False)
    watch.follow(source, 0.2)
    assert "one.star: 70 particles" in screen.getvalue()
    star.write_text(text)
    watch.follow(source, 0.2)
    assert "one.star: 70 of 120 particles are in already" in screen.getvalue()
    assert "one.star: 50 particles" in screen.getvalue()
    # What could not be read for a while, and holds nothing new, is not missed.
    star.write_text("half of it")
    watch.follow(source, 0.2)
    assert watch.left.keys() == {"one.star"}
    star.write_text(text)
    watch.follow(source, 0.2)
    assert watch.left == {}
    # Not again where nothing, or nothing but the time, has changed.
    for _ in range(2):
        watch, screen = start(True)
        watch.follow(source, 0.2)
        assert "Going on after 1 files, 120 particles" in screen.getvalue()
        assert "one.star: 120 particles" not in screen.getvalue()
        star.touch()
    found = Particles.load(run / "particles.star")
    order = torch.cat([torch.arange(50, 120), torch.arange(50)])
    assert torch.equal(found.images(torch.arange(120)), whole.images(order))


def test_files_with_and_without_ctf_at_once_do_not_end_a_watch(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "a")
    deliver(simulated, source, "b")
    particles = Particles.load(simulated / "particles.star")
    table = replace(particles.table, has_ctf=False)

    def load(path: Path) -> Particles:
        return particles if path.stem == "a" else replace(particles, table=table)

    watch, screen = start(False, Loading(answer=load))
    watch.follow(source, 0.2)
    assert screen.getvalue().count("b.star is left for later: expected a CTF") == 1
    assert len(Particles.load(tmp_path / "run" / "particles.star")) == 120


def test_a_table_whose_ctf_may_still_come_is_left_for_later(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "a")
    table = source / "a.cs"
    Particles.load(source / "a.star").save(table)
    (source / "a.star").unlink()
    particles = Particles.load(table)
    without = replace(particles, table=replace(particles.table, has_ctf=False))
    arriving = [without, particles]
    watch, screen = start(False, Loading(answer=lambda _: arriving.pop(0)))
    watch._trained.imaging = (None, SimpleNamespace(has_ctf=True))
    assert not watch._take(table, watching.stamps(source), 0, ())
    assert "a.cs is left for later: expected a CTF" in screen.getvalue()
    assert watch._take(table, watching.stamps(source) | {"new": (1, 1)}, 1, ())
    # Where the encoder has learned images without one, there is nothing to wait for.
    watch, _ = start(True, Loading(answer=lambda _: without))
    watch._trained.imaging = (SimpleNamespace(has_ctf=False),)
    assert watch._take(table, watching.stamps(source), 0, ())


def test_a_file_that_changes_is_not_read(
    start: Start, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    stamps = watching.stamps
    looks = iter(range(1000))

    def growing(folder: Path) -> dict[str, tuple[int, int]]:
        grown = min(next(looks), 4)
        return {name: (grown, time) for name, (_, time) in stamps(folder).items()}

    read: list[int] = []
    monkeypatch.setattr(watching, "stamps", growing)
    watch, _ = start(False)
    monkeypatch.setattr(
        watch, "_take", lambda path, now, look, fresh: read.append(look) or False
    )
    watch.follow(source, 0.2)
    # Looks 0 to 4 each found a change.
    assert min(read) == 5


def test_a_folder_that_is_away_for_a_moment_is_waited_for(
    start: Start, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    stamps, looks = watching.stamps, iter(range(1000))

    def sometimes(folder: Path) -> dict[str, tuple[int, int]]:
        if next(looks) in (1, 2):
            raise OSError("Stale file handle")
        return stamps(folder)

    monkeypatch.setattr(watching, "stamps", sometimes)
    watch, screen = start(False)
    watch.follow(source, 0.2)
    assert screen.getvalue().count("is out of reach (Stale file handle): waiting") == 1
    assert "one.star: 120 particles" in screen.getvalue()


def test_files_that_were_left_are_a_caution_of_the_run(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    source, run = tmp_path / "in", tmp_path / "run"
    deliver(simulated, source, "one")
    for number in range(7):
        (source / f"broken{number}.star").write_text("no particles")
    watch, _ = start(False)
    watch.follow(source, 0.2)
    watch.conclude()
    (said,) = (
        text for text in RunRecord.read(run).results["cautions"] if "lack" in text
    )
    assert said.startswith("This map lacks particles of 7 files that could not be")
    assert "broken0.star (" in said
    assert said.endswith("; and 2 more.")
    assert "This map lacks particles of 7 files" in (run / "report.html").read_text()
    assert inherited(run / "map.mrc") == []
    # Those that are taken away are not missed, by the same watch or a later one.
    for number in range(1, 7):
        (source / f"broken{number}.star").unlink()
    watch.follow(source, 0.2)
    watch.conclude()
    page = (run / "report.html").read_text()
    assert "This map lacks particles of 1 file that" in page
    (source / "broken0.star").unlink()
    watch, _ = start(True)
    watch.follow(source, 0.2)
    watch.conclude()
    assert "This map lacks" not in (run / "report.html").read_text()


def test_remarks_on_a_file_are_said(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    deliver(simulated, tmp_path / "in", "one")

    def load(path: Path) -> Particles:
        particles = Particles.load(path)
        table = replace(particles.table, remarks=("The half-sets cannot be used.",))
        return replace(particles, table=table)

    watch, screen = start(False, Loading(answer=load))
    watch.follow(tmp_path / "in", 0.2)
    assert screen.getvalue().count("one.star: The half-sets cannot be used.") == 1


def test_a_stack_that_grows_is_told_of_once(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    sizes = iter(range(1000, 2000))

    def growing(path: Path) -> Particles:
        # Which changes the folder, so that it is tried again.
        (source / "other.mrcs").write_bytes(bytes(next(sizes)))
        raise InputError(f"expected 4096 bytes, found {next(sizes)}")

    watch, screen = start(False, Loading(answer=growing))
    for look in range(4):
        watch._take(source / "one.star", watching.stamps(source), look, ())
    assert next(sizes) == 1008
    assert screen.getvalue().count("one.star is left for later") == 1


def test_stacks_are_to_have_settled_too(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    """A copier that reserves its space has the right size from the first second."""
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    watch, _ = start(False)
    path, now = source / "one.star", watching.stamps(source)
    assert not watch._take(path, now, 0, {"one.mrcs"})
    assert watch._take(path, now, 1, {"two.mrcs"})


def test_what_changes_while_it_is_inferred_is_inferred_again(
    start: Start, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    watch, screen = start(False)
    infer = watching.infer_particles

    def disturbed(*given: object) -> Inferred:
        (source / "one.mrcs").touch()
        return infer(*given)

    path = source / "one.star"
    with monkeypatch.context() as patch:
        patch.setattr(watching, "infer_particles", disturbed)
        assert not watch._take(path, watching.stamps(source), 0, ())
    assert "changed while it was inferred" in screen.getvalue()
    assert watch._take(path, watching.stamps(source), 1, ())


def test_what_arrives_during_a_long_inference_does_not_find_a_watch_ended(
    start: Start, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    watch, screen = start(False)
    infer, calls = watching.infer_particles, []

    def slow(*given: object) -> Inferred:
        calls.append(1)
        if len(calls) == 1:
            # Longer than the folder may be idle, and to no avail.
            time.sleep(0.4)
            (source / "one.mrcs").touch()
            deliver(simulated, source, "two")
        return infer(*given)

    monkeypatch.setattr(watching, "infer_particles", slow)
    watch.follow(source, 0.3)
    assert "one.star is left for later" in screen.getvalue()
    assert len(Particles.load(tmp_path / "run" / "particles.star")) == 240


def test_a_watch_does_not_end_before_what_arrived_has_settled(
    start: Start, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    watch, _ = start(False)
    infer = watching.infer_particles

    def slow(particles: Particles, *given: object) -> Inferred:
        name = particles.stacks[0].path.name
        if name == "one.mrcs":
            time.sleep(0.5)  # while the other is still fresh, and in vain
            raise InputError("not today")
        return infer(particles, *given)

    look = watching.stamps

    def delivering(folder: Path) -> dict[str, watching.Stamp]:
        # Just before the look at which the first is taken.
        if len(looks := [*calls, 1]) == 3:
            deliver(simulated, source, "two")
        calls[:] = looks
        return look(folder)

    calls: list[int] = []
    monkeypatch.setattr(watching, "infer_particles", slow)
    monkeypatch.setattr(watching, "stamps", delivering)
    watch.follow(source, 0.3)
    assert len(Particles.load(tmp_path / "run" / "particles.star")) == 120


def test_waiting_is_no_time_of_the_work(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    watch, _ = start(False)
    watch.follow(source, 1.0)
    spent = watch._folder.record.stage_seconds
    assert spent.keys() == {"maps and FSC"}
    # The folder was idle for a second.
    assert spent["maps and FSC"] < 0.9
