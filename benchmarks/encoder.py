"""An encoder from raw particles, judged on particles that it has never seen.

Shows, for sets of cryoPoseNet: ab initio on 8,000 images of 128 x 128 pixels, an
encoder trained on images simulated from the map found, and both its own poses of the
1,000 images held back and those after a short climb: errors, seconds, images a second,
and how often 90 % sets hold the truth. The errors of the run itself, on the images that
it has seen, are the measure.

    python benchmarks/encoder.py --sets F
"""

import itertools
import time
from dataclasses import replace

import torch
from judged import CHUNK, batches_of, coverage, infer_all, modes
from kept import STEPS, Case, kept_encoder
from measure import argument_parser, results_of
from rows import Column, Row, print_table

from cryoinfer.evaluation import pose_errors, truth_in_estimated_frame
from cryoinfer.records import Latents

COLUMNS = (
    Column("set", "set"),
    Column("seed", "seed"),
    Column("ab initio (s)", "abinitio_seconds", ".0f"),
    Column("training (s)", "training_seconds", ".0f"),
    Column("encoder: view (deg)", "encoder_view_degrees", ".2f"),
    Column("geodesic (deg)", "encoder_degrees", ".2f"),
    Column("90 % sets that hold the pose", "encoder_coverage_90%", ".1%"),
    Column("images/s", "encoder_images_per_second", ".0f"),
    Column("with a climb: geodesic (deg)", "climbed_degrees", ".3f"),
    Column("90 % sets", "climbed_coverage_90%", ".1%"),
    Column("images/s", "climbed_images_per_second", ".0f"),
    Column("search: seen images (deg)", "search_degrees", ".3f"),
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


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sets", default="ADFG", help="which (default: ADFG)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training")
    parser.add_argument("--seeds", type=int, default=1, help="how many (default: 1)")
    options = parser.parse_args()
    results = results_of("encoder", options)
    if not options.table:
        for seed, name in itertools.product(range(options.seeds), options.sets):
            key = {"set": name, "steps": options.steps, "seed": seed}
            if options.again or not results.has(key):
                case = replace(Case.of_set(name, options), seed=seed)
                results.put(key, measure_case(case))
    print_table(results.rows(), COLUMNS)


if __name__ == "__main__":
    main()
