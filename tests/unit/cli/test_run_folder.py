import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cryoinfer.cli.guard import LoggedError
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.errors import InputError, OutputError
from cryoinfer.io.replacing import replace_file
from cryoinfer.results.run_record import RunRecord, require_finished, software_versions

RECORD = RunRecord(
    workflow="abinitio",
    arguments={"symmetry": "C1", "starts": 2},
    inputs={"particles": {"sha256": "ab"}},
    seed=0,
    machine={"threads": 2},
    versions=software_versions(),
)


def status(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text())["status"])


def begin(folder: Path, status: str = "interrupted") -> None:
    """Leave a run that was begun."""
    with RunFolder(folder, RECORD):
        pass
    replace(RunRecord.read(folder), status=status).write(folder)  # type: ignore[arg-type]


def test_a_run_from_beginning_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    with RunFolder(folder, RECORD) as run:
        assert status(folder) == "running"
        with pytest.raises(InputError, match="running, not finished"):
            require_finished(folder)
        run.checkpoint.write_text("x")
        run.log("one line")
        run.add_times({"search": 2.0})
        run.describe({"resolution_angstrom": 3.5}, [{"name": "grid"}])
        run.finish()
    record = require_finished(folder)
    assert record.results == {"resolution_angstrom": 3.5}
    assert record.stage_seconds == {"search": 2.0}
    assert record.iterations == [{"name": "grid"}]
    # The interpreter with torch takes between 50 MB and 10 GB.
    assert 5e7 < record.peak_memory_bytes < 1e10
    assert {p.name for p in folder.iterdir()} == {"run.json", "log.txt"}
    assert (folder / "log.txt").read_text().endswith("  one line\n")


@pytest.mark.parametrize(
    ("name", "resume", "message"),
    [
        ("run.json", False, "already holds a run.*--resume"),
        ("map.mrc", False, "holds map.mrc but no run.json"),
        # Resuming used to begin anew here, which removed them.
        ("map.mrc", True, "holds map.mrc but no run.json"),
        ("particles.star", True, "holds particles.star but no run.json"),
    ],
)
def test_a_taken_folder_is_refused(
    tmp_path: Path, name: str, resume: bool, message: str
) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError, match=message):
        RunFolder(tmp_path, RECORD, resume=resume)
    assert (tmp_path / name).read_text() == "precious"


def test_overwriting_removes_runs_and_nothing_else(tmp_path: Path) -> None:
    begin(tmp_path, "finished")
    for name in ("map.mrc", "checkpoint.pt", ".partial-map.mrc", "notes.txt"):
        (tmp_path / name).write_text("old")
    (tmp_path / "log.txt").write_text("old")
    with RunFolder(tmp_path, RECORD, overwrite=True):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"run.json", "log.txt", "notes.txt"}
    assert "old" not in (tmp_path / "log.txt").read_text()


def test_resuming_goes_on_with_times_and_log(tmp_path: Path) -> None:
    def begin_and_stop() -> None:
        with RunFolder(tmp_path, RECORD) as run:
            run.log("before")
            run.checkpoint.write_text("state")
            run.add_times({"search": 2.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_and_stop()
    assert status(tmp_path) == "interrupted"
    with RunFolder(tmp_path, RECORD, resume=True) as run:
        assert run.checkpoint.read_text() == "state"
        run.add_times({"search": 1.0, "map": 4.0})
        run.finish()
    assert require_finished(tmp_path).stage_seconds == {"search": 3.0, "map": 4.0}
    assert "before" in (tmp_path / "log.txt").read_text()


def test_what_is_finished_stays_finished(tmp_path: Path) -> None:
    def finish_and_fail(error: BaseException) -> None:
        with RunFolder(tmp_path / "run", RECORD, overwrite=True) as run:
            run.finish()
            raise error

    # The summary could not be printed, or Ctrl-C came while it was.
    with pytest.raises(BrokenPipeError):
        finish_and_fail(BrokenPipeError())
    assert require_finished(tmp_path / "run").status == "finished"
    with pytest.raises(KeyboardInterrupt):
        finish_and_fail(KeyboardInterrupt())
    assert require_finished(tmp_path / "run").status == "finished"


def test_other_versions_of_a_resumed_run_are_kept(tmp_path: Path) -> None:
    def resume(version: str, threads: int) -> RunRecord:
        now = replace(RECORD, versions={"torch": version}, machine={"threads": threads})
        with RunFolder(tmp_path, now, resume=True) as run:
            return run.record

    assert resume("1.0", 2).versions == {"torch": "1.0"}
    assert resume("1.0", 2).versions == {"torch": "1.0"}
    found = resume("2.0", 4)
    assert found.versions == {"torch": "1.0, then 2.0"}
    assert found.machine == {"threads": "2, then 4"}
    assert resume("2.0", 4).versions == {"torch": "1.0, then 2.0"}
    assert RunRecord.read(tmp_path).versions == {"torch": "1.0, then 2.0"}


def test_resuming_where_nothing_is_begins(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "new", RECORD, resume=True):
        assert status(tmp_path / "new") == "running"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"workflow": "refine"}, "cryoinfer abinitio"),
        (
            {"arguments": {"symmetry": "C4", "starts": 2}},
            "with --symmetry C1, now with --symmetry C4",
        ),
        ({"arguments": {"symmetry": "C1"}}, "with --starts 2, now without --starts"),
        ({"inputs": {"particles": {"sha256": "cd"}}}, r"\(particles\) has changed"),
    ],
)
def test_resuming_another_run_is_refused(
    tmp_path: Path, changed: dict, named: str
) -> None:
    begin(tmp_path)
    with pytest.raises(OutputError, match=named):
        RunFolder(tmp_path, replace(RECORD, **changed), resume=True)


def test_threads_may_change(tmp_path: Path) -> None:
    begin(tmp_path)
    with RunFolder(tmp_path, replace(RECORD, machine={"threads": 64}), resume=True):
        pass


def test_resume_and_overwrite_contradict(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="contradict"):
        RunFolder(tmp_path, RECORD, resume=True, overwrite=True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        RunFolder(tmp_path / "out", RECORD)
    with pytest.raises(OutputError, match="Cannot write in"):
        RunFolder(tmp_path / "out" / "deeper", RECORD)


def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    other = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'a')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", other, str(tmp_path / "log.txt")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(OutputError, match="Another process"):
            RunFolder(tmp_path, RECORD, overwrite=True)
        process.kill()


def test_faults_are_logged_and_mendable_errors_kept(tmp_path: Path) -> None:
    with pytest.raises(LoggedError) as caught, RunFolder(tmp_path / "a", RECORD):
        raise ZeroDivisionError
    assert caught.value.log == tmp_path / "a" / "log.txt"
    assert "Traceback" in caught.value.log.read_text()
    assert status(tmp_path / "a") == "failed"
    with pytest.raises(InputError), RunFolder(tmp_path / "b", RECORD):
        raise InputError("bad")
    assert status(tmp_path / "b") == "failed"


def test_no_half_file_takes_a_place(tmp_path: Path) -> None:
    path = tmp_path / "map.mrc"
    path.write_text("before")

    def stop(partial: Path) -> None:
        partial.write_text("half of")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, stop)
    assert [p.name for p in tmp_path.iterdir()] == ["map.mrc"]
    assert path.read_text() == "before"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"status": "finished"}'])
def test_a_folder_without_a_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="not the folder of a run"):
        RunRecord.read(tmp_path)
