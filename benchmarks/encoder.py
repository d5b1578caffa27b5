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

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import torch
from judged import (
    CHUNK,
    batches_of,
    coverage,
    infer_all,
    modes,
    searched_refinement,
)
from kept import Case, kept_encoder
from measure import argument_parser, results_of
from printed import (
    HALF_PRECISION,
    KERNELS,
    NOISE,
    PRODUCTS,
    Caution,
    Column,
    merged,
    table,
)
from rows import Row

from cryoinfer.evaluation.pose_error import pose_errors, truth_in_estimated_frame
from cryoinfer.records import Latents

START_RADIUS = 8
"""Of ab initio's first global pass over these sets."""

CONVERGED_DEGREES = {"A": 2.0, "D": 2.0, "F": 3.0, "G": 3.0}
COLUMNS = (
    Column("set", "set"),
    Column("steps", "steps", ","),
    Column("ab initio (s)", "abinitio_seconds", ".0f"),
    Column("training (s)", "training_seconds", ".0f"),
    Column("encoder: view (deg)", "encoder_view_degrees", ".2f"),
    Column("images/s", "encoder_images_per_second", ",.0f"),
    Column("with a climb: geodesic (deg)", "climbed_degrees", ".3f"),
    Column("50 % sets", "climbed_coverage_50%", ".1%"),
    Column("90 % sets", "climbed_coverage_90%", ".1%"),
    Column("images/s", "climbed_images_per_second", ",.0f"),
    Column("search: geodesic (deg)", "searched_degrees", ".3f"),
    Column("images/s", "searched_images_per_second", ",.0f"),
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
        ("searched", searched_refinement(model, START_RADIUS)),
    ):
        infer_all(model, inference, batches_of(judged))  # compiles
        started = time.perf_counter()
        posteriors = infer_all(model, inference, batches_of(judged))
        seconds = time.perf_counter() - started
        estimate = modes(posteriors)
        errors = pose_errors(estimate, truth, kept.alignment)
        moved = truth_in_estimated_frame(estimate, truth, kept.alignment)
        latents = Latents.rigid(moved, torch.zeros(held, dtype=torch.float64))
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
    Column("steps", "steps", ","),
    Column("seeds", "count"),
    Column("converged", "converged"),
    Column("ab initio (s)", "abinitio_seconds", ".0f"),
    Column("training (s)", "training_seconds", ".0f"),
    Column("longest, both (s)", "longest_seconds", ".0f"),
    Column("encoder: view, median seed (deg)", "median_view_degrees", ".2f"),
    Column("worst", "worst_view_degrees", ".2f"),
    Column(
        "with a climb: geodesic, median seed (deg)", "median_climbed_degrees", ".3f"
    ),
    Column("worst", "worst_climbed_degrees", ".3f"),
    Column("50 % sets", "climbed_coverage_50%", ".1%"),
    Column("90 % sets", "climbed_coverage_90%", ".1%"),
    Column("the run: seen images, median seed (deg)", "median_search_degrees", ".3f"),
)
NETWORK = Caution(
    "o",
    "2026-11-21",
    "the network had three residual blocks, at 16, 8 and 4 pixels, of which the last "
    "is left, and two runs stood side by side, each on one core, unit tests beside "
    "them: seconds are upper bounds.",
)
CAUTIONS = (NOISE, KERNELS, PRODUCTS, HALF_PRECISION, NETWORK)


def summary(row: Row) -> Row:
    """Return what the seeds of one set, merged into a row, say."""
    view = [run["encoder_view_degrees"] for run in row["runs"]]
    climbed = [run["climbed_degrees"] for run in row["runs"]]
    searched = [run["search_degrees"] for run in row["runs"]]
    return {
        **row,
        "converged": sum(one <= CONVERGED_DEGREES[row["set"]] for one in view),
        "longest_seconds": max(
            run["abinitio_seconds"] + run["training_seconds"] for run in row["runs"]
        ),
        "median_view_degrees": statistics.median(view),
        "worst_view_degrees": max(view),
        "median_climbed_degrees": statistics.median(climbed),
        "worst_climbed_degrees": max(climbed),
        "median_search_degrees": statistics.median(searched),
    }


def shown_seeds(rows: Sequence[Row]) -> str:
    """Return what all seeds say as a table, by set, steps and day."""
    together = merged(rows, lambda row: (row["set"], row["steps"], row["date"]))
    return table(map(summary, together), SUMMARY, CAUTIONS)


def shown_first(rows: Sequence[Row]) -> str:
    """Return the first seed of each set as a table."""
    first = [row for row in rows if row["seed"] == 0]
    return table(sorted(first, key=lambda row: str(row["set"])), COLUMNS, CAUTIONS)


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
        for seed, name in product(seeds, options.sets):
            case = replace(Case.of_set(name, options), seed=seed)
            key = {"set": name, "steps": case.steps, "seed": seed}
            if options.again or not results.has(key):
                results.put(key, measure_case(case))
    rows = results.rows()
    print(shown_first(rows), shown_seeds(rows), sep="\n\n")


if __name__ == "__main__":
    main()
