"""cryoPoseNet as published, at other learning rates: whether ours are why it fails.

The publication prints a learning rate at which nothing moves, and no first map. Set A
at 32 x 32 pixels, where a step is a quarter of the work; heads of s2s2, from random
weights, over rates of encoder and map, with a first map ten times as strong, and in
single precision. The loss of known poses stands beside them. By the publication runs
converge "in a few thousand steps", and poses "in the first few hundred".

    python benchmarks/cryoposenet_rates.py
    python benchmarks/cryoposenet_rates.py --n 500 --steps 50 --seeds 1
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace

from cryoposenet import Problem, images_of, measure_run
from measure import argument_parser, resized, results_of, simulated
from printed import Column, merged, table
from rows import Row

from cryoinfer.inference.published_training import PublishedConfig

BOX = 32
POSE_RATES = (1e-4, 5e-4, 2e-3)
MAP_RATES = (0.01, 0.1, 1.0)
STRONG_MAP = 1.0
VARIED = (
    "pose_learning_rate",
    "map_learning_rate",
    "initial_map",
    "mixed_precision",
)
COLUMNS = (
    Column("poses", "method"),
    Column("rate of the encoder", "pose_learning_rate", "g"),
    Column("of the map", "map_learning_rate", "g"),
    Column("first map", "initial_map", "g"),
    Column("half precision", "mixed_precision"),
    Column("runs", "count"),
    Column("converged", "converged"),
    Column("median error (deg)", "median_degrees", ".1f"),
    Column("loss", "loss", ".3f"),
)


def cases(steps: int) -> list[tuple[str, PublishedConfig]]:
    usual = PublishedConfig(steps=steps, mixed_precision=True)
    grid = [
        replace(usual, pose_learning_rate=pose, map_learning_rate=density)
        for pose, density in itertools.product(POSE_RATES, MAP_RATES)
    ]
    others = [
        replace(usual, initial_map=STRONG_MAP),
        replace(usual, mixed_precision=False),
    ]
    heads = [("s2s2", config) for config in [*grid, *others]]
    return [*heads, ("tomo", usual)]


def measure_all(options: argparse.Namespace) -> None:
    results = results_of("cryoposenet_rates", options)
    simulation = resized(images_of("A", BOX), options)
    problem = None
    for seed in range(options.seeds):
        for method, config in cases(options.steps):
            key = {"method": method, "seed": seed, "steps": config.steps}
            key |= {"images": simulation.n, "box": simulation.box}
            key |= {name: asdict(config)[name] for name in VARIED}
            if results.has(key) and not options.again:
                continue
            print(key, flush=True)
            if problem is None:
                problem = Problem.load(simulated(simulation), "cpu")
            results.put(key, measure_run(problem, method, seed, config))


def summary(row: Row) -> Row:
    """Return what the seeds of one setting, merged into a row, say."""
    return row | {"converged": sum(run["converged"] for run in row["runs"])}


def setting(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("method", *VARIED, "steps"))


def shown(rows: Sequence[Row]) -> str:
    """Return what the seeds of all settings say as a table."""
    return table([summary(row) for row in merged(rows, setting)], COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("--steps", type=int, default=2_000, help="default: 2,000")
    options = parser.parse_args()
    if not options.table:
        measure_all(options)
    rows = results_of("cryoposenet_rates", options).rows()
    print(shown(rows))


if __name__ == "__main__":
    main()
