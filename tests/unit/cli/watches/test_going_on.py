"""A watch that is stopped, and gone on with."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from unit.cli.watches.conftest import OFFSET_ANGSTROM, Start, deliver

from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.signals import ENDING
from cryoinfer.cli.watching import Watch
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import read_cs, write_cs
from cryoinfer.workflows.inferred import Inferred


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
        {"half": torch.zeros(119)},
        {"particles": None},
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


@pytest.mark.parametrize(
    "place", [pytest.param("_tell", marks=pytest.mark.slow), "joined_with"]
)
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
