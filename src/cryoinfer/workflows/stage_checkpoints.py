"""Runs of several parts that share one monitor and one checkpoint."""

from collections.abc import Mapping
from typing import Any

from cryoinfer.interfaces import Monitor


class StageCheckpoints:
    """One monitor, and its one checkpoint, for the parts of a run.

    What the last checkpoint of a part that is over holds stays beside that of the
    part under way: a training's is its end, which takes no step again. One that is
    large is to be dropped, and gives way to what it has left.

    Parameters
    ----------
    monitor : Monitor
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._kept: dict[str, Any] = dict(monitor.load_checkpoint() or {})

    def monitor(self, part: str) -> "StageMonitor":
        """Return the monitor of one part."""
        return StageMonitor(self._monitor, part, self)

    def keep(self, name: str, state: Mapping[str, object]) -> None:
        """Keep a state beside those of other parts."""
        self._kept[name] = dict(state)
        self._monitor.save_checkpoint(self._kept)

    def kept(self, name: str) -> Mapping[str, Any] | None:
        """Return the state that a part has kept, if any."""
        state: Mapping[str, Any] | None = self._kept.get(name)
        return state

    def drop(self, name: str) -> None:
        """Forget the state of a part."""
        self._kept.pop(name, None)


class StageMonitor:
    """The :class:`~cryoinfer.interfaces.Monitor` of one part of a run."""

    def __init__(self, monitor: Monitor, part: str, parts: StageCheckpoints) -> None:
        self._monitor, self._part, self._parts = monitor, part, parts

    def stage(self, name: str, total: int) -> None:
        """Begin a stage whose name says the part as well."""
        self._monitor.stage(f"{self._part}: {name}", total)

    def advance(self, steps: int = 1) -> None:
        """Pass it on."""
        self._monitor.advance(steps)

    def extend(self, steps: int) -> None:
        """Pass it on."""
        self._monitor.extend(steps)

    def message(self, text: str) -> None:
        """Pass it on."""
        self._monitor.message(text)

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        """Keep the state as this part's."""
        self._parts.keep(self._part, state)

    def load_checkpoint(self) -> Mapping[str, object] | None:
        """Return the state of this part."""
        return self._parts.kept(self._part)
