"""Pose and conformation of 10,000 to 1,000,000 particles in maps that were learned.

Shows, for open and closed adenylate kinase (64 x 64 pixels, as ``heterogeneity.py``
has them) that nothing was learned from: seconds and memory of ``cryoinfer infer`` in
the maps of a run of ``cryoinfer heterogeneity`` with 50,000 others, from a STAR file to
a run folder. Each row is a process of its own. Images of a pool of 50,000 are named
again and again, in random order: every row judges them anew, but rows of more than
50,000 say no more about errors than one of 50,000. Errors are of all particles, each
state in a frame of its own. What further images cost is by the row before, and
*against 10,000 to 100,000* is that cost over the one between the first two rows.

    python benchmarks/conformation_scaling.py
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from measure import argument_parser, results_of, run_process, scratch_folder
from printed import PRODUCTS, Column, table
from rows import HERE, Row
from two_states import judged_poses, judged_states, simulated_states

import cryoinfer

IMAGES = (10**4, 10**5, 10**6)
LEARNED, POOL = 50_000, 50_000
COLUMNS = (
    Column("images", "images", ",d"),
    Column("wall (s)", "wall_seconds", ",.0f"),
    Column("each further 1,000 (s)", "more_wall_seconds", ".3f"),
    Column("against 10,000 to 100,000", "cost_ratio", ".2f"),
    Column("memory (MB)", "peak_anonymous_mb", ",.0f"),
    Column("each further 1,000 (MB)", "more_peak_anonymous_mb", ".2f"),
    Column("confusion error", "confusion", ".3%"),
    Column("view, median (deg): open", "view_first", ".2f"),
    Column("closed", "view_second", ".2f"),
    Column("off by more than 10 deg: open", "lost_first", ".1%"),
    Column("closed", "lost_second", ".1%"),
)


def learned_run(options: argparse.Namespace) -> Path:
    """Return the folder of a run whose maps were learned; it is made once."""
    count = options.n or LEARNED
    folder = HERE / "runs" / f"conformation_scaling-{count}"
    if not (folder / "latents.parquet").exists():
        particles, _ = simulated_states(options, count, 0)
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            star = Path(name) / "particles.star"
            particles.save(star)
            command = [sys.executable, "-m", "cryoinfer", "heterogeneity", str(star)]
            run_process([*command, "--out", str(folder), "--overwrite"])
    return folder


def measure(run: Path, count: int, options: argparse.Namespace) -> Row:
    """Infer so many particles in the maps of a run, and judge what was found."""
    particles, true = simulated_states(options, min(options.n or POOL, count), 1000)
    generator = torch.Generator().manual_seed(count)
    order = torch.randperm(len(particles), generator=generator)
    rows = order[torch.arange(count) % len(particles)]
    with scratch_folder() as name:
        star, out = Path(name) / "particles.star", Path(name) / "out"
        particles.select(rows).save(star)
        command = [sys.executable, "-m", "cryoinfer", "infer", str(run), str(star)]
        row = run_process([*command, "--out", str(out)])
        found = cryoinfer.load_run(out).posterior
    row |= judged_states(found, true[rows])
    return row | judged_poses(found.mode().pose, true[rows])


def with_growth(rows: Sequence[Row]) -> list[Row]:
    """Return rows with what a further thousand images cost, by the row before."""
    ordered = sorted(rows, key=lambda row: int(row["images"]))
    grown = ordered[:1]
    for before, row in pairwise(ordered):
        more = (row["images"] - before["images"]) / 1e3
        added = {
            f"more_{name}": (row[name] - before[name]) / more
            for name in ("wall_seconds", "peak_anonymous_mb")
        }
        grown.append(row | added)
    for row in grown[2:]:
        row["cost_ratio"] = row["more_wall_seconds"] / grown[1]["more_wall_seconds"]
    return grown


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(with_growth(rows), COLUMNS, (PRODUCTS,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--snr-db", type=float, default=-10.0, help="default: -10")
    parser.add_argument(
        "--images", type=int, nargs="+", default=IMAGES, help="which numbers of them"
    )
    options = parser.parse_args()
    results = results_of("conformation_scaling", options)
    if not options.table:
        run = learned_run(options)
        for count in options.images:
            key = {"images": count}
            if options.again or not results.has(key):
                results.put(key, measure(run, count, options))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
