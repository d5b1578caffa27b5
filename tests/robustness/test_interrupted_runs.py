"""Whatever ends a run, whenever: resumed it is bitwise the uninterrupted one."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from robustness.conftest import cryoinfer
from robustness.damages import ANY, RECORD, Damage, record
from robustness.interrupting import events

RUNS = {
    "abinitio": ("abinitio", "particles.star", "--starts", 1, "--max-shift", 0),
    "train": ("train", "run", "--steps", 12, "--side", 8),
    "infer": ("infer", "encoder.pt", "particles.star"),
    "dynamics": (
        "dynamics",
        "particles.star",
        "--structure",
        "model.cif",
        "--modes",
        1,
        "--cutoff",
        40,
        "--poses",
        "given",
    ),
}
RESULTS = ("map.mrc", "half1.mrc", "mask.mrc", "fsc.star", "noise.star", "encoder.pt")
RESULTS += ("particles.star", "posteriors.npz", "latents.parquet", "mode1.cif")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
FULL = "ENOSPC"
"""A disk that is full at that moment."""

ENDINGS = (*(one.name for one in SIGNALS), FULL)
MOMENTS = 20
_QUICK = {("infer", 3), ("infer", 10), ("infer", 14)}


def moments() -> list:
    """Return every run at every moment, with one ending after the other."""
    return [
        pytest.param(
            name,
            moment,
            ENDINGS[moment % len(ENDINGS)],
            id=f"{name}-{moment}-{ENDINGS[moment % len(ENDINGS)]}",
            marks=() if (name, moment) in _QUICK else pytest.mark.slow,
        )
        for name in RUNS
        for moment in range(MOMENTS)
    ]


class Whole:
    """Runs that nobody interrupted: their results, and how many events they had."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: dict[str, int] = {}

    def events(self, name: str) -> int:
        """Return the number, after a run if there has been none."""
        if name not in self._events:
            with events(lambda now: None) as seen:
                answer = cryoinfer(*words(name, self._folder / name))
            assert answer.exit_code == 0, answer.output
            self._events[name] = len(seen)
        return self._events[name]

    def results(self, name: str) -> dict[str, bytes]:
        """Return the files that are compared."""
        return results(self._folder / name)


def words(name: str, out: Path) -> list[str]:
    return [str(one) for one in (*RUNS[name], "--out", out, "--threads", 1)]


def results(folder: Path) -> dict[str, bytes]:
    paths = [folder / name for name in RESULTS]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


def interrupt(command: list[str], ending: str, event: int) -> None:
    """Run a command to its ending at an event, and ask for its exit code."""
    number = None if ending == FULL else signal.Signals[ending]
    if number == signal.SIGKILL:
        script = Path(__file__).with_name("interrupting.py")
        start = [sys.executable, script, str(int(number)), str(event), *command]
        killed = subprocess.run(start, capture_output=True, text=True, timeout=600)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        return

    def at(now: int) -> None:
        if now == event and number is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if now == event and number is not None:
            os.kill(os.getpid(), number)

    with events(at):
        answer = cryoinfer(*command)
    assert answer.exit_code == (2 if number is None else CODES[number]), answer.output
    assert "Traceback" not in answer.output
    assert answer.stderr.count("No space left on device") == (number is None)


@pytest.mark.parametrize(("name", "moment", "ending"), moments())
def test_a_resumed_run_is_the_uninterrupted_one(
    inputs: Path,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    moment: int,
    ending: str,
) -> None:
    monkeypatch.chdir(inputs)
    total = whole.events(name)
    command = words(name, tmp_path / "out")
    interrupt(command, ending, round((moment + 0.5) * total / MOMENTS))
    with events(lambda now: None) as seen:
        answer = cryoinfer(*command, "--resume")
    assert answer.exit_code == 0, answer.output
    assert len(seen) <= total + 1
    expected, found = whole.results(name), results(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert [one for one in expected if found[one] != expected[one]] == []
    # Nothing of a checkpoint, or of a file that was being written, stays.
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert not [one for one in left if "partial" in one or "checkpoint" in one]


@pytest.fixture(scope="module")
def begun(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an inference that was interrupted with a checkpoint."""
    out = tmp_path_factory.mktemp("begun") / "out"
    command = words("infer", out)
    seen: list[Path] = []

    def at(now: int) -> None:
        if (out / "checkpoint.pt").exists() and not seen:
            seen.append(out)
            os.kill(os.getpid(), signal.SIGTERM)

    with contextlib.chdir(inputs), events(at):
        assert cryoinfer(*command).exit_code == CODES[signal.SIGTERM]
    assert (out / "checkpoint.pt").exists()
    return out


def damaged() -> list:
    """Return what may be wrong with a run that is to be resumed."""
    others = {"of another version": record(arguments={"seed": 5})}
    spoilt = [("checkpoint.pt", *one) for one in ANY.items()]
    spoilt += [("run.json", *one) for one in (ANY | RECORD | others).items()]
    quick = {("checkpoint.pt", "bits turned"), ("run.json", "half")}
    return [
        pytest.param(
            file,
            spoil,
            id=f"{file}-{name}",
            marks=() if (file, name) in quick else pytest.mark.slow,
        )
        for file, name, spoil in spoilt
    ]


@pytest.mark.parametrize(("file", "spoil"), damaged())
def test_a_damaged_run_is_told_or_begins_anew(
    inputs: Path,
    begun: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    spoil: Damage,
) -> None:
    monkeypatch.chdir(inputs)
    out = tmp_path / "out"
    shutil.copytree(begun, out)
    spoil(out / file)
    answer = cryoinfer(*words("infer", out), "--resume")
    assert "fault of the program" not in answer.output
    assert "Traceback" not in answer.output
    assert answer.exit_code in (0, 2)
    if answer.exit_code == 2:
        assert answer.stderr.count("Error: ") == 1
        assert len(answer.stderr) < 1000
        assert "checkpoint" in answer.stderr or str(out) in answer.stderr


def test_a_checkpoint_of_another_run_is_told(
    inputs: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs)
    other = [*words("infer", tmp_path / "other"), "--seed", "1"]
    interrupt(other, "SIGTERM", 3)
    shutil.copy(begun / "checkpoint.pt", tmp_path / "other" / "checkpoint.pt")
    answer = cryoinfer(*other, "--resume")
    assert answer.exit_code == 2
    assert "is of another run" in answer.stderr
