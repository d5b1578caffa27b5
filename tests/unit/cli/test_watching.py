"""A folder that fills, with an inference that knows its answer at once."""

import io
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from cryoinfer.cli import watching
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.cli.run_record import RunRecord
from cryoinfer.cli.signals import ENDING
from cryoinfer.cli.watching import Watch
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.refine import PosePrior
from cryoinfer.io.cryosparc import read_cs, write_cs
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.infer import InferConfig
from cryoinfer.workflows.inferred import Inferred
from cryoinfer.workflows.result import RunResult

BOX = 16
OFFSET_ANGSTROM = 7.0

Start = Callable[..., tuple[Watch, io.StringIO]]


def deliver(source: Path, folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    shutil.copy(source / "particles.mrcs", folder / f"{name}.mrcs")
    text = (source / "particles.star").read_text()
    (folder / f"{name}.star").write_text(text.replace("particles.mrcs", f"{name}.mrcs"))


@pytest.fixture
def start(
    tmp_path: Path, result: RunResult, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Yield a function that begins a watch, or goes on with it."""

    def infer(particles: Particles, *_: object) -> Inferred:
        half = torch.arange(len(particles)) % 2
        blank = Inferred.blank(half, BOX, PosePrior(1.0, 100.0))
        offset = torch.full((len(particles),), OFFSET_ANGSTROM).double()
        noise = (torch.ones(BOX // 2 + 1),)
        return replace(blank, defocus_offset_angstrom=offset, noise_power=noise)

    def reconstruct(particles: Particles, found: Inferred, *_: object) -> RunResult:
        return replace(
            result,
            latents=Latents(
                Pose(found.rotation[:, 0], found.shift_angstrom[:, 0]),
                found.defocus_offset_angstrom,
            ),
            covariance=found.covariance,
            log_likelihood=found.log_likelihood,
            mode_pose=Pose(found.rotation, found.shift_angstrom),
            mode_weight=found.weight,
            random_subset=found.half + 1,
            entropy_nats=found.entropy_nats,
            novelty_nats=found.novelty_nats,
            unreadable=found.unreadable,
        )

    monkeypatch.setattr(watching, "infer_particles", infer)
    monkeypatch.setattr(watching, "reconstruct_inferred", reconstruct)
    trained = SimpleNamespace(encoder=SimpleNamespace(grid=SimpleNamespace(box=BOX)))
    folders = []

    def begin(
        resume: bool, reading: ParticleOptions = AS_WRITTEN
    ) -> tuple[Watch, io.StringIO]:
        for folder in folders:
            folder.__exit__(None, None, None)  # gives the lock back
        record = RunRecord.of_now("infer", {}, {}, 0, 1)
        folder = RunFolder(tmp_path / "run", record, resume)
        folders[:] = [folder]
        screen = io.StringIO()
        console = Console(file=screen, width=200)
        monitor = RichMonitor(console, folder.log, folder.state("watch.pt"))
        told = {"verdict": "converged", "trials": {}}
        return Watch(folder, reading, trained, InferConfig(), monitor, told), screen

    yield begin
    for folder in folders:
        folder.__exit__(None, None, None)


@dataclass(frozen=True)
class Loading(ParticleOptions):
    """Reading whose answer a test gives."""

    answer: Callable[[Path], Particles] = Particles.load

    def load(self, path: Path) -> Particles:
        return self.answer(path)


def test_going_on_adds_no_defocus_twice(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    given = Particles.load(simulated / "particles.star").optics.defocus_u_angstrom
    source = tmp_path / "in"
    for count, name in enumerate(("one", "two", "three"), 1):
        deliver(simulated, source, name)
        watch, screen = start(count > 1)
        watch.follow(source, 0.2)
        assert f"{name}.star: 120 particles" in screen.getvalue()
        found = Particles.load(tmp_path / "run" / "particles.star").optics
        assert len(found) == 120 * count
        expected = given.repeat(count) + OFFSET_ANGSTROM
        # Written with six decimals.
        torch.testing.assert_close(
            found.defocus_u_angstrom, expected, rtol=0, atol=1e-6
        )


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
    assert not watch._take(table, watching._stamps(source), 0, ())
    assert "a.cs is left for later: expected a CTF" in screen.getvalue()
    assert watch._take(table, watching._stamps(source) | {"new": (1, 1)}, 1, ())
    # Where the encoder has learned images without one, there is nothing to wait for.
    watch, _ = start(True, Loading(answer=lambda _: without))
    watch._trained.imaging = (SimpleNamespace(has_ctf=False),)
    assert watch._take(table, watching._stamps(source), 0, ())


def test_a_watch_that_was_told_of_a_passthrough_goes_on(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    source, elsewhere = tmp_path / "in", tmp_path / "elsewhere.cs"
    deliver(simulated, source, "one")
    Particles.load(source / "one.star").save(source / "one.cs")
    (source / "one.star").unlink()
    table = read_cs(source / "one.cs")
    names = [name for name in table.dtype.names if not name.startswith("blob/")]
    write_cs(source / "one.cs", table[names])
    rest = ["uid", *(name for name in table.dtype.names if name not in names)]
    write_cs(elsewhere, table[rest])
    reading = ParticleOptions(passthrough=(elsewhere,))
    for resume in (False, True):
        watch, screen = start(resume, reading)
        watch.follow(source, 0.2)
    assert "Going on after 1 files, 120 particles" in screen.getvalue()
    assert "left for later" not in screen.getvalue()


def test_a_watch_whose_particles_were_cut_is_refused(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    deliver(simulated, tmp_path / "in", "one")
    watch, _ = start(False)
    watch.follow(tmp_path / "in", 0.2)
    written = tmp_path / "run" / "particles.star"
    Particles.load(written).select(torch.arange(100)).save(written)
    with pytest.raises(InputError, match="lacks 20 particles"):
        start(True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"files": ["one.star"]},
        {"given": {"defocus_u_angstrom": torch.zeros(120)}},
        {"given": torch.zeros(2, 120)},
        {"groups": [0, 1, 2]},
        {"groups": None},
        {"covariance": torch.zeros(120, 5, 5)},
        {"rotation": None},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_state_of_another_version_is_refused(
    start: Start, simulated: Path, tmp_path: Path, wrong: dict[str, object]
) -> None:
    deliver(simulated, tmp_path / "in", "one")
    watch, _ = start(False)
    watch.follow(tmp_path / "in", 0.2)
    file = watch._folder.state("watch.pt")
    state = file.load()
    assert state is not None
    file.save(state | wrong)
    with pytest.raises(InputError, match="of another version of cryoinfer"):
        start(True)


def test_an_evaluation_does_not_outlive_its_map(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    deliver(simulated, tmp_path / "in", "one")
    watch, _ = start(False)
    watch.follow(tmp_path / "in", 0.2)
    for name in ("evaluation.json", "evaluation.npz"):
        (tmp_path / "run" / name).write_text("of one file")
    deliver(simulated, tmp_path / "in", "two")
    watch, _ = start(True)
    watch.follow(tmp_path / "in", 0.2)
    assert not list((tmp_path / "run").glob("evaluation.*"))


@pytest.mark.parametrize("place", ["_tell", "add"])
def test_ctrl_c_leaves_no_file_half_in(
    start: Start,
    simulated: Path,
    tmp_path: Path,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    watch, _ = start(False)
    watch.follow(source, 0.2)
    deliver(simulated, source, "two")
    watch, screen = start(True)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watch if place == "_tell" else Inferred, place, interrupt)
        watch.follow(source, 0.2)
    told = "What was inferred is written" in screen.getvalue()
    assert told is (place == "_tell")
    assert ("Stopped while a file was added" in screen.getvalue()) is not told
    found = Particles.load(tmp_path / "run" / "particles.star")
    assert len(found) == (240 if told else 120)
    watch, screen = start(True)
    watch.follow(source, 0.2)
    assert ("two.star: 120 particles" in screen.getvalue()) is not told
    assert len(Particles.load(tmp_path / "run" / "particles.star")) == 240


def test_ctrl_c_is_the_end_of_a_watch_and_no_interruption_of_what_follows(
    start: Start, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(simulated, tmp_path / "in", "one")
    watch, screen = start(False)
    watch.follow(tmp_path / "in", 0.2)

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(watch, "_look", interrupt)
    with ENDING:
        watch.follow(tmp_path / "in", None)
        time.sleep(0.2)  # the report is rendered
        assert ENDING.code is None
    assert "What was inferred is written" in screen.getvalue()


def test_a_file_that_changes_is_not_read(
    start: Start, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    stamps = watching._stamps
    looks = iter(range(1000))

    def growing(folder: Path) -> dict[str, tuple[int, int]]:
        grown = min(next(looks), 4)
        return {name: (grown, time) for name, (_, time) in stamps(folder).items()}

    read: list[int] = []
    monkeypatch.setattr(watching, "_stamps", growing)
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
    stamps, looks = watching._stamps, iter(range(1000))

    def sometimes(folder: Path) -> dict[str, tuple[int, int]]:
        if next(looks) in (1, 2):
            raise OSError("Stale file handle")
        return stamps(folder)

    monkeypatch.setattr(watching, "_stamps", sometimes)
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
        watch._take(source / "one.star", watching._stamps(source), look, ())
    assert next(sizes) == 1008
    assert screen.getvalue().count("one.star is left for later") == 1


def test_stacks_are_to_have_settled_too(
    start: Start, simulated: Path, tmp_path: Path
) -> None:
    """A copier that reserves its space has the right size from the first second."""
    source = tmp_path / "in"
    deliver(simulated, source, "one")
    watch, _ = start(False)
    path, now = source / "one.star", watching._stamps(source)
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
        assert not watch._take(path, watching._stamps(source), 0, ())
    assert "changed while it was inferred" in screen.getvalue()
    assert watch._take(path, watching._stamps(source), 1, ())


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

    look = watching._stamps

    def delivering(folder: Path) -> dict[str, watching.Stamp]:
        # Just before the look at which the first is taken.
        if len(looks := [*calls, 1]) == 3:
            deliver(simulated, source, "two")
        calls[:] = looks
        return look(folder)

    calls: list[int] = []
    monkeypatch.setattr(watching, "infer_particles", slow)
    monkeypatch.setattr(watching, "_stamps", delivering)
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
