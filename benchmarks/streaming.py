"""One pass of an encoder over 1,000 to 1,000,000 images: rate, memory, break-even.

Shows the 9,000 images of set G of cryoPoseNet (128 x 128, 0 dB, CTF), read again and
again, through the encoder alone, and through encoder and climb: images a second from
pixels on disk to poses and covariances on disk, and the most memory that does not
merely map files. Each is a process of its own, start-up included in the seconds.

Break-even is the number of particles from which on search of 8,000, training and one
pass cost less than a search of all; seconds of the search are those of
``scaling.py``, of the training those of the encoder.

    python benchmarks/streaming.py
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

import torch
from kept import Case, kept_encoder
from measure import argument_parser, results_of, run_process
from rows import Column, Results, Row, print_table

from cryoinfer.inference.posteriors import PoseMixture

CHUNK = 500
IMAGES = {"encoder": (10**3, 10**4, 10**5, 10**6), "climb": (10**3, 10**4, 10**5)}
COLUMNS = (
    Column("inference", "inference"),
    Column("images", "images", ",d"),
    Column("wall (s)", "wall_seconds", ".1f"),
    Column("in the stream (s)", "stream_seconds", ".1f"),
    Column("images/s in it", "images_per_second", ",.0f"),
    Column("anonymous (MB)", "peak_anonymous_mb", ".0f"),
    Column("break-even (particles)", "break_even", ",.0f"),
)


def stream(case: Case, inference: str, count: int, folder: Path) -> None:
    """Infer ``count`` images and write what was found; in its own process."""
    kept = kept_encoder(case)
    model = kept.model
    chosen = model.encoder if inference == "encoder" else model.semi_amortized()
    particles, done, started = kept.seen, 0, 0.0
    with (folder / "posteriors.f32").open("wb") as file:
        while done < count:
            rows = torch.arange(min(len(particles), count - done))
            for batch in particles.batches(CHUNK, rows):
                posterior = chosen.infer(batch)
                assert isinstance(posterior, PoseMixture)
                numbers = torch.cat(
                    [
                        posterior.rotation[:, 0].flatten(1),
                        posterior.shift_angstrom[:, 0],
                        posterior.covariance[:, 0].flatten(1),
                    ],
                    1,
                )
                file.write(numbers.float().numpy().tobytes())
                done += len(batch)
                # The first batch compiles the kernels, and is not counted.
                started = started or time.perf_counter()
    seconds = time.perf_counter() - started
    rate = (count - CHUNK) / seconds
    (folder / "rate.txt").write_text(f"{seconds} {rate}")


def search_seconds() -> tuple[float, float]:
    """Return the seconds of a search of no images, and of each further one."""
    rows = sorted(Results("scaling", trial=False).rows(), key=lambda r: r["images"])
    if len(rows) < 2:
        return math.nan, math.nan
    few, many = rows[0], rows[-1]
    more = many["wall_seconds"] - few["wall_seconds"]
    each = more / (many["images"] - few["images"])
    return few["wall_seconds"] - each * few["images"], each


def measure(case: Case, inference: str, count: int, options: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--work", inference, str(count), folder]
        command += ["--steps", str(case.steps)]
        for name in ("n", "box"):
            if getattr(options, name):
                command += [f"--{name}", str(getattr(options, name))]
        row = run_process(command)
        seconds, rate = map(float, (Path(folder) / "rate.txt").read_text().split())
    kept = kept_encoder(case)
    school = kept.row["abinitio_seconds"] + kept.row["training_seconds"]
    first, each = search_seconds()
    return row | {
        "stream_seconds": seconds,
        "images_per_second": rate,
        "school_seconds": school,
        "break_even": (school - first) / (each - 1 / rate),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--steps", type=int, help="of the training (default: by set)")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    case = Case.of_set("G", options)
    if options.work:
        inference, count, folder = options.work
        stream(case, inference, int(count), Path(folder))
        return
    results = results_of("streaming", options)
    for inference, counts in () if options.table else IMAGES.items():
        kept_encoder(case)
        for count in counts:
            key = {"inference": inference, "images": count}
            if options.again or not results.has(key):
                results.put(key, measure(case, inference, count, options))
    print_table(results.rows(), COLUMNS)


if __name__ == "__main__":
    main()
