"""Freed memory stays with the process, where the C library can be told."""

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import numpy
{}
def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.empty(1 << 25, numpy.uint8)[:: 1 << 12] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([touched() for _ in range(5)][-1])
"""


def faults_of_a_block_used_again(setting: str) -> int:
    command = [sys.executable, "-c", _FAULTS.format(setting)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_freed_block_is_used_again_without_new_pages() -> None:
    setting = (
        "from cryoinfer.memory_allocator import keep_freed_memory; keep_freed_memory()"
    )
    # 32 MiB are 8,192 pages, or 16 where the system joins pages; glibc alone maps
    # such a block anew each time.
    assert faults_of_a_block_used_again(setting) <= 2
    assert faults_of_a_block_used_again("") > 8


_LEFT_OVER = """
from pathlib import Path
import numpy
from cryoinfer.memory_allocator import keep_freed_memory, return_freed_memory
def megabytes():
    line = Path("/proc/self/statm").read_text().split()
    return int(line[1]) * 4096 / 1e6
keep_freed_memory()
blocks = [numpy.ones(1 << 20, numpy.uint8) for _ in range(200)]
before = megabytes()
del blocks[:-1]  # the last stands above the others, at the end of the heap
kept = megabytes()
return_freed_memory()
print(before - kept, before - megabytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_between_blocks_in_use_is_returned() -> None:
    command = [sys.executable, "-c", _LEFT_OVER]
    kept, returned = subprocess.run(
        command, capture_output=True, check=True, text=True
    ).stdout.split()
    # Of 208 MB.
    assert float(kept) < 50
    assert float(returned) > 150
