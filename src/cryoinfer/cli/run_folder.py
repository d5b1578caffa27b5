"""The folder of a run: whose it is, how far the run got, and its log.

Nothing in it looks complete before it is: every file is written under a temporary
name and then renamed, and ``run.json`` says ``finished`` last of all.
"""

import fcntl
import os
import resource
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryoinfer.cli.arguments import told_argument
from cryoinfer.cli.guard import LoggedError, mendable
from cryoinfer.cli.signals import ENDING
from cryoinfer.cli.state_file import StateFile
from cryoinfer.errors import CryoinferError, OutputError
from cryoinfer.io.replacing import clear_partials
from cryoinfer.results.layout import CHECKPOINT, LOG, RECORD, RESULTS
from cryoinfer.results.run_record import RunRecord, local_time

_THEN = ", then "


def require_free(
    folder: Path, record: RunRecord, resume: bool, overwrite: bool
) -> None:
    """Refuse a folder that holds something else than this run may touch.

    Raises
    ------
    OutputError
        If it holds a run and neither to resume nor to overwrite it was asked, or if
        the run to be resumed differs; the message names the option.
    """
    if resume and overwrite:
        raise OutputError("--resume and --overwrite contradict each other: give one.")
    if not _holds_run(folder, overwrite):
        return
    if not resume:
        raise OutputError(
            f"{folder} already holds a run. Give another folder, --resume to go on "
            "with that run, or --overwrite to replace it."
        )
    _require_same(RunRecord.read(folder), record, folder)


def require_no_run(folder: Path, overwrite: bool) -> None:
    """Refuse a folder for a run that is made at once, and can never be resumed.

    Raises
    ------
    OutputError
        If it holds a run that must not be replaced.
    """
    if _holds_run(folder, overwrite):
        raise OutputError(
            f"{folder} already holds a run. Give another folder, or --overwrite to "
            "replace it."
        )


def _holds_run(folder: Path, overwrite: bool) -> bool:
    """Tell whether a folder holds a run that must not be replaced.

    Raises
    ------
    OutputError
        If it is no folder, or holds results of no run.
    """
    require_folder_or_nothing(folder)
    if overwrite:
        return False
    held = [name for name in (RECORD, *RESULTS) if (folder / name).exists()]
    if held and RECORD not in held:
        raise OutputError(
            f"{folder} holds {held[0]} but no {RECORD}: there is no run to go on with. "
            "Give another folder, or --overwrite to replace what is there."
        )
    return bool(held)


def require_folder_or_nothing(out: Path) -> None:
    """Refuse a name for a folder that is taken by something else.

    Raises
    ------
    OutputError
    """
    if os.path.lexists(out) and not out.is_dir():
        kind = "a file" if out.exists() else "a link that leads nowhere"
        raise OutputError(f"{out} is {kind}: give another output folder.")


def require_elsewhere(out: Path, *inputs: Path) -> None:
    """Refuse to write where the inputs are, which --overwrite would remove.

    Inputs are files or folders; names of what is built in stand for neither.

    Raises
    ------
    OutputError
    """
    folders = [
        path if path.is_dir() else path.parent for path in inputs if path.exists()
    ]
    # Not Path.resolve, which fails where links go in a circle.
    if os.path.realpath(out) in [os.path.realpath(folder) for folder in folders]:
        raise OutputError(f"{out} holds what is read: give another folder.")


class RunFolder:
    """The folder of a run that is under way; use as a context manager.

    Leaving it with an error marks a run that is not finished as interrupted or failed,
    and writes the traceback to the log.

    Parameters
    ----------
    path : Path
        Made if it is absent.
    record : RunRecord
        Of the run that begins.
    resume, overwrite : bool
        What to do with a run that is there already.

    Raises
    ------
    OutputError
        If the folder is taken, in use or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        record: RunRecord,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        require_free(path, record, resume, overwrite)
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._log = (path / LOG).open(
                "a", encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:
            raise OutputError(f"Cannot write in {path}: {error.strerror}.") from error
        self._lock()
        if resume and (path / RECORD).exists():
            earlier = RunRecord.read(path)
            record = replace(
                record,
                created=earlier.created,
                results=earlier.results,
                stage_seconds=earlier.stage_seconds,
                peak_memory_bytes=earlier.peak_memory_bytes,
                versions=_joined(earlier.versions, record.versions),
                machine=_joined(earlier.machine, record.machine),
            )
            clear_partials(path)
        else:
            clear(path)
            self._log.truncate(0)
        self.record = record
        self.record.write(path)

    @property
    def checkpoint(self) -> Path:
        """Where the state of the run is kept until it is finished."""
        return self.path / CHECKPOINT

    def state(self, name: str = CHECKPOINT) -> StateFile:
        """Return what keeps the state of this run, and goes on with no other's."""
        return StateFile(self.path / name, self.record.key())

    def log(self, text: str) -> None:
        """Append a line to the log, at once."""
        try:
            self._log.write(f"{local_time()}  {text}\n")
            self._log.flush()
        except OSError as error:
            raise OutputError(
                f"Cannot write {self.path / LOG}: {error.strerror}. Free some space; "
                "the run can then be continued with --resume."
            ) from error

    def add_times(self, stage_seconds: Mapping[str, float]) -> None:
        """Add the times of stages to those of the run before it was resumed."""
        seconds = dict(self.record.stage_seconds)
        for name, value in stage_seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
        self.record = replace(self.record, stage_seconds=seconds)

    def describe(
        self, results: Mapping[str, Any], iterations: Sequence[Mapping[str, Any]]
    ) -> None:
        """Put the numbers and the history of the run into its record."""
        self._change(results=dict(results), iterations=[dict(i) for i in iterations])

    def finish(self) -> None:
        """Mark the run as finished; from now on its results can be used."""
        self._change(status="finished")
        self.checkpoint.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Or what a library has made of it.
        interrupted = isinstance(error, KeyboardInterrupt) or bool(ENDING.received)
        try:
            if error is not None:
                # A full disk must not hide the error that is under way.
                with suppress(OSError, CryoinferError):
                    # What could not be told or printed does not undo what is written.
                    if self.record.status != "finished":
                        self._change(status="interrupted" if interrupted else "failed")
                    story = "".join(traceback.format_exception(error)).rstrip()
                    self.log("Interrupted." if interrupted else story)
        finally:
            with suppress(OSError):
                self._log.close()
        if isinstance(error, Exception) and mendable(error) is None:
            raise LoggedError(self.path / LOG) from error

    def _change(self, **values: Any) -> None:
        peak = max(self.record.peak_memory_bytes, _peak_memory_bytes())
        self.record = replace(
            self.record, updated=local_time(), peak_memory_bytes=peak, **values
        )
        self.record.write(self.path)

    def _lock(self) -> None:
        """Hold the log, so that no second process writes here; ends with us."""
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._log.close()
            raise OutputError(
                f"Another process is writing the run in {self.path}. Wait for it, or "
                "give another folder."
            ) from error
        except OSError:
            return  # a file system without locks


def clear(folder: Path) -> None:
    """Remove what an earlier run left; other files stay."""
    for name in (RECORD, CHECKPOINT, *RESULTS):
        (folder / name).unlink(missing_ok=True)
    clear_partials(folder)


def _joined(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is so now; what was not so before is told with what it was."""
    joined = {}
    for name, value in now.items():
        earlier = before.get(name, value)
        # It may have been resumed with another one already.
        last = str(earlier).rpartition(_THEN)[2]
        joined[name] = earlier if last == str(value) else f"{earlier}{_THEN}{value}"
    return joined


def _require_same(earlier: RunRecord, record: RunRecord, folder: Path) -> None:
    """Raise OutputError, naming the option, unless a run is the one to go on with."""
    if earlier.workflow != record.workflow:
        raise OutputError(
            f"{folder} holds a run of `cryoinfer {earlier.workflow}`, not of "
            f"`cryoinfer {record.workflow}`: it cannot be resumed as one."
        )
    for name in sorted(earlier.arguments.keys() | record.arguments.keys()):
        before, now = earlier.arguments.get(name), record.arguments.get(name)
        if before != now:
            raise OutputError(
                f"The run in {folder} was started {told_argument(name, before)}, now "
                f"{told_argument(name, now)}. Resume it with the same options, or give "
                "--overwrite to start again."
            )
    for name, now in record.inputs.items():
        if earlier.inputs.get(name) != now:
            raise OutputError(
                f"The input ({name}) has changed since the run in {folder} was "
                "started. Restore it, or give --overwrite to start again."
            )


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kibibytes
