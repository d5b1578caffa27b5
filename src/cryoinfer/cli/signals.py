"""Signals that ask the program to end: each unwinds the stack, as Ctrl-C does.

======  ====  =============================================================
signal  code  who sends it
======  ====  =============================================================
INT     130   Ctrl-C
TERM    143   batch systems, before they kill
HUP     129   a terminal that is closed, a connection that is lost
XCPU    152   batch systems, when the time is nearly over
======  ====  =============================================================

One that is ignored when the program starts, as ``nohup`` has it, stays ignored.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

_CODE = 128  # plus the number of the signal, as shells have it
_AGAIN_SECONDS = 0.05
_UNWINDING_SECONDS = 10.0
"""After a signal in which others are as one with it: what is kept of a run is being
written."""


class Interrupted(KeyboardInterrupt):
    """A signal has arrived; unwinds the stack as Ctrl-C does.

    Parameters
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = _CODE + number


class EndingSignals:
    """Raise :class:`Interrupted` where a signal asks the program to end.

    While a module is being imported it waits: half-imported libraries turn it into
    errors of their own, or lose it. Python drops it where it is raised in a callback
    (of a finaliser, of a weak reference), and libraries that catch everything do: it is
    raised again then. Use as a context manager; those inside another do nothing.

    Attributes
    ----------
    received : int or None
        Number of the signal that has asked first.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._depth = 0
        self._raised_at = -_UNWINDING_SECONDS
        self._terminals: list[int] = []
        self._earlier: dict[int, Any] = {}
        self._earlier_hook = sys.unraisablehook

    def __enter__(self) -> Self:
        # Only the main thread may set handlers, and only it gets signals.
        if threading.current_thread() is not threading.main_thread():
            return self
        self._depth += 1
        if self._depth == 1:
            # A terminal that has been closed is none any more.
            self._terminals = [number for number in (0, 1, 2) if os.isatty(number)]
            self._earlier_hook, sys.unraisablehook = sys.unraisablehook, self._dropped
            self._earlier = {signal.SIGALRM: signal.signal(signal.SIGALRM, self._retry)}
            for number in _ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._earlier[number] = signal.signal(number, self._arrive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._depth -= 1
        if self._depth == 0:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            for number, handler in self._earlier.items():
                signal.signal(number, handler)
            sys.unraisablehook = self._earlier_hook
            self.received, self._raised_at = None, -_UNWINDING_SECONDS

    def leave_to_the_system(self) -> None:
        """Let signals end the process at once: its work is done."""
        for number in self._earlier:
            self._earlier[number] = signal.SIG_DFL

    def settle(self) -> None:
        """Take the signals so far as answered: none of them is raised again.

        For work that goes on until a signal ends it.
        """
        if self.received is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            self.received = None

    @property
    def code(self) -> int | None:
        """Exit code of a process that was asked to end, None of others."""
        return None if self.received is None else _CODE + self.received

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._forget_terminal()
        if self.received is None:
            self.received = number
        if time.monotonic() - self._raised_at >= _UNWINDING_SECONDS:
            self._retry(number, frame)

    def _forget_terminal(self) -> None:
        """Let what is printed on it go nowhere: writing to a closed one fails."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in self._terminals:
            os.dup2(nowhere, number)
        os.close(nowhere)

    def _retry(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            return
        # Some library may catch everything: it is looked at again until all is left.
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        if _is_importing(frame) or _is_unwinding():
            return
        self._raised_at = time.monotonic()
        raise Interrupted(self.received)

    def _dropped(self, event: "sys.UnraisableHookArgs") -> None:
        if isinstance(event.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            self._earlier_hook(event)


def _is_unwinding() -> bool:
    """Tell whether a handler runs that a signal's exception has led to."""
    error: BaseException | None = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, Interrupted):
            return True
        error = error.__context__
    return False


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)

ENDING = EndingSignals()
"""Those of this process."""
