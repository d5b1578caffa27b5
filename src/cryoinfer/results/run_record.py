"""What ``run.json`` holds: of whom a run is, of what, and how far it got."""

import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from cryoinfer import __version__
from cryoinfer.errors import InputError
from cryoinfer.io.replacing import replace_file
from cryoinfer.results.layout import RECORD

REMARKS = "remarks"
"""In the results of a record: what was said of the particles when they were read."""

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
        Threads, device and system; software.
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
    created: str = field(default_factory=lambda: local_time())
    updated: str = field(default_factory=lambda: local_time())
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    results: dict[str, Any] = field(default_factory=dict)
    iterations: list[dict[str, Any]] = field(default_factory=list)
    mirrored: bool = False

    @property
    def has_classes(self) -> bool:
        """Whether it is a run of `heterogeneity` that has found classes."""
        return self.arguments.get("model") == "classes"

    @property
    def has_conformations(self) -> bool:
        """Whether it is a run whose particles have z: by itself, or by its encoder."""
        return self.workflow == "heterogeneity" or "held_out_gain" in self.results

    @classmethod
    def of_now(
        cls,
        workflow: str,
        arguments: dict[str, Any],
        inputs: dict[str, Any],
        seed: int,
        threads: int,
        device: str = "cpu",
    ) -> Self:
        """Return the record of a run that begins now, on this machine."""
        return cls(
            workflow=workflow,
            arguments=arguments,
            inputs=inputs,
            seed=seed,
            machine={
                "threads": threads,
                "device": device,
                "system": platform.platform(),
            },
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
        if folder.is_dir() and not path.exists():
            raise InputError(
                f"{folder} is not the folder of a run: it holds no {RECORD}."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            record = cls(**{f.name: values[f.name] for f in fields(cls)})
            record._require_types()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{folder} is not the folder of a run: {RECORD} is missing or damaged."
            ) from error
        return record

    def _require_types(self) -> None:
        """Raise TypeError unless every field is of its type."""
        for name, hint in get_type_hints(type(self)).items():
            if not _is_of(getattr(self, name), hint):
                raise TypeError(f"{name} is not of the type {hint}")

    def symmetry(self, folder: Path) -> str:
        """Return the point group of the map that a run has made.

        Raises
        ------
        InputError
            If the record names none that there is.
        """
        from cryoinfer.geometry.symmetry import symmetry_rotations

        with self.trusted(folder):
            group = self.results["symmetry"]
            try:
                symmetry_rotations(group)
            except InputError as error:
                raise ValueError(group) from error
        return str(group)

    @contextmanager
    def trusted(self, folder: Path) -> Iterator[None]:
        """Run a body that makes more of the record than its types promise.

        Raises
        ------
        InputError
            If what the body asks for is not there, or is of another kind.
        """
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{folder / RECORD} is damaged, or of another version of cryoinfer: "
                "what was expected in it is missing or of another kind. Copy it "
                "again, or repeat the run."
            ) from error

    def key(self) -> str:
        """Return what tells the run from others: its states go on with no other."""
        # What is not given may be absent: an older version had no such option.
        given = {name: one for name, one in self.arguments.items() if one is not None}
        decisive = [self.workflow, given, self.inputs]
        text = json.dumps(decisive, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write the record, all of it or nothing."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        replace_file(folder / RECORD, lambda path: path.write_text(text))


def _is_of(value: object, hint: Any) -> bool:
    """Tell whether a value out of JSON is of a type."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        return True
    if kind is Literal:
        return value in parts
    if kind is dict:
        return isinstance(value, dict) and all(
            _is_of(one, parts[1]) for one in value.values()
        )
    if kind is list:
        return isinstance(value, list) and all(_is_of(one, parts[0]) for one in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


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
            f"The run in {folder} is {record.status}, not finished. Finish it first: "
            f"`cryoinfer {record.workflow}` with --resume."
        )
    return record


def local_time() -> str:
    """Return the time of now, to the second, with its zone."""
    return datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
