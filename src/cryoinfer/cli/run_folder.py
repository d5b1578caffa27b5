"""The folder of a run: whose it is, how far the run got, and its log.

Nothing in it looks complete before it is: every file is written under a temporary
name and then renamed, and ``run.json`` says ``finished`` last of all.
"""

import fcntl
import json
import os
import platform
import resource
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from cryoinfer import __version__
from cryoinfer.cli.guard import LoggedError, mendable
from cryoinfer.errors import CryoinferError, InputError, OutputError

RECORD, LOG, CHECKPOINT = "run.json", "log.txt", "checkpoint.pt"
PARTICLES, POSTERIORS, FSC, REPORT = (
    "particles.star",
    "posteriors.npz",
    "fsc.star",
    "report.html",
)
MAP, HALF1, HALF2, MASK = "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc"
NOISE, EVALUATION, ERRORS = "noise.star", "evaluation.json", "evaluation.npz"
ENCODER, WATCH = "encoder.pt", "watch.pt"
LATENTS, MODES, SCRIPT = "latents.parquet", "modes.nmd", "view.cxc"
ENSEMBLE, CENTRES, REST = "mode{}.cif", "centres.cif", "rest.cif"
_MOST_ENSEMBLES = 20
RESULTS = (
    *(PARTICLES, POSTERIORS, FSC, REPORT),
    *(MAP, HALF1, HALF2, MASK, NOISE, EVALUATION, ERRORS, ENCODER, WATCH),
    *(LATENTS, MODES, SCRIPT, CENTRES, REST),
    *(ENSEMBLE.format(number + 1) for number in range(_MOST_ENSEMBLES)),
)
"""What a run and its evaluation leave, besides record, log and checkpoint."""

_PARTIAL = ".partial-"

Status = Literal["running", "interrupted", "failed", "finished"]


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` holds.

    Attributes
    ----------
    workflow : str
    arguments : dict
        What decides the result, by option.
    inputs : dict
        Fingerprints of the files that were read.
    seed : int
    machine, versions : dict
        Threads and system; software.
    status : {"running", "interrupted", "failed", "finished"}
    created, updated : str
        Local time, ISO 8601.
    stage_seconds : dict of str to float
    peak_memory_bytes : int
    results : dict
        Numbers of the final map.
    iterations : list of dict
        The history of the run, one dict an iteration.
    mirrored : bool
        Whether `cryoinfer flip` has changed the hand of what the run found.
    """

    workflow: str
    arguments: dict[str, Any]
    inputs: dict[str, Any]
    seed: int
    machine: dict[str, Any]
    versions: dict[str, str]
    status: Status = "running"
    created: str = field(default_factory=lambda: _now())
    updated: str = field(default_factory=lambda: _now())
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    results: dict[str, Any] = field(default_factory=dict)
    iterations: list[dict[str, Any]] = field(default_factory=list)
    mirrored: bool = False

    @classmethod
    def of_now(
        cls,
        workflow: str,
        arguments: dict[str, Any],
        inputs: dict[str, Any],
        seed: int,
        threads: int,
    ) -> Self:
        """Return the record of a run that begins now, on this machine."""
        return cls(
            workflow=workflow,
            arguments=arguments,
            inputs=inputs,
            seed=seed,
            machine={"threads": threads, "system": platform.platform()},
            versions=software_versions(),
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record of a folder.

        Raises
        ------
        InputError
            If the folder holds no run.
        """
        path = folder / RECORD
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{f.name: values[f.name] for f in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder} is not the folder of a run: {RECORD} is missing or damaged."
            ) from error

    def write(self, folder: Path) -> None:
        """Write the record, all of it or nothing."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        replace_file(folder / RECORD, lambda path: path.write_text(text))


def software_versions() -> dict[str, str]:
    """Return the versions that can change a result."""
    return {
        "cryoinfer": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "numba")},
    }


def require_finished(folder: Path) -> RunRecord:
    """Return the record of a run that has ended well.

    Raises
    ------
    InputError
        If the folder holds no run, or one that has not finished.
    """
    record = RunRecord.read(folder)
    if record.status != "finished":
        raise InputError(
            f"The run in {folder} is {record.status}, not finished. Finish it with "
            "--resume first."
        )
    return record


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside it, then rename it.

    Raises
    ------
    OutputError
        If it cannot be written; the file that was there stays.
    """
    partial = path.with_name(_PARTIAL + path.name)
    try:
        write(partial)
        # Renaming may reach the disk before the content does.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


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
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: give another output folder.")
    if overwrite:
        return
    held = [name for name in (RECORD, *RESULTS) if (folder / name).exists()]
    if held and RECORD not in held:
        raise OutputError(
            f"{folder} holds {held[0]} but no {RECORD}: there is no run to go on with. "
            "Give another folder, or --overwrite to replace what is there."
        )
    if held and not resume:
        raise OutputError(
            f"{folder} already holds a run. Give another folder, --resume to go on "
            "with that run, or --overwrite to replace it."
        )
    if held:
        _require_same(RunRecord.read(folder), record, folder)


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
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise OutputError(f"{out} holds what is read: give another folder.")


class RunFolder:
    """The folder of a run that is under way; use as a context manager.

    Leaving it with an error marks the run as interrupted or failed and writes the
    traceback to the log.

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
            self._log = (path / LOG).open("a", encoding="utf-8")
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
            )
        else:
            clear(path)
            self._log.truncate(0)
        self.record = record
        self.record.write(path)

    @property
    def checkpoint(self) -> Path:
        """Where the state of the run is kept until it is finished."""
        return self.path / CHECKPOINT

    def log(self, text: str) -> None:
        """Append a line to the log, at once."""
        self._log.write(f"{_now()}  {text}\n")
        self._log.flush()

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
        interrupted = isinstance(error, KeyboardInterrupt)
        try:
            if error is not None:
                # A full disk must not hide the error that is under way.
                with suppress(OSError, CryoinferError):
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
            self.record, updated=_now(), peak_memory_bytes=peak, **values
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
    for partial in folder.glob(f"{_PARTIAL}*"):
        partial.unlink()


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
                f"The run in {folder} was started with {name} = {before}, now {name} "
                f"is {now}. Resume it with what it was started with, or give "
                "--overwrite to begin anew."
            )
    for name, now in record.inputs.items():
        if earlier.inputs.get(name) != now:
            raise OutputError(
                f"The input ({name}) has changed since the run in {folder} was "
                "started. Restore it, or give --overwrite to begin anew."
            )


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kibibytes


def _now() -> str:
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
