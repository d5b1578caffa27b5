"""Files in a watched folder: when they changed, and which were left for later."""

import re
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_RETRY_LOOKS = 15
"""After so many, a file that could not be read is tried again: its stacks may lie in
another folder. In this one any change is reason enough."""

_MOST_NAMED = 5
"""Files that were left for later, of which a caution says why."""

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in ns, which tell of changes."""


def stamps(source: Path) -> dict[str, Stamp]:
    """Return the files of a folder by name."""
    found = {}
    for path in source.iterdir():
        # Renamed since the folder was listed, or out of reach for a moment.
        with suppress(OSError):
            found[path.name] = stamp(path)
    return found


def stamp(path: Path) -> Stamp:
    """Return what tells of changes of a file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def holds_particles(name: str) -> bool:
    """Tell particle files by name; stacks alone say nothing of their CTF."""
    is_kind = name.endswith((".star", ".cs"))
    return is_kind and not name.startswith(".") and "passthrough" not in name


@dataclass(frozen=True)
class _Failure:
    """Why a file could not be inferred, and what the folder held then."""

    folder: Mapping[str, Stamp]
    look: int
    reason: str


class LeftFiles:
    """Files that could not be inferred so far, and why."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """Why files were left, by name."""
        return {name: one.reason for name, one in self._failures.items()}

    def is_to_wait(self, name: str, now: Mapping[str, Stamp], look: int) -> bool:
        """Tell whether a file was left at one of the last looks at the same folder."""
        failure = self._failures.get(name)
        if failure is None:
            return False
        return failure.folder == now and look < failure.look + _RETRY_LOOKS

    def add(self, name: str, now: Mapping[str, Stamp], look: int, reason: str) -> bool:
        """Note why a file is left; tell whether it was left for another reason so far.

        How far a file has grown makes none.
        """
        failure = self._failures.get(name)
        self._failures[name] = _Failure(now, look, reason)
        return failure is None or _told(failure.reason) != _told(reason)

    def drop(self, name: str) -> None:
        """Forget a file, which is in."""
        self._failures.pop(name, None)

    def keep(self, names: Container[str]) -> None:
        """Forget all files but some: the others are there no longer."""
        self._failures = {n: one for n, one in self._failures.items() if n in names}

    def cautions(self) -> list[str]:
        """Return what is to be said of a map that they are not in."""
        if not self._failures:
            return []
        count, reasons = len(self._failures), list(self.reasons.items())[:_MOST_NAMED]
        said = "; ".join(f"{name} ({reason.rstrip('.')})" for name, reason in reasons)
        more = f"; and {count - _MOST_NAMED:,} more" if count > _MOST_NAMED else ""
        files = "1 file" if count == 1 else f"{count:,} files"
        lack = f"This map lacks particles of {files} that could not be inferred"
        return [f"{lack}: {said}{more}."]


def _told(reason: str) -> str:
    """Return what matters of a reason: not how far a file has grown."""
    return re.sub(r"\d+", "", reason)
