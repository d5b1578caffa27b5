"""An encoder from raw particles, judged on particles that it has never seen.

Shows, for sets of cryoPoseNet: ab initio on 8,000 images of 128 x 128 pixels, an
encoder trained on images simulated from the map found, and both its own poses of the
1,000 images held back and those after a short climb: errors, seconds, images a second,
and how often 90 % sets hold the truth. The errors of the run itself, on the images that
it has seen, are the measure.

    python benchmarks/encoder.py --sets F
"""

import argparse
import time

import torch
from measure import argument_parser, resized, results_of, simulated
from rows import Column, Row, print_table

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import simulation_preset
from cryoinfer.evaluation import align_poses, pose_errors, truth_in_estimated_frame
from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import Inference, SilentMonitor
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.train import EncoderConfig, Lesson, train_encoder

HELD_BACK = 1000
CHUNK = 250
DRAWS = 400
LEVELS = (0.5, 0.9, 0.95)
COLUMNS = (
    Column("set", "set"),
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


class _Teller(SilentMonitor):
    def message(self, text: str) -> None:
        print(f"    {text}", flush=True)


def infer_all(inference: Inference, particles: Particles) -> list[PoseMixture]:
    found = []
    for batch in particles.batches(CHUNK, torch.arange(len(particles))):
        posterior = inference.infer(batch)
        assert isinstance(posterior, PoseMixture)
        found.append(posterior)
    return found


def modes(posteriors: list[PoseMixture]) -> Pose:
    return Pose(
        torch.cat([one.mode().pose.rotation for one in posteriors]),
        torch.cat([one.mode().pose.shift_angstrom for one in posteriors]),
    )


def coverage(posteriors: list[PoseMixture], truth: Latents, level: float) -> float:
    """Return the share of particles whose truth lies in the credible set."""
    held, first = 0, 0
    for one in posteriors:
        rows = torch.arange(first, first + len(one))
        generator = torch.Generator().manual_seed(first)
        inside = one.credible_level(truth[rows], DRAWS, generator) <= level
        held, first = held + int(inside.sum()), first + len(one)
    return held / first


def measure_set(name: str, options: argparse.Namespace) -> Row:
    config = resized(simulation_preset(f"cryoposenet-{name.lower()}"), options)
    folder = simulated(config)
    particles = Particles.load(folder / "particles.star")
    truth = Particles.load(folder / "truth.star").pose
    assert truth is not None
    held = min(HELD_BACK, len(particles) // 5)
    seen = torch.arange(len(particles) - held)
    unseen = torch.arange(len(particles) - held, len(particles))
    monitor = _Teller()

    started = time.perf_counter()
    run = abinitio(particles.select(seen), AbinitioConfig(seed=0), monitor)
    row: Row = {"abinitio_seconds": time.perf_counter() - started}
    alignment = align_poses(
        run.latents.pose, truth[seen], torch.Generator().manual_seed(0)
    )
    errors = pose_errors(run.latents.pose, truth[seen], alignment)
    row["search_degrees"] = float(errors.geodesic_degrees.median())

    started = time.perf_counter()
    training = TrainingConfig(steps=options.steps)
    model = train_encoder(
        particles.select(seen),
        Lesson.of_run(run),
        EncoderConfig(training=training),
        monitor,
    )
    row["training_seconds"] = time.perf_counter() - started
    monitor.message(model.verdict)

    judged = particles.select(unseen)
    for label, inference in (
        ("encoder", model.encoder),
        ("climbed", model.semi_amortized()),
    ):
        infer_all(inference, judged)  # compiles
        started = time.perf_counter()
        posteriors = infer_all(inference, judged)
        seconds = time.perf_counter() - started
        estimate = modes(posteriors)
        errors = pose_errors(estimate, truth[unseen], alignment)
        moved = truth_in_estimated_frame(estimate, truth[unseen], alignment)
        latents = Latents(moved, torch.zeros(held, dtype=torch.float64))
        row |= {
            f"{label}_coverage_{level:.0%}": coverage(posteriors, latents, level)
            for level in LEVELS
        }
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
    parser.add_argument("--steps", type=int, default=4000, help="of the training")
    options = parser.parse_args()
    results = results_of("encoder", options)
    if not options.table:
        for name in options.sets:
            key = {"set": name, "steps": options.steps}
            if options.again or not results.has(key):
                results.put(key, measure_set(name, options))
    print_table(results.rows(), COLUMNS)


if __name__ == "__main__":
    main()
