"""The monitor of a run that several processes share."""

from collections.abc import Mapping
from dataclasses import dataclass

from cryoinfer.interfaces import Monitor
from cryoinfer.world import World


@dataclass(frozen=True)
class SharedMonitor:
    """Lets the first process report and keep checkpoints, and all read them.

    A :class:`cryoinfer.interfaces.Monitor`.

    Attributes
    ----------
    monitor : Monitor
        Of the first process; that of the others is not asked.
    world : World
    """

    monitor: Monitor
    world: World

    def stage(self, name: str, total: int) -> None:
        """Begin a stage; ``total`` are the steps of this process."""
        if self.world.is_first:
            self.monitor.stage(name, total)

    def advance(self, steps: int = 1) -> None:
        """Report steps of the first process."""
        if self.world.is_first:
            self.monitor.advance(steps)

    def extend(self, steps: int) -> None:
        """Add steps of the first process."""
        if self.world.is_first:
            self.monitor.extend(steps)

    def message(self, text: str) -> None:
        """Say it once."""
        if self.world.is_first:
            self.monitor.message(text)

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        """Keep the state of the first process, which is that of all."""
        if self.world.is_first:
            self.monitor.save_checkpoint(state)

    def load_checkpoint(self) -> Mapping[str, object] | None:
        """Return the state that the first process has kept; all must ask."""
        saved = self.monitor.load_checkpoint() if self.world.is_first else None
        return self.world.of_first(saved)
