"""Local refinement from random starts, with and without frequency marching.

Shows, for adenylate kinase that moves along its softest mode by N(0, 2 A) and is turned
in the plane by any angle (a known view, 96 x 96 pixels of 1.6 A, CTF) at 0, -10 and
-20 dB: the share of random starts (angle uniform, amplitude from the prior, ten an
image) from which local refinement ends at the mode that it ends at from the truth, or
at a better one. Marching begins at 4 Fourier pixels and goes on by factors of 1.35;
without it all steps, as many, are taken at Nyquist.

    python benchmarks/marching.py
"""

import argparse
from collections.abc import Sequence

import torch
from measure import argument_parser, results_of
from printed import PRODUCTS, Column, table
from rows import Row

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.motions import Motion
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.geometry.rotation_volume import IN_PLANE
from cryoinfer.geometry.rotations import random_turns_in_plane
from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.records import Latents, Pose

LEVELS_DB = (0.0, -10.0, -20.0)
SD_ANGSTROM = 2.0
STARTS = 10
STEPS = 8  # at a radius
RADII = (4, 5, 7, 10, 14, 19, 26, 35, 47)
AS_GOOD_NATS = 1.0
COLUMNS = (
    Column("signal (dB)", "snr_db", ".0f"),
    Column("images", "images", ","),
    Column("starts each", "starts", ","),
    Column("marching", "marching", ".1%"),
    Column("all steps at Nyquist", "direct", ".1%"),
    Column("images whose ten starts all succeed: marching", "marching_all", ".1%"),
    Column("at Nyquist", "direct_all", ".1%"),
    Column("one of ten at least: marching", "marching_any", ".1%"),
    Column("at Nyquist", "direct_any", ".1%"),
)


def refined(
    projector: MovingProjector,
    images: WhitenedImages,
    start: Latents,
    prior: PosePrior,
    radii: tuple[int, ...],
) -> torch.Tensor:
    """Return the log posterior, at all radii, of where refinements end, shape (n,)."""
    found = PosteriorModes.unknown(start)
    for radius in radii:
        near, reach = images.prefix(radius), reach_radian(radius)
        found = refine_locally(projector, near, found.latents, prior, STEPS, reach)
    return found.log_likelihood + prior.log_density(found.latents)


def measure_level(snr_db: float, options: argparse.Namespace) -> Row:
    """Return the row of one noise."""
    simulation = SimulationConfig(
        n=1000,
        box=96,
        pixel_size_angstrom=1.6,
        snr_db=snr_db,
        defocus_range_angstrom=(8000.0, 15000.0),
        views="one",
        motions=(Motion(1, "normal", 0.0, SD_ANGSTROM),),
    )
    truth = Simulation.of(simulation)
    count = options.n or 60
    batch = next(truth.batches())[:count]
    model = MovingModel.of(named_atoms(simulation.structure), 1, SD_ANGSTROM)
    grid = ReferenceGrid(96, 1.6)
    projector = MovingProjector(
        model.moving, grid, model.beads(grid.resolution_at(36)), 36
    )
    prior = PosePrior(0.0, 0.0, (SD_ANGSTROM,), IN_PLANE)
    images = whiten(batch, grid, 47, truth.model.noise.spectrum)
    best = refined(projector, images, truth.latents[:count], prior, (47,))
    generator = torch.Generator().manual_seed(1)
    total = STARTS * count
    drawn = torch.randn(total, 1, generator=generator, dtype=torch.float64)
    zero = torch.zeros(total, 2, dtype=torch.float64)
    pose = Pose(random_turns_in_plane(total, generator), zero)
    start = Latents(pose, zero[:, 0], SD_ANGSTROM * drawn)
    many = images.select(torch.arange(count).repeat_interleave(STARTS))
    row: Row = {"images": count, "starts": STARTS}
    for name, radii in (("marching", RADII), ("direct", (47,) * len(RADII))):
        found = refined(projector, many, start, prior, radii).view(count, STARTS)
        success = found > best[:, None] - AS_GOOD_NATS
        row[name] = float(success.double().mean())
        row[f"{name}_all"] = float(success.all(1).double().mean())
        row[f"{name}_any"] = float(success.any(1).double().mean())
    return row


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (PRODUCTS,))


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    results = results_of("marching", options)
    for snr_db in () if options.table else LEVELS_DB:
        key: Row = {"snr_db": snr_db}
        if options.again or not results.has(key):
            print(f"{snr_db:g} dB", flush=True)
            results.put(key, measure_level(snr_db, options))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
