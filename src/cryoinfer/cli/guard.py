"""Every error becomes one message for the user and an exit code.

====  ==========================================================================
code  meaning
====  ==========================================================================
0     done
1     something unexpected, the traceback is in a log; or findings of ``check``
2     an error that the user can mend, or a wrong option
130   Ctrl-C
143   SIGTERM, as batch systems send it before they kill
====  ==========================================================================
"""

import errno
import signal
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.exceptions import TyperException

from cryoinfer.errors import CryoinferError, is_out_of_memory

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_AWAY = (errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)


class Terminated(KeyboardInterrupt):
    """SIGTERM has arrived; unwinds the stack as Ctrl-C does."""


class LoggedError(Exception):
    """Something unexpected, whose traceback has been written to a log.

    Parameters
    ----------
    log : Path
    """

    def __init__(self, log: Path) -> None:
        super().__init__(str(log))
        self.log = log


class GuardedGroup(TyperGroup):
    """Commands whose errors are told in one sentence, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the user named."""
        try:
            with _termination_as_exception():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            code = 143 if isinstance(interrupt, Terminated) else 130
            raise typer.Exit(code) from interrupt
        except (typer.Exit, typer.Abort, TyperException):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of a pipe has gone; typer ends in silence
            message, code = explain(error)
            Console(stderr=True).print(
                f"Error: {message}", markup=False, highlight=False, soft_wrap=True
            )
            raise typer.Exit(code) from error


def explain(error: Exception) -> tuple[str, int]:
    """Return what to tell a user about an error, and the exit code.

    The traceback of what nobody expected is kept in a file that the message names.
    """
    message = mendable(error)
    if message is not None:
        return message, 2
    cause, log = error, None
    if isinstance(error, LoggedError) and isinstance(error.__cause__, Exception):
        cause, log = error.__cause__, error.log
    log = log or _write_traceback(cause)
    summary = " ".join(str(cause).split())[:200]
    return (
        f"something unexpected went wrong ({type(cause).__name__}: {summary}). This is "
        f"a fault of the program: please report it with the log {log}.",
        1,
    )


def mendable(error: BaseException) -> str | None:
    """Return what to tell about an error that the user can mend, None of any other."""
    if isinstance(error, CryoinferError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        place = f" {error.filename}" if error.filename else ""
        return (
            f"Cannot write{place}: {error.strerror}. Free some space; a run can then "
            "be continued with --resume."
        )
    if isinstance(error, OSError) and error.errno in _FORBIDDEN:
        return f"Cannot access {error.filename}: {error.strerror}."
    if isinstance(error, OSError) and error.errno in _AWAY:
        return (
            f"Cannot reach {error.filename or 'a file'}: {error.strerror}. Try again "
            "when the file system answers; a run can be continued with --resume."
        )
    if is_out_of_memory(error):
        return (
            "There is not enough memory. See with --dry-run how much a run needs, and "
            "use a smaller box or fewer particles."
        )
    return None


def _write_traceback(error: Exception) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="cryoinfer-", suffix=".log", delete=False
    ) as file:
        file.write("".join(traceback.format_exception(error)))
    return Path(file.name)


@contextmanager
def _termination_as_exception() -> Iterator[None]:
    """Raise :class:`Terminated` at SIGTERM, so that a run can keep what it has."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it gets signals
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    earlier = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
