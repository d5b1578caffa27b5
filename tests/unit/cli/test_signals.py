"""Signals at any moment end the program with their code, and without a traceback."""

import importlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from cryoinfer.cli.signals import ENDING, Interrupted

CODES = {
    signal.SIGINT: 130,
    signal.SIGTERM: 143,
    signal.SIGHUP: 129,
    signal.SIGXCPU: 152,
}


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", CODES, ids=lambda one: one.name)
def test_each_unwinds_and_has_its_code(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with ENDING:
        with pytest.raises(Interrupted) as caught:
            send(number)
        assert (caught.value.code, ENDING.code) == (CODES[number], CODES[number])
        # The one that follows is as one with it: what is kept is being written.
        send(number)
    assert signal.getsignal(number) is before
    assert ENDING.code is None


def test_one_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ENDING:
            send(signal.SIGHUP)
            assert ENDING.code is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_that_python_drops_is_raised_again() -> None:
    class Weak: ...

    def drop(_: object) -> None:
        send(signal.SIGTERM)

    def work() -> None:
        kept = Weak()
        reference = weakref.ref(kept, drop)
        del kept
        assert reference() is None
        time.sleep(5)

    with ENDING, pytest.raises(Interrupted):
        work()


def test_imports_are_over_before_it_is_raised(tmp_path, monkeypatch) -> None:
    # As libraries do, which make another error of it.
    text = (
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.2)\n"
        "except BaseException as error:\n"
        "    raise ImportError('half imported') from error\n"
    )
    (tmp_path / "slow_to_import.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def work() -> None:
        importlib.import_module("slow_to_import")
        time.sleep(5)

    with ENDING, pytest.raises(Interrupted):
        work()


def test_other_threads_are_let_be() -> None:
    def work() -> None:
        with ENDING:
            pass

    thread = threading.Thread(target=work)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def has_begun(process: subprocess.Popen) -> bool:
    """Tell whether a process listens to SIGTERM."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)
@pytest.mark.parametrize(
    ("number", "after_seconds"),
    [
        (signal.SIGINT, 0.0),
        (signal.SIGTERM, 0.15),  # typer is being imported
        (signal.SIGHUP, 0.8),  # torch is
        *(
            pytest.param(number, 0.1 * step, marks=pytest.mark.slow)
            for number in CODES
            for step in range(0, 40, 4)
        ),
    ],
)
def test_a_process_ends_with_the_code_and_in_silence(
    tmp_path: Path, number: signal.Signals, after_seconds: float
) -> None:
    words = ["cryoposenet-a", "--n", "50000", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "cryoinfer", "simulate", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not has_begun(process):
        time.sleep(0.001)
    time.sleep(after_seconds)
    os.kill(process.pid, number)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, said) == (CODES[number], "")
    out = tmp_path / "out"
    assert not out.exists() or not list(out.iterdir())


def test_a_terminal_that_closes_takes_no_line_and_stops_nothing() -> None:
    # In a process of its own, whose terminal it is.
    script = (
        "import os, signal, sys, time\n"
        "from cryoinfer.cli.signals import ENDING\n"
        "with ENDING:\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(30)\n"
        "    except KeyboardInterrupt:\n"
        "        print('kept', flush=True)\n"
        "        with open(sys.argv[1], 'w') as file:\n"
        "            file.write(str(ENDING.code))\n"
        # The system hangs up too, perhaps after signals have been handed back.
        "        os._exit(0)\n"
    )
    leader, follower = pty.openpty()
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", script, f"/dev/fd/{write}"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        pass_fds=[write],
    )
    os.close(write)
    os.close(follower)
    assert os.read(leader, 100).startswith(b"ready")
    os.close(leader)
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(timeout=30) == 0
    assert os.read(read, 10) == b"129"
    os.close(read)


def test_one_that_somebody_swallows_is_raised_again() -> None:
    swallowed = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except BaseException as error:  # as some libraries do
            swallowed.append(error)
        time.sleep(5)

    begun = time.monotonic()
    with ENDING, pytest.raises(Interrupted):
        work()
    assert len(swallowed) == 1
    assert time.monotonic() - begun < 4


def test_what_is_written_on_the_way_out_is_not_disturbed() -> None:
    steps = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            for step in range(10):
                time.sleep(0.05)
                steps.append(step)

    with ENDING, pytest.raises(Interrupted):
        work()
    assert len(steps) == 10


def test_one_that_was_answered_is_not_raised_again() -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            ENDING.settle()
        time.sleep(0.2)

    with ENDING:
        work()
        assert ENDING.code is None
