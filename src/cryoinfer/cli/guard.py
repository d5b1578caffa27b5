"""Every error becomes one message for the user and an exit code.

====  ==========================================================================
code  meaning
====  ==========================================================================
0     done
1     something unexpected, the traceback is in a log; or findings of ``check``
2     an error that the user can mend, or a wrong option
3     done, but no structure was found: the images do not show the map
128+  a signal: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP (:mod:`cryoinfer.cli.signals`)
====  ==========================================================================
"""

import errno
import io
import re
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.exceptions import TyperException

from cryoinfer.cli.aliases import in_own_words
from cryoinfer.cli.signals import ENDING
from cryoinfer.cli.terminal import say, spelled
from cryoinfer.errors import CryoinferError, NothingFoundError, is_out_of_memory

NOTHING_FOUND = 3
"""Exit code of a run that came to its end and found no structure."""

_LONGEST = 1000
"""Characters of a message."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ADVICE = {
    "--resume": "A run can then be continued with --resume.",
    "--dry-run": "--dry-run says how much a run needs.",
}
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_AWAY = (errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)


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

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command whose help has the sign of the angstrom, where it can."""
        command: Any = super().get_command(ctx, cmd_name)
        screen = Console()
        for one in command.params if command is not None else ():
            one.help = spelled(screen, one.help or "")
            one.metavar = one.metavar and spelled(screen, one.metavar)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the user named, and its words in its own names."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, in_own_words(command, rest)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the user named."""
        for stream in (sys.stdout, sys.stderr):
            # Names of files may hold what a terminal's encoding does not.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        with ENDING:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as interrupt:
                raise typer.Exit(ENDING.code or 130) from interrupt
            except (typer.Exit, typer.Abort, TyperException):
                raise
            except Exception as error:
                raise typer.Exit(_tell(error, self._options(ctx))) from error

    def _options(self, ctx: Any) -> set[str]:
        """Return the options of the command that runs."""
        command: Any = self.commands.get(ctx.invoked_subcommand or "")
        parameters = [] if command is None else command.params
        return {name for one in parameters for name in one.opts}


def _tell(error: Exception, options: set[str]) -> int:
    """Tell a user of an error, and return the exit code.

    Advice about runs is left out where the command, by its options, makes none.
    """
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        raise error  # the reader of a pipe has gone; typer ends in silence
    if ENDING.code is not None and mendable(error) is None:
        return ENDING.code  # what a library makes of an interruption
    message, code = explain(error)
    for option, advice in _ADVICE.items():
        if option not in options:
            message = message.replace(f" {advice}", "")
    with suppress(OSError):  # a terminal that has closed, a disk that is full
        say(Console(stderr=True), f"Error: {one_line(message)}")
    return code


def one_line(text: str) -> str:
    """Return a text without line breaks, control characters and a long middle.

    Only what a broken file holds, or a name made to harm, is that long.
    """
    plain = "".join(
        one if one.isprintable() or 0xDC80 <= ord(one) <= 0xDCFF else repr(one)[1:-1]
        for one in re.sub(r"\s*\n\s*", " ", text.strip())
    )
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST // 2]} [...] {plain[-_LONGEST // 2 :]}"


def explain(error: Exception) -> tuple[str, int]:
    """Return what to tell a user about an error, and the exit code.

    The traceback of what nobody expected is kept in a file that the message names.
    """
    message = mendable(error)
    if message is not None:
        return message, NOTHING_FOUND if isinstance(error, NothingFoundError) else 2
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
    if isinstance(error, OSError):
        return _of_the_system(error)
    if is_out_of_memory(error):
        return (
            "There is not enough memory. Use a smaller box or fewer particles. "
            + _ADVICE["--dry-run"]
        )
    return None


def _write_traceback(error: Exception) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="cryoinfer-", suffix=".log", delete=False
    ) as file:
        file.write("".join(traceback.format_exception(error)))
    return Path(file.name)


def _of_the_system(error: OSError) -> str:
    """Return what to tell of a file that cannot be read or written."""
    name = error.filename if error.filename is not None else "a file"
    cause = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        return f"Cannot write {name}: {cause}. Free some space. {_ADVICE['--resume']}"
    if error.errno in _FORBIDDEN:
        return f"Cannot access {name}: {cause}. Expected permission to use it."
    if error.errno in _AWAY:
        return (
            f"Cannot reach {name}: {cause}. Try again when the file system answers. "
            + _ADVICE["--resume"]
        )
    return f"Cannot use {name}: {cause}. Give another one, or repair it."
