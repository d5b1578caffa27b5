"""cryoPoseNet as published: pose and map by an auto-encoder, from random weights.

Shows what Figures 2 and 3 of Nashed et al. 2021 show, and how often a run converges,
that is ends with a median error below 10 degrees: three heads of the encoder, poses
known ("tomo") and poses as parameters of the images ("ad"), ten seeds each. Images are
those of the publication at 64 x 64 pixels over the same length; 9,000 are learned from.
Errors are taken modulo one rotation and the hand. A row is a run; --device cuda takes a
graphics processor.

    python benchmarks/cryoposenet.py
    python benchmarks/cryoposenet.py --sets BCDEFG --methods s2s2 --seeds 3
    python benchmarks/cryoposenet.py --box 32 --n 500 --steps 50 --seeds 2
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accuracy import resolution_inside
from cryoposenet_figures import METHODS, draw
from measure import argument_parser, in_box, resized, results_of, simulated
from printed import HALF_PRECISION, Column, merged, table
from rows import HERE, Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.evaluation.volume_alignment import refine_alignment, transform_map
from cryoinfer.inference.published_encoder import PoseChoice, pose_source
from cryoinfer.inference.published_training import (
    PublishedConfig,
    PublishedModel,
    train_published,
)
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map
from cryoinfer.records import ParticleBatch, Pose

BOX = 64
CONVERGED_DEGREES = 10.0
ALIGNABLE_DEGREES = 30.0
CHECKS = 20
FIRST_CHECK = 10
JUDGED = 1000
"""Images whose poses are looked at on the way; at the end it is all of them."""

AVERAGED = 50  # steps, at most, in a point of the curve of losses
EARLY = 1624
"""A step after which the publication's runs have converged."""

OURS = {"tomo": "known", "ad": "free"}
"""What the library calls two comparisons of the publication."""

COLUMNS = (
    Column("set", "set"),
    Column("poses", "method"),
    Column("runs", "count"),
    Column("converged", "converged"),
    Column("median error (deg)", "median_degrees", ".1f"),
    Column("within 10 deg in one hand or the other", "either_hand", ".0%"),
    Column("loss", "loss", ".3f"),
    Column("loss at step 1,624", "early_loss", ".3f"),
    Column("FSC 0.143 (A)", "truth_0143_angstrom", ".1f"),
    Column("FSC 0.5 (A)", "truth_05_angstrom", ".1f"),
)


# --- One run ------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Images of a simulated set, and their truth."""

    images: ParticleBatch
    pose: Pose
    density: Tensor
    pixel_size_angstrom: float

    @classmethod
    def load(cls, folder: Path, device: str) -> "Problem":
        """Read all images and put them on the device."""
        particles = Particles.load(folder / "particles.star")
        truth = Particles.load(folder / "truth.star").pose
        assert truth is not None
        return cls(
            particles.batch(torch.arange(len(particles))).to(device),
            truth,
            torch.from_numpy(read_map(folder / "truth.mrc").density.copy()).float(),
            particles.pixel_size_angstrom,
        )

    def found(self, model: PublishedModel, count: int) -> Pose:
        """Return the poses of the first images, as the model has them."""
        rotation = model.named_rotations(self.images[:count])
        return Pose(rotation, torch.zeros(len(rotation), 2, dtype=torch.float64))

    def judge(self, found: Pose, density: Tensor, refined: bool) -> Row:
        """Compare poses of the first images, and the map, with the truth."""
        truth = self.pose[: len(found)]
        alignment = align_poses(found, truth, torch.Generator().manual_seed(0))
        errors = pose_errors(found, truth, alignment).geodesic_degrees
        pixel_size = self.pixel_size_angstrom
        # On the way the frame of the poses will do: to refine it takes seconds. Where
        # they say nothing of it, there is no start to refine it from.
        if refined and errors.median() < ALIGNABLE_DEGREES:
            alignment = refine_alignment(self.density, density, alignment, pixel_size)
        moved = transform_map(self.density, alignment, pixel_size)
        fsc = fourier_shell_correlation(moved, density)
        return {
            "median_degrees": float(errors.median()),
            "mean_degrees": float(errors.mean()),
            "mirrored": alignment.mirrored,
            "truth_0143_angstrom": resolution_inside(fsc, 0.143, pixel_size),
            "truth_05_angstrom": resolution_inside(fsc, 0.5, pixel_size),
            "fsc": [round(value, 3) for value in fsc.tolist()],
        }

    def hands(self, found: Pose) -> Row:
        """Return the shares of poses that are right in the one hand, or in either.

        A map that is its own mirror image explains every image from two sides: then
        half of the poses are right in each hand.
        """
        sign = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
        mirrored = self.pose.rotation.double() * sign[:, None] * sign
        right = []
        for rotation in (self.pose.rotation, mirrored):
            truth = Pose(rotation, self.pose.shift_angstrom)
            generator = torch.Generator().manual_seed(0)
            alignment = align_poses(found, truth, generator, allow_mirror=False)
            errors = pose_errors(found, truth, alignment).geodesic_degrees
            right.append(errors < CONVERGED_DEGREES)
        either = right[0] | right[1]
        return {
            "within_10_degrees": max(float(one.double().mean()) for one in right),
            "within_10_degrees_either_hand": float(either.double().mean()),
        }


@dataclass
class Watcher:
    """Looks at a run at its check points, and stops the clock meanwhile."""

    problem: Problem
    checks: frozenset[int]
    curve: list[Row] = field(default_factory=list)
    looking_seconds: float = 0.0

    def __call__(self, step: int, model: PublishedModel) -> None:
        """Judge the model if the step is one of the check points."""
        if step not in self.checks:
            return
        started = time.perf_counter()
        found = self.problem.found(model, JUDGED)
        row = {"step": step, **self.problem.judge(found, model.density, refined=False)}
        self.curve.append(row)
        degrees, angstrom = row["median_degrees"], row["truth_0143_angstrom"]
        print(f"    step {step}: {degrees:.2f} degrees, {angstrom:.2f} A", flush=True)
        self.looking_seconds += time.perf_counter() - started


def check_points(steps: int) -> frozenset[int]:
    first = min(FIRST_CHECK, steps)
    return frozenset(int(step) for step in np.geomspace(first, steps, CHECKS).round())


def measure_run(
    problem: Problem, method: str, seed: int, config: PublishedConfig
) -> Row:
    generator = torch.Generator().manual_seed(seed)
    steps = config.steps
    watcher = Watcher(problem, check_points(steps))
    choice = cast(PoseChoice, OURS.get(method, method))
    count, box = len(problem.images), problem.density.shape[-1]
    poses = pose_source(choice, count, box, problem.pose.rotation, generator)
    started = time.perf_counter()
    run = train_published(
        problem.images, poses, config, generator, SilentMonitor(), watcher
    )
    seconds = time.perf_counter() - started - watcher.looking_seconds
    for row in watcher.curve:
        row["loss"] = mean_loss(run.losses, row["step"])
    found = problem.found(run.model, len(problem.images))
    final = problem.judge(found, run.model.density, refined=True)
    return {
        **{name: value for name, value in final.items() if name != "fsc"},
        **problem.hands(found),
        "converged": final["median_degrees"] < CONVERGED_DEGREES,
        "loss": mean_loss(run.losses, steps),
        "seconds": seconds,
        "step_ms": 1e3 * seconds / steps,
        "device": problem.images.images.device.type,
        "config": asdict(config),
        "fsc": final["fsc"],
        "curve": watcher.curve,
    }


def mean_loss(losses: Tensor, step: int) -> float:
    return float(losses[max(step // 2, step - AVERAGED) : step].mean())


# --- What all runs say --------------------------------------------------------------


def summary(row: Row) -> Row:
    """Return what the runs of one set and method, merged into a row, say."""
    early = [
        point["loss"]
        for run in row["runs"]
        for point in run["curve"]
        if point["step"] == EARLY
    ]
    return {
        **row,
        "converged": sum(run["converged"] for run in row["runs"]),
        "either_hand": row["within_10_degrees_either_hand"],
        "early_loss": early or None,
    }


def kind(row: Row) -> tuple[str, int, int, int]:
    return row["set"], METHODS.index(row["method"]), row["box"], row["steps"]


# --- The script ---------------------------------------------------------------------


def images_of(letter: str, box: int) -> SimulationConfig:
    """Return a set of the publication in a box of other pixels over the same length."""
    return in_box(simulation_preset(f"cryoposenet-{letter.lower()}"), box)


def measure_all(options: argparse.Namespace) -> None:
    results = results_of("cryoposenet", options)
    for letter in options.sets:
        simulation = resized(images_of(letter, BOX), options)
        length = simulation.box * simulation.pixel_size_angstrom
        problem = None
        # All methods of a seed before the next seed: what is there can be compared.
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for method in options.methods:
                key = {"set": letter, "method": method, "seed": seed}
                key |= {"steps": options.steps, "images": simulation.n}
                key["box"] = simulation.box
                if results.has(key) and not options.again:
                    continue
                print(key, flush=True)
                if problem is None:
                    problem = Problem.load(simulated(simulation), options.device)
                config = PublishedConfig(steps=options.steps)
                row = measure_run(problem, method, seed, config)
                results.put(key, {"length_angstrom": length, **row})


def shown(rows: Sequence[Row]) -> str:
    """Return what all seeds say as a table, by set and poses."""
    together = [summary(row) for row in merged(rows, kind)]
    return table(together, COLUMNS, (HALF_PRECISION,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sets", default="A", help="which of ABCDEFG (default: A)")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=METHODS,
        help="heads, tomo, ad (default: all)",
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: 10)")
    parser.add_argument(
        "--first-seed",
        type=int,
        default=0,
        help="so that processes side by side can share the runs (default: 0)",
    )
    parser.add_argument("--steps", type=int, default=10_000, help="default: 10,000")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    options = parser.parse_args()
    if not options.table:
        measure_all(options)
    rows = results_of("cryoposenet", options).rows()
    print(shown(rows))
    trial = options.n is not None or options.box is not None
    draw(rows, HERE / ("runs" if trial else "results"))


if __name__ == "__main__":
    main()
