"""How a run tells of its progress on a terminal and in its log."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from cryoinfer.cli.state_file import StateFile
from cryoinfer.cli.terminal import say
from cryoinfer.wording import format_duration

_SECONDS_BETWEEN_LINES = 30.0


def time_left(done: float, total: float, seconds: float) -> str:
    """Say how long a stage still takes, at the speed that it has had.

    One that has not ended is at work, whatever was counted.

    Parameters
    ----------
    done, total : float
        Steps.
    seconds : float
        That what is done has taken.
    """
    if done >= total:
        return "nearly done"
    if done <= 0:
        return "time left not known yet"
    left = seconds * (total / done - 1)
    return "less than 1 s left" if left < 1 else f"about {format_duration(left)} left"


class _TimeLeftColumn(ProgressColumn):
    """The time left in the words of the log."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return it for the stage under way."""
        total = task.completed if task.total is None else task.total
        return Text(time_left(task.completed, total, task.elapsed or 0.0))


class RichMonitor:
    """A :class:`~cryoinfer.interfaces.Monitor` for people and for log files.

    On a terminal the current stage is a bar with the time left; elsewhere, and in
    the log, it is a line every half minute. The log gets the time of each stage too.

    Parameters
    ----------
    console : Console
    log : function of a line of text, optional
        Gets everything.
    checkpoint : StateFile, optional
        Keeps states; without it they are dropped.

    Attributes
    ----------
    stage_seconds : dict of str to float
        By stage, in the order of the run; stages of one name are added up.
    stage_steps : dict of str to int
        How far the stages have come, likewise.
    """

    def __init__(
        self,
        console: Console,
        log: Callable[[str], None] | None = None,
        checkpoint: StateFile | None = None,
    ) -> None:
        self.stage_seconds: dict[str, float] = {}
        self.stage_steps: dict[str, int] = {}
        self._console = console
        self._log = log
        self._checkpoint = checkpoint
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _TimeLeftColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._name = ""
        self._done = self._total = 0
        self._started = self._last_line = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end_stage()
        self._progress.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage, and end the one before."""
        self.end_stage()
        self._name, self._done, self._total = name, 0, total
        self._started = self._last_line = time.perf_counter()
        self._task = self._progress.add_task(name, total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar; say a line if none was said for half a minute."""
        if self._task is None:
            return
        self._done += steps
        self._progress.advance(self._task, steps)
        now = time.perf_counter()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = time_left(self._done, self._total, now - self._started)
            text = f"{self._name}: {self._done:,} of {self._total:,}, {left}"
            if not self._console.is_terminal:
                say(self._console, text)
            if self._log is not None:
                self._log(text)

    def extend(self, steps: int) -> None:
        """Put the end of the stage further away."""
        self._total += steps
        if self._task is not None:
            self._progress.update(self._task, total=self._total)

    def message(self, text: str) -> None:
        """Print one line, and keep it in the log."""
        say(self._console, text)
        if self._log is not None:
            self._log(text)

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        """Replace the state that was kept; a half-written one never takes its place.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._checkpoint is not None:
            self._checkpoint.save(state)

    def load_checkpoint(self) -> Mapping[str, object] | None:
        """Return the state of the run that is being resumed, if it has kept any.

        Raises
        ------
        InputError
            If the file is damaged, or of another run or version.
        """
        return None if self._checkpoint is None else self._checkpoint.load()

    def forget_stages(self) -> None:
        """Begin to count seconds and steps anew."""
        self.stage_seconds.clear()
        self.stage_steps.clear()

    def end_stage(self) -> None:
        """End the stage, if there is one: what comes now is none of its time."""
        if self._task is None:
            return
        seconds = time.perf_counter() - self._started
        total = self.stage_seconds.get(self._name, 0.0) + seconds
        self.stage_seconds[self._name] = total
        steps = self.stage_steps.get(self._name, 0) + self._done
        self.stage_steps[self._name] = steps
        self._progress.remove_task(self._task)
        self._task = None
        if self._log is not None:
            self._log(f"{self._name}: {format_duration(seconds)}")
