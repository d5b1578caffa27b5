"""One pass of an encoder over 1,000 to 1,000,000 images: rate, memory, break-even.

Shows the 9,000 images of set G of cryoPoseNet (0 dB, CTF; at 64 x 64 pixels over the
same length, and its own 128 x 128), named again and again:

- by the library: from pixels on disk to poses and covariances on disk, of which nothing
  is kept;
- by the program, `cryoinfer infer`, without and with climbs: from a STAR file to a run
  folder. It judges images, inserts them into a map, and keeps posteriors, to write and
  to draw them.

Of each, a process of its own: the seconds of all of it and of the images' share, and
the most memory that does not merely map files.

Break-even is the number of particles from which on search of 8,000, training and one
pass of the program cost less than a search of all, by what each further particle costs
and what the start does: in the search by ``scaling.py``, in the pass by the fewest and
the most images here. Both at 128 x 128 pixels. Seconds of search and training are those
of set G, as its encoder here was made, and of set F by ``encoder.py``. It is worked
out, not measured; a trial of the encoder is not counted.

    python benchmarks/streaming.py
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import torch
from kept import Case, Kept, kept_encoder
from measure import (
    argument_parser,
    in_box,
    results_of,
    run_process,
    scratch_folder,
)
from printed import HALF_PRECISION, PRODUCTS, Column, table
from rows import Results, Row

from cryoinfer.results.layout import RECORD
from cryoinfer.workflows.infer import INFERENCE

BOXES = (64, 128)
CHUNK = 500
LIBRARY, PROGRAM = "library", "program"
FEW = (10**3, 10**4, 10**5)
CASES = (
    (LIBRARY, "encoder", 64, (*FEW, 10**6)),
    (PROGRAM, "encoder", 64, (*FEW, 10**6)),
    (PROGRAM, "with a climb", 64, FEW),
    (LIBRARY, "encoder", 128, FEW),
    (PROGRAM, "encoder", 128, FEW),
    (PROGRAM, "with a climb", 128, FEW),
)
COLUMNS = (
    Column("by the", "way"),
    Column("inference", "inference"),
    Column("box", "box"),
    Column("images", "images", ",d"),
    Column("wall (s)", "wall_seconds", ".1f"),
    Column("inference in it (s)", "inference_seconds", ".1f"),
    Column("images/s in that", "images_per_second", ",.0f"),
    Column("each further 1,000 (s)", "more_wall_seconds", ".3f"),
    Column("memory (MB)", "peak_anonymous_mb", ",.0f"),
    Column("each further 1,000 (MB)", "more_peak_anonymous_mb", ".2f"),
)

BREAK_EVEN = (
    Column("encoder of set", "set"),
    Column("search of 8,000 and training (s)", "school_seconds", ".0f"),
    Column("inference", "inference"),
    Column("break-even (particles)", "break_even", ",.0f"),
)


# --- By the library -----------------------------------------------------------------


def stream(case: Case, count: int, folder: Path) -> None:
    """Infer so many images and write what was found; in its own process."""
    kept = kept_encoder(case)
    encoder = kept.model.encoder
    particles, done, started = kept.seen, 0, 0.0
    with (folder / "posteriors.f32").open("wb") as file:
        while done < count:
            rows = torch.arange(min(len(particles), count - done))
            for batch in particles.batches(CHUNK, rows):
                images = encoder.whitened(batch, encoder.radius)
                posterior = encoder.posterior(images)
                numbers = torch.cat(
                    [
                        posterior.modes.pose.rotation[:, 0].flatten(1),
                        posterior.modes.pose.shift_angstrom[:, 0],
                        posterior.covariance[:, 0].flatten(1),
                    ],
                    1,
                )
                file.write(numbers.float().numpy().tobytes())
                done += len(batch)
                # The first batch compiles the kernels, and is not counted.
                started = started or time.perf_counter()
    seconds = time.perf_counter() - started
    rate = {
        "inference_seconds": seconds,
        "images_per_second": (count - CHUNK) / seconds,
    }
    (folder / "rate.json").write_text(json.dumps(rate))


def by_library(case: Case, count: int, folder: Path) -> Row:
    """Measure :func:`stream`."""
    simulation = case.simulation
    numbers = (simulation.n, simulation.box, case.steps, count)
    command = [sys.executable, __file__, "--work", str(folder)]
    row = run_process([*command, *map(str, numbers)])
    return row | json.loads((folder / "rate.json").read_text())


# --- By the program -----------------------------------------------------------------


def by_program(kept: Kept, inference: str, count: int, folder: Path) -> Row:
    """Measure ``cryoinfer infer`` on a STAR file of so many rows."""
    particles, out = folder / "particles.star", folder / "out"
    kept.seen.select(torch.arange(count) % len(kept.seen)).save(particles)
    command = [sys.executable, "-m", "cryoinfer", "infer", str(kept.file)]
    command += [str(particles), "--out", str(out)]
    row = run_process(command + ["--no-refinement"] * (inference == "encoder"))
    record = json.loads((out / RECORD).read_text())
    seconds = record["stage_seconds"][INFERENCE]
    return row | {"inference_seconds": seconds, "images_per_second": count / seconds}


# --- What further particles cost ----------------------------------------------------


def with_growth(rows: list[Row]) -> list[Row]:
    """Return rows of one kind with what further images cost in them."""
    ordered = sorted(rows, key=lambda row: int(row["images"]))
    grown = ordered[:1]
    for before, row in pairwise(ordered):
        added = {
            f"more_{name}": 1e3 * each(name, before, row)
            for name in ("wall_seconds", "peak_anonymous_mb")
        }
        grown.append(row | added)
    return grown


def break_evens(rows: Sequence[Row]) -> list[Row]:
    """Return from how many particles on an encoder is worth its training, if ever."""
    searches = Results("scaling", trial=False).rows()
    encoders = Results("encoder", trial=False).rows()
    found = []
    for inference in ("encoder", "with a climb"):
        passes = [
            row
            for row in rows
            if (row["way"], row["inference"], row["box"]) == (PROGRAM, inference, 128)
        ]
        if len(passes) < 2 or len(searches) < 2:
            continue
        schools = {"G": passes[0]["school_seconds"]}
        for row in encoders:
            if (row["set"], row["seed"]) == ("F", 0):
                schools["F"] = row["abinitio_seconds"] + row["training_seconds"]
        for name, seconds in schools.items():
            row = {"set": name, "inference": inference, "school_seconds": seconds}
            found_at = break_even(seconds, passes, searches)
            # Two digits: seconds of the same run differ by 5 % and more.
            row["break_even"] = found_at and float(f"{found_at:.2g}")
            found.append(row | {key: passes[-1][key] for key in ("machine", "date")})
    return sorted(found, key=lambda row: str(row["set"]))


def break_even(
    school_seconds: float, passes: Sequence[Row], searches: Sequence[Row]
) -> float | None:
    """Return the number of particles for which a search of all takes as long."""
    start, one = line(passes)
    search_start, search_one = line(searches)
    saved = search_one - one
    return (school_seconds + start - search_start) / saved if saved > 0 else None


def line(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the seconds of no images, and of each, by the fewest and the most."""
    ordered = sorted(rows, key=lambda row: int(row["images"]))
    few, many = ordered[0], ordered[-1]
    one = each("wall_seconds", few, many)
    return few["wall_seconds"] - one * few["images"], one


def each(name: str, few: Row, many: Row) -> float:
    """Return by how much a value grows with every image, between two rows."""
    return float((many[name] - few[name]) / (many["images"] - few["images"]))


# --- The script ---------------------------------------------------------------------


def case_of(box: int, options: argparse.Namespace) -> Case:
    """Return set G with another box over the same length."""
    case = Case.of_set("G", options)
    return replace(case, simulation=in_box(case.simulation, box))


def measure_all(results: Results, options: argparse.Namespace) -> None:
    for way, inference, box, counts in CASES:
        case = case_of(options.box or box, options)
        for count in options.images or counts:
            key = {"way": way, "inference": inference, "box": case.simulation.box}
            key["images"] = count
            if results.has(key) and not options.again:
                continue
            print(key, flush=True)
            kept = kept_encoder(case)
            with scratch_folder() as name:
                if way == LIBRARY:
                    row = by_library(case, count, Path(name))
                else:
                    row = by_program(kept, inference, count, Path(name))
            seconds = kept.row["abinitio_seconds"] + kept.row["training_seconds"]
            results.put(key, row | {"school_seconds": seconds})


def kind(row: Row) -> tuple[int, str, str]:
    return row["box"], row["way"], row["inference"]


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    grouped = groupby(sorted(rows, key=kind), kind)
    grown = [row for _, own in grouped for row in with_growth(list(own))]
    return table(grown, COLUMNS, (HALF_PRECISION,))


def shown_break_even(rows: Sequence[Row]) -> str:
    """Return the break-evens as a table."""
    return table(break_evens(rows), BREAK_EVEN, (PRODUCTS, HALF_PRECISION))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--steps", type=int, help="of the training (default: by set)")
    parser.add_argument(
        "--images", type=int, nargs="+", help="how many (default: 1,000 and more)"
    )
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        folder, *numbers = options.work
        options.n, options.box, options.steps, count = map(int, numbers)
        stream(case_of(options.box, options), count, Path(folder))
        return
    results = results_of("streaming", options)
    if not options.table:
        measure_all(results, options)
    rows = results.rows()
    print(shown(rows), shown_break_even(rows), sep="\n\n")


if __name__ == "__main__":
    main()
