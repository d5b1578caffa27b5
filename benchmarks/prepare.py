"""Particles prepared: rate and memory of the preparation, and how fast shards are read.

Of noise in a stack of 2,000 images of 256 x 256 pixels, which a STAR file names again
and again, so that what is read lies in memory and what is written does not:

- `cryoinfer prepare` to 128 x 128 pixels, in a process of its own: the seconds of all
  of it, and the most memory that does not merely map files. The disk's own rate stands
  below: as many bytes, written by nothing but `write` and `fsync`.
- the images of the last folder in their order and in batches of 500, from the disk (the
  system is asked to forget the files) and from its memory, beside the same files read
  by nothing but `readinto`; and the stack that they came from likewise.

Seconds of a disk and of a busy machine vary by half and more: compare those of one run.

    python benchmarks/prepare.py
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measure import argument_parser, results_of, run_process, scratch_folder
from printed import Column, table
from rows import Results, Row

from cryoinfer.data.particles import Particles
from cryoinfer.io.mrc import StackWriter

RAW, OLD_BOX, BOX, PIXEL, BATCH = 2_000, 256, 128, 1.0, 500
COUNTS = (2_000, 20_000, 60_000)
PIECE = 2**24
COLUMNS = (
    Column("what", "what"),
    Column("images", "images", ",d"),
    Column("seconds", "wall_seconds", ".2f"),
    Column("images/s", "images_per_second", ",.0f"),
    Column("MB/s of the files", "megabytes_per_second", ",.0f"),
    Column("memory (MB)", "peak_anonymous_mb", ",.0f"),
)


def rates(seconds: float, images: int, size: int) -> Row:
    return {
        "images": images,
        "wall_seconds": seconds,
        "images_per_second": images / seconds,
        "megabytes_per_second": size / seconds / 1e6,
    }


def seconds_of(function: Callable[[], object]) -> float:
    """Return the seconds of one call: a second one would find its files in memory."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def forget(paths: Sequence[Path]) -> None:
    """Ask the system not to keep files in memory."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(paths: Sequence[Path]) -> None:
    buffer = bytearray(PIECE)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def write_plainly(path: Path, size: int) -> None:
    piece = os.urandom(PIECE)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // PIECE):
            file.write(piece)
        os.fsync(file.fileno())


def read_particles(particles: Particles) -> None:
    for rows in torch.arange(len(particles)).split(BATCH):
        particles.images(rows)


def write_raw(folder: Path, counts: Sequence[int]) -> Path:
    """Write a stack of noise, and STAR files that name it often enough."""
    generator = torch.Generator().manual_seed(0)
    path = folder / "raw.mrcs"
    with StackWriter(path, RAW, OLD_BOX, PIXEL) as writer:
        for _ in range(RAW // BATCH):
            shape = (BATCH, OLD_BOX, OLD_BOX)
            writer.write(torch.randn(shape, generator=generator))
    particles = Particles.load(path)
    for count in counts:
        rows = torch.arange(count) % RAW
        particles.select(rows).save(folder / f"{count}.star")
    return path


def prepare(folder: Path, count: int) -> Row:
    """Measure the command."""
    out = folder / f"out{count}"
    command = [sys.executable, "-m", "cryoinfer", "prepare", f"{folder}/{count}.star"]
    row = run_process([*command, "--box", str(BOX), "--out", str(out)])
    size = sum(path.stat().st_size for path in out.glob("*.mrcs"))
    return row | rates(row["wall_seconds"], count, size)


def reading(paths: Sequence[Path], particles: Particles) -> dict[str, Row]:
    """Measure the reading of files, and of the images in them."""
    found, count = {}, len(particles)
    size = sum(path.stat().st_size for path in paths)
    for state in ("from the disk", "from memory"):
        for way, function in (
            ("plainly", lambda: read_plainly(paths)),
            ("as images", lambda: read_particles(particles)),
        ):
            if state == "from the disk":
                forget(paths)
            found[f"{way}, {state}"] = rates(seconds_of(function), count, size)
    return found


def measure_all(results: Results, counts: Sequence[int]) -> None:
    with scratch_folder() as name:
        folder = Path(name)
        raw = write_raw(folder, counts)
        for count in counts:
            results.put({"what": f"prepared, {count:,}"}, prepare(folder, count))
        shards = sorted((folder / f"out{counts[-1]}").glob("*.mrcs"))
        size = sum(path.stat().st_size for path in shards)
        seconds = seconds_of(lambda: write_plainly(folder / "plain", size))
        row = rates(seconds, counts[-1], size)
        results.put({"what": "as many bytes written plainly"}, row)
        (folder / "plain").unlink()
        prepared = Particles.load(folder / f"out{counts[-1]}")
        for what, row in reading(shards, prepared).items():
            results.put({"what": f"shards read {what}"}, row)
        for what, row in reading([raw], Particles.load(raw)).items():
            results.put({"what": f"the stack read {what}"}, row)


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    options: argparse.Namespace = argument_parser(__doc__).parse_args()
    results = results_of("prepare", options)
    if not options.table and (options.again or not results.rows()):
        counts = COUNTS if options.n is None else (options.n,)
        measure_all(results, counts)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
