"""How often a map from random poses shows the structure, and what it costs.

Shows sets of 4,000 images at the settings of `abinitio`: cryoPoseNet's A and F, -20 and
-25 dB with a CTF and shifts (10,000 images of 128 pixels of 0.8 A), preferred views,
four copies about C4 with nothing stated, 20 % junk in uneven ice with coloured noise,
and, where their models are found (see ``--models``), IgG and apoferritin without and
with its symmetry. A start succeeds if 500 of the particles, searched in its map, are
seen from within 15 degrees of the truth in the median, either hand. The oracle is the
same search in the true map to the same radius: where it fails too, images do not tell
more there.

    python benchmarks/random_starts.py
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from measure import argument_parser, resized, results_of, simulated
from printed import PRODUCTS, Column, table
from rows import HERE, Row
from torch import Tensor

from cryoinfer.data.junk import EDGE, ICE, Junk
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulated_set import Composition
from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.pose_search import GlobalSearch
from cryoinfer.interfaces import SILENT
from cryoinfer.io.mrc import read_map
from cryoinfer.results.conformations import true_junk
from cryoinfer.workflows.abinitio import AbinitioConfig
from cryoinfer.workflows.annealed_expectation import RandomStartConfig
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.iteration import unknown_posterior
from cryoinfer.workflows.particle_pass import ParticlePass, run_pass
from cryoinfer.workflows.problem import (
    Problem,
    define_problem,
    initial_noise,
    start_radius,
)
from cryoinfer.workflows.random_start import random_start
from cryoinfer.workflows.refine import StartingMap, map_at_start
from cryoinfer.workflows.search_plan import global_search_plan
from cryoinfer.workflows.structure_update import MapUpdate

IMAGES, JUDGED, NEAR_DEGREES = 4000, 500, 15.0
MODELS = HERE.parent.parent / "shared" / "data" / "models"
_NOISY = SimulationConfig(
    n=IMAGES,
    box=64,
    pixel_size_angstrom=1.9,
    defocus_range_angstrom=(5000.0, 15000.0),
    max_shift_angstrom=4.0,
)


@dataclass(frozen=True)
class StartSet:
    """A set, what the run is told of its symmetry, and what it has."""

    simulation: SimulationConfig
    stated: str = "C1"
    true_symmetry: str = "C1"


def sets(models: Path) -> dict[str, StartSet]:
    """Return the sets whose models are there."""
    uneven = Composition(junk=(Junk(ICE, 0.1), Junk(EDGE, 0.1)))
    fine = replace(_NOISY, n=10_000, box=128, pixel_size_angstrom=0.8)
    fine = replace(
        fine, defocus_range_angstrom=(4000.0, 12000.0), max_shift_angstrom=3.0
    )
    large = replace(_NOISY, box=96, pixel_size_angstrom=2.6)
    four = replace(_NOISY, structure="adenylate-kinase-c4", pixel_size_angstrom=2.6)
    found = {
        "A": StartSet(replace(simulation_preset("cryoposenet-a"), n=IMAGES)),
        "F": StartSet(replace(simulation_preset("cryoposenet-f"), n=IMAGES)),
        "-20 dB": StartSet(replace(fine, snr_db=-20.0)),
        "-25 dB": StartSet(replace(fine, snr_db=-25.0)),
        "preferred views": StartSet(replace(_NOISY, views="preferred")),
        "C4, not stated": StartSet(four, "C1", "C4"),
        "20 % junk": StartSet(
            replace(_NOISY, composition=uneven, noise="coloured", contrast_sd=0.2)
        ),
    }
    for name, file, stated, group in (
        ("IgG", "1igt_igg.pdb", "C1", "C1"),
        ("apoferritin, C1", "4v1w_apoferritin.cif", "C1", "O"),
        ("apoferritin, O", "4v1w_apoferritin.cif", "O", "O"),
    ):
        path = models / file
        if path.is_file():
            simulation = replace(large, structure=str(path))
            found[name] = StartSet(simulation, stated, group)
        else:
            print(f"LEFT OUT: {name}, there is no {path} (see --models)")
    return found


COLUMNS = (
    Column("set", "set"),
    Column("starts that succeed", "succeeded"),
    Column("of", "seeds"),
    Column("view error, median (deg)", "degrees", ".1f"),
    Column("of the oracle", "oracle_degrees", ".1f"),
    Column("seconds, median", "seconds", ".1f"),
    Column("most", "most_seconds", ".1f"),
)


def measure(one: StartSet, folder: Path, seeds: int) -> Row:
    """Return how the starts of some seeds did."""
    results = [_start(one, folder, seed) for seed in range(seeds)]
    degrees = [found[0] for found in results]
    seconds = [found[1] for found in results]
    return {
        "seeds": seeds,
        "succeeded": sum(value < NEAR_DEGREES for value in degrees),
        "degrees": statistics.median(degrees),
        "all_degrees": degrees,
        "oracle_degrees": _oracle(one, folder),
        "seconds": statistics.median(seconds),
        "most_seconds": max(seconds),
    }


def _start(one: StartSet, folder: Path, seed: int) -> tuple[float, float]:
    """Return the median view error in the map of one start, and its seconds."""
    problem, generator = _problem(one, folder, seed)
    noise = initial_noise(problem)
    config = RandomStartConfig.of_particle(problem, AbinitioConfig().starts)
    started = time.perf_counter()
    found = random_start(problem, noise, config, generator, SILENT)
    seconds = time.perf_counter() - started
    for spectrum in noise:
        spectrum[: config.radius + 1] *= found.noise_ratio
    return _view_error(one, problem, noise, found.density, folder), seconds


def _oracle(one: StartSet, folder: Path) -> float:
    """Return the median view error in the true map."""
    problem, generator = _problem(one, folder, 0)
    noise = initial_noise(problem)
    truth = read_map(folder / "truth.mrc")
    given = StartingMap(torch.tensor(truth.density), truth.pixel_size_angstrom)
    density = map_at_start(problem, given, noise, generator)
    return _view_error(one, problem, noise, density, folder)


def _problem(one: StartSet, folder: Path, seed: int) -> tuple[Problem, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    particles = Particles.load(folder / "particles.star")
    problem = define_problem(particles, one.stated, None, None, 0.0, generator)
    return problem, generator


def _view_error(
    one: StartSet,
    problem: Problem,
    noise: tuple[Tensor, ...],
    density: Tensor,
    folder: Path,
) -> float:
    """Search some particles in a map, and compare their views with the truth."""
    truth = Particles.load(folder / "truth.star")
    junk = true_junk(truth.table) if one.simulation.composition.junk else None
    rows = torch.arange(len(truth))
    rows = rows[:JUDGED] if junk is None else rows[~junk.bool()][:JUDGED]
    radius = start_radius(problem)
    searched = problem.of_rows(rows)
    plan = global_search_plan(problem, radius)
    projector = MapUpdate(problem).projector(density, radius)
    step_of = ParticlePass(
        "search",
        StrictImages(problem.grid, radius, noise),
        (projector, projector),
        problem.prior,
        GlobalSearch(plan, problem.max_shift_angstrom),
        lambda inferred: inferred.posterior.best(1).with_first_covariance(),
    )
    blank = unknown_posterior(len(rows)).best(1)
    found = run_pass(searched, step_of, unknown_posterior(len(rows)), blank, SILENT)
    group = symmetry_rotations(one.true_symmetry)
    assert truth.pose is not None
    generator = torch.Generator().manual_seed(0)
    pose, true = found.mode().pose, truth.pose[rows]
    alignment = align_poses(pose, true, generator, group)
    return pose_errors(pose, true, alignment, group).summary()["view_degrees_median"]


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (PRODUCTS,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sets", nargs="+", help="default: all")
    options = parser.parse_args()
    results = results_of("random_starts", options)
    if not options.table:
        _measure_all(options)
    print(shown(results.rows()))


def _measure_all(options: argparse.Namespace) -> None:
    results = results_of("random_starts", options)
    for name, one in sets(options.models).items():
        simulation = resized(one.simulation, options)
        key = {"set": name, "images": simulation.n, "box": simulation.box}
        if options.sets and name not in options.sets:
            continue
        if options.again or not results.has(key):
            folder = simulated(simulation)
            results.put(key, measure(one, folder, options.seeds))


if __name__ == "__main__":
    main()
