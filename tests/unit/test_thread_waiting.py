"""Idle threads leave the cores to others."""

import os
import platform
import subprocess
import sys

import pytest

from cryoinfer.thread_waiting import wait_briefly_for_work

_IDLE_SHARE = """
import time
{}
import torch
torch.set_num_threads(2)
values = torch.rand(1 << 20)
def busy_share():
    values.sin()  # by two threads, of which one waits from here on
    wall, busy = time.monotonic(), time.process_time()
    time.sleep(0.002)
    return (time.process_time() - busy) / (time.monotonic() - wall)
print(sorted(busy_share() for _ in range(51))[25])
"""
_SETTING = (
    "from cryoinfer.thread_waiting import wait_briefly_for_work;wait_briefly_for_work()"
)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs GNU OpenMP")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a lone core never spins")
def test_threads_sleep_soon_after_their_work() -> None:
    ours = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-c", _IDLE_SHARE.format(_SETTING)]
    found = subprocess.run(command, capture_output=True, check=True, env=kept)
    # Of 2 ms some 0.06, and all of them by default.
    assert float(found.stdout) < 0.3


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_what_the_user_has_set_stays(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv(name, "asked for")
    wait_briefly_for_work()
    assert os.environ.get("GOMP_SPINCOUNT") in (None, "asked for")
