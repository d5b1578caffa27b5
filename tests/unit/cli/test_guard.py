import errno
import os
import signal
import time

import pytest
import typer
from typer.testing import CliRunner

from cryoinfer.cli.guard import GuardedGroup, LoggedError, explain
from cryoinfer.errors import InputError


class OutOfMemoryError(RuntimeError):
    """Called as PyTorch calls its own."""


def invoke(error: BaseException | None) -> tuple[int, str, str]:
    app = typer.Typer(cls=GuardedGroup)

    @app.callback()
    def group() -> None: ...

    @app.command()
    def work() -> None:
        if error is not None:
            raise error

    answer = CliRunner().invoke(app, ["work"])
    return answer.exit_code, answer.stdout, answer.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("expected x, found [y]."), 2, "Error: expected x, found [y]."),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "Free some space"),
        (OSError(errno.EACCES, "Permission denied", "a.mrc"), 2, "Cannot access a.mrc"),
        (OSError(errno.ESTALE, "Stale file handle", "a.pt"), 2, "Cannot reach a.pt"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("[..] DefaultCPUAllocator: can't"), 2, "not enough memory"),
        (OutOfMemoryError("CUDA"), 2, "not enough memory"),
        (KeyboardInterrupt(), 130, ""),
        (typer.BadParameter("too small"), 2, "too small"),
        (typer.Exit(7), 7, ""),
        (None, 0, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_codes_and_messages(error: BaseException | None, code: int, said: str) -> None:
    found, stdout, stderr = invoke(error)
    assert (found, stdout) == (code, "")
    assert said in stderr
    assert "Traceback" not in stderr


def test_the_unexpected_names_a_log_with_the_traceback(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("logs")))
    code, _, stderr = invoke(ZeroDivisionError("division by zero"))
    assert code == 1
    assert "ZeroDivisionError: division by zero" in stderr
    log = stderr.split("with the log ")[1].strip().removesuffix(".")
    with open(log) as file:
        assert "raise error" in file.read()


def test_a_log_that_exists_is_named(tmp_path) -> None:
    try:
        raise LoggedError(tmp_path / "log.txt") from KeyError("phase")
    except LoggedError as error:
        message, code = explain(error)
    assert code == 1
    assert "KeyError" in message
    assert f"{tmp_path / 'log.txt'}" in message


def test_sigterm_unwinds_and_ends_with_143() -> None:
    app = typer.Typer(cls=GuardedGroup)
    unwound = []

    @app.callback()
    def group() -> None: ...

    @app.command()
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            unwound.append(True)

    before = signal.getsignal(signal.SIGTERM)
    assert CliRunner().invoke(app, ["work"]).exit_code == 143
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) is before
