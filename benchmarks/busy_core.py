"""What a run loses while another program keeps one core busy.

Shows `abinitio` of set F on a machine of two cores: alone, and beside a program that
computes without end, with one thread and with two; and with two threads that wait for
work as long as GNU OpenMP lets them (300,000 looks, its default), not as the program
does. A program that leaves idle cores to others takes no longer with two threads beside
a busy core than with one.

    python benchmarks/busy_core.py
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from measure import argument_parser, results_of, run_process, scratch_folder, simulated
from printed import PRODUCTS, Column, table
from rows import Row

from cryoinfer.data.simulation_presets import simulation_preset

GNU_WAITS = {"GOMP_SPINCOUNT": "300000"}
CASES: tuple[tuple[bool, int, Mapping[str, str]], ...] = (
    (False, 2, {}),
    (False, 2, GNU_WAITS),
    (False, 1, {}),
    (True, 2, {}),
    (True, 2, GNU_WAITS),
    (True, 1, {}),
)
COLUMNS = (
    Column("beside a busy core", "busy"),
    Column("threads", "threads"),
    Column("idle threads wait", "waiting"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("of all threads (s)", "cpu_seconds", ".0f"),
)


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy."""
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        program.kill()
        program.wait()


def measured(
    set_dir: Path, busy: bool, threads: int, waiting: Mapping[str, str]
) -> Row:
    """Return time and memory of a run of the command line."""
    with scratch_folder() as folder, busy_core() if busy else nullcontext():
        settings = ["env", *(f"{name}={value}" for name, value in waiting.items())]
        command = [sys.executable, "-m", "cryoinfer", "abinitio"]
        files = [str(set_dir / "particles.star"), "--out", str(Path(folder) / "run")]
        return run_process([*settings, *command, *files, "--threads", str(threads)])


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (PRODUCTS,))


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    results = results_of("busy_core", options)
    if (os.cpu_count() or 1) != 2:
        print("This machine has not two cores: the rows would be of something else.")
        return
    for busy, threads, waiting in CASES:
        key = {
            "busy": "yes" if busy else "no",
            "threads": threads,
            "waiting": "as GNU OpenMP's" if waiting else "as the program's",
        }
        if not options.table and (options.again or not results.has(key)):
            set_dir = simulated(simulation_preset("cryoposenet-f"))
            results.put(key, measured(set_dir, busy, threads, waiting))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
