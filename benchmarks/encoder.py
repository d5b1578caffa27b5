"""An encoder from raw particles, judged on particles that it has never seen.

Shows, for sets of cryoPoseNet: ab initio on 8,000 images of 128 x 128 pixels, an
encoder trained on images simulated from the map found, and of the 1,000 images held
back its own poses, those after a short climb, and those of a search of all poses on the
same map with the same climbs after it: errors, images a second, and how often 50 and
90 % sets of the climbs hold the truth. A seed, of ab initio and of training, has
converged if the encoder alone errs by 2 degrees of view at most (A, D), or 3 (F, G).

    python benchmarks/encoder.py --sets F
    python benchmarks/encoder.py --seeds 10
"""

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from judged import CHUNK, Search, batches_of, coverage, infer_all, modes
from kept import Case, kept_encoder
from measure import argument_parser, results_of
from rows import Column, Row, print_table

from cryoinfer.evaluation import pose_errors, truth_in_estimated_frame
from cryoinfer.records import Latents

START_RADIUS = 8
"""Of ab initio's first global pass over these sets."""

CONVERGED_DEGREES = {"A": 2.0, "D": 2.0, "F": 3.0, "G": 3.0}
COLUMNS = (
    Column("set", "set"),
    Column("seed", "seed"),
    Column("steps", "steps"),
    Column("ab initio (s)", "abinitio_seconds", ".0f"),
    Column("training (s)", "training_seconds", ".0f"),
    Column("encoder: view (deg)", "encoder_view_degrees", ".2f"),
    Column("geodesic (deg)", "encoder_degrees", ".2f"),
    Column("images/s", "encoder_images_per_second", ".0f"),
    Column("with a climb: geodesic (deg)", "climbed_degrees", ".3f"),
    Column("50 % sets", "climbed_coverage_50%", ".1%"),
    Column("90 % sets", "climbed_coverage_90%", ".1%"),
    Column("images/s", "climbed_images_per_second", ".0f"),
    Column("search: geodesic (deg)", "searched_degrees", ".3f"),
    Column("images/s", "searched_images_per_second", ".0f"),
    Column("the run: seen images (deg)", "search_degrees", ".3f"),
)


def measure_case(case: Case) -> Row:
    kept = kept_encoder(case)
    model, judged, truth = kept.model, kept.unseen, kept.truth.pose
    assert truth is not None
    held = len(judged)
    row: Row = dict(kept.row)
    for label, inference in (
        ("encoder", model.encoder),
        ("climbed", model.semi_amortized()),
        ("searched", Search(model, START_RADIUS)),
    ):
        infer_all(inference, batches_of(judged))  # compiles
        started = time.perf_counter()
        posteriors = infer_all(inference, batches_of(judged))
        seconds = time.perf_counter() - started
        estimate = modes(posteriors)
        errors = pose_errors(estimate, truth, kept.alignment)
        moved = truth_in_estimated_frame(estimate, truth, kept.alignment)
        latents = Latents(moved, torch.zeros(held, dtype=torch.float64))
        truths = [latents[rows] for rows in torch.arange(held).split(CHUNK)]
        row |= coverage(posteriors, truths, f"{label}_coverage")
        row |= {
            f"{label}_degrees": float(errors.geodesic_degrees.median()),
            f"{label}_view_degrees": float(errors.view_degrees.median()),
            f"{label}_p95_degrees": float(errors.geodesic_degrees.quantile(0.95)),
            f"{label}_images_per_second": held / seconds,
        }
        print({k: round(v, 3) for k, v in row.items() if isinstance(v, float)})
    return row


SUMMARY = (
    Column("set", "set"),
    Column("steps", "steps"),
    Column("threads", "threads"),
    Column("seeds", "seeds"),
    Column("converged", "converged"),
    Column("longest, ab initio included (s)", "longest_seconds", ".0f"),
    Column("encoder: view, median seed (deg)", "encoder_view_degrees", ".2f"),
    Column("worst seed", "worst_view_degrees", ".2f"),
    Column("with a climb: geodesic, median seed (deg)", "climbed_degrees", ".3f"),
    Column("worst seed", "worst_climbed_degrees", ".3f"),
    Column("search, median seed (deg)", "search_degrees", ".3f"),
)


def kind(row: Row) -> tuple[str, int, int]:
    return row["set"], row["steps"], row["machine"]["threads"]


def summary(rows: Sequence[Row]) -> Row:
    """Return what the seeds of one set say."""
    name, steps, threads = kind(rows[0])
    view = [row["encoder_view_degrees"] for row in rows]
    climbed = [row["climbed_degrees"] for row in rows]
    seconds = [row["abinitio_seconds"] + row["training_seconds"] for row in rows]
    return {
        "set": name,
        "steps": steps,
        "threads": threads,
        "seeds": len(rows),
        "converged": sum(degrees <= CONVERGED_DEGREES[name] for degrees in view),
        "longest_seconds": max(seconds),
        "encoder_view_degrees": statistics.median(view),
        "worst_view_degrees": max(view),
        "climbed_degrees": statistics.median(climbed),
        "worst_climbed_degrees": max(climbed),
        "search_degrees": statistics.median(row["search_degrees"] for row in rows),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sets", default="ADFG", help="which (default: ADFG)")
    parser.add_argument("--steps", type=int, help="of the training (default: by set)")
    parser.add_argument("--seeds", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--first", type=int, default=0, help="seed (default: 0)")
    options = parser.parse_args()
    results = results_of("encoder", options)
    if not options.table:
        seeds = range(options.first, options.first + options.seeds)
        for seed, name in itertools.product(seeds, options.sets):
            case = replace(Case.of_set(name, options), seed=seed)
            key = {"set": name, "steps": case.steps, "seed": seed}
            if options.again or not results.has(key):
                results.put(key, measure_case(case))
    rows = sorted(results.rows(), key=lambda row: (kind(row), row["seed"]))
    print_table(rows, COLUMNS)
    print()
    grouped = itertools.groupby(rows, kind)
    print_table([summary(list(own)) for _, own in grouped], SUMMARY)


if __name__ == "__main__":
    main()
