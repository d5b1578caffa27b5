"""Do posteriors of pose and z in a subspace deserve trust? Against truths.

Shows, on images that are simulated from a mean map and one component (open and closed
adenylate kinase in their nearest frame are at z of -1 and 1; 64 x 64 pixels of 1.9 A,
CTF, shifts, pose and z from their priors), of the posteriors that a search and a joint
refinement give: the share of truths in 50, 90 and 95 % credible sets of pose and z
together, and of z alone, p-values of the ranks of every unknown (simulation-based
calibration), and the expected calibration error in balls about random points (TARP).

    python benchmarks/conformation_calibration.py
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from measure import argument_parser, results_of, simulated
from noisy_sets import noisy_images
from printed import Column, table
from rows import Row

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.evaluation.rigid_search import MapPair, likeliest_frame
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.whitening import WhitenedImages, whiten
from cryoinfer.interfaces import SILENT
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.conformation_calibration import calibrate_search
from cryoinfer.workflows.iteration import noise_of_residuals
from cryoinfer.workflows.problem import define_problem, initial_noise
from cryoinfer.workflows.subspace_loop import SubspaceConfig, SubspaceLoop
from cryoinfer.workflows.subspace_update import Subspace

BOX, PIXEL_SIZE, LENT = 64, 1.9, 2000
SEARCH_ANGSTROM, REFINE_ANGSTROM = 10.0, 4.5
SHIFT_SD_ANGSTROM = 2.5
LEVELS, Z_LEVELS = (0.5, 0.9, 0.95), (0.5, 0.9)
"""Of z, those that leave whole bins of ranks out on either side."""
Z = "conformation 1"
COLUMNS = (
    Column("signal (dB)", "snr_db", ".0f"),
    Column("images", "images", ","),
    Column("seed", "seed"),
    Column("rotation, median (deg)", "median_degrees", ".2f"),
    *(
        Column(f"pose and z: {level:.0%} sets", f"both_{level:.0%}", ".1%")
        for level in LEVELS
    ),
    *(Column(f"z: {level:.0%} sets", f"z_{level:.0%}", ".1%") for level in Z_LEVELS),
    Column("p: rotation", "p_rotation", ".2g"),
    Column("shift x", "p_shift_x", ".2g"),
    Column("shift y", "p_shift_y", ".2g"),
    Column("z", "p_conformation_1", ".2g"),
    Column("TARP error", "tarp_error", ".3f"),
    Column("widened: rotation", "inflation_rotation", ".3f"),
    Column("z", "inflation_z", ".3f"),
)


def configuration(name: str, snr_db: float, seed: int) -> SimulationConfig:
    return noisy_images(f"adenylate-kinase-{name}", LENT, seed, snr_db, BOX)


def subspace_of_states(snr_db: float, radius: int) -> Subspace:
    """Return the subspace on which both states lie, at -1 and 1."""
    opened, closed = (
        Simulation.of(configuration(name, snr_db, 0)).density()
        for name in ("open", "closed")
    )
    frame = likeliest_frame(MapPair(opened, closed, None, BOX * PIXEL_SIZE))
    closed = transform_map(closed, frame.alignment, PIXEL_SIZE)
    maps = torch.stack([(opened + closed) / 2, (closed - opened) / 2])
    return Subspace(maps, maps.new_ones(2, radius + 1))


def as_strong(subspace: Subspace, images: WhitenedImages, true: Latents) -> Subspace:
    """Return the subspace in the units of images of its first state."""
    projector = subspace.projector(subspace.fsc.shape[1] - 1)
    moved = images.moved_back(true.pose.shift_angstrom)
    expected = images.ctf * projector.coefficients(true, images)
    scale = (moved * expected.conj()).real.sum() / expected.abs().square().sum()
    return replace(subspace, maps=subspace.maps * float(scale))


def true_latents(folder: Path) -> Latents:
    """Return the poses of images of the first state, which is at z of -1."""
    pose = Particles.load(folder / "truth.star").pose
    assert pose is not None
    pose = Pose(pose.rotation.double(), pose.shift_angstrom.double())
    n = len(pose.rotation)
    zero = torch.zeros(n, dtype=torch.float64)
    return Latents(pose, zero, -torch.ones(n, 1, dtype=torch.float64))


def measure(options: argparse.Namespace, seed: int) -> Row:
    """Return the row of one seed."""
    folder = simulated(configuration("open", options.snr_db, 100))
    particles = Particles.load(folder / "particles.star")
    generator = torch.Generator().manual_seed(seed)
    problem = define_problem(particles, "C1", None, None, 0.0, generator).of_dims(1)
    low, high = (
        problem.grid.radius_at(one) for one in (SEARCH_ANGSTROM, REFINE_ANGSTROM)
    )
    noise = initial_noise(problem)
    batch, true = particles.batch(torch.arange(LENT)), true_latents(folder)
    images = whiten(batch, problem.grid, high, noise[0])
    subspace = as_strong(subspace_of_states(options.snr_db, high), images, true)
    # The power of the images, which it was up to here, has the signal in it.
    shown, known = subspace.projector(high), ParticlePosterior.at(true, 1)
    noise = noise_of_residuals(problem, noise, (shown, shown), known, high, SILENT)
    loop = SubspaceLoop.of(problem, noise, SubspaceConfig(1, low, high, seed))
    started = time.perf_counter()
    # The first half tells by how much curvature is to be widened.
    count = 2 * (options.n or options.images)
    found = calibrate_search(loop, subspace, SHIFT_SD_ANGSTROM, SILENT, count)
    trial = found.trial
    row: Row = {
        "seconds": time.perf_counter() - started,
        "median_degrees": trial.median_degrees,
        "tarp_error": trial.calibration_error,
        "inflation_rotation": float(found.inflation[0]),
        "inflation_z": float(found.inflation[6]),
    }
    row |= {f"p_{name.replace(' ', '_')}": p for name, p in trial.p_values.items()}
    ranks = torch.tensor(trial.ranks[Z], dtype=torch.float64).cumsum(0)
    row |= {f"both_{one:.0%}": trial.share_in(one) for one in LEVELS}
    for one in Z_LEVELS:
        # A central set leaves as many bins of ranks out on either side.
        out = round((1 - one) / 2 * len(ranks))
        inside = ranks[-1 - out] - (ranks[out - 1] if out else 0)
        row[f"z_{one:.0%}"] = float(inside / ranks[-1])
    return row


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--snr-db", type=float, default=-10.0, help="default: -10")
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    parser.add_argument("--images", type=int, default=4000, help="default: 4,000")
    options = parser.parse_args()
    results = results_of("conformation_calibration", options)
    key: Row = {"snr_db": options.snr_db, "images": options.n or options.images}
    results.measure_seeds(options, key, measure)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
