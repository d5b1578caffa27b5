"""Does a wrong model show? Images of one structure, inferred with others.

Shows, for images of closed adenylate kinase at -10 dB (a known view), how much of
their signal a model explains at the poses and amplitudes that are found with it: the
structure itself, the same without its LID (residues 122 to 159), the open structure
with three modes, and, with --other, that of another protein.

    python benchmarks/wrong_model.py
    python benchmarks/wrong_model.py --other lysozyme.pdb
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from measure import argument_parser, results_of, simulated
from printed import HALF_PRECISION, NOISE, PRODUCTS, Column, table
from rows import Row

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.workflows.dynamics import infer_dynamics
from cryoinfer.workflows.motion_problem import DynamicsConfig

CLOSED, OPEN = "adenylate-kinase-closed", "adenylate-kinase-open"
LID = range(122, 160)
MODES, SD_ANGSTROM = 3, 2.0
COLUMNS = (
    Column("model", "model"),
    Column("atoms", "atoms", ","),
    Column("unexplained", "unexplained", ".1%"),
    Column("gain", "gain", ".3f"),
    Column("spread of mode 1 (A)", "spread_angstrom", ".2f"),
)


def models(options: argparse.Namespace) -> Iterator[tuple[str, AtomicModel]]:
    """Yield models by what they are."""
    closed = named_atoms(CLOSED)
    kept = [k for k, n in enumerate(closed.residue_numbers) if n not in LID]
    yield "itself", closed
    yield "without its LID", closed.select(np.array(kept))
    yield "open", named_atoms(OPEN)
    if options.other is not None:
        yield "another protein", named_atoms(options.other)


def measure_model(particles: Particles, atoms: AtomicModel) -> Row:
    """Return what a model explains of images."""
    model = MovingModel.of(atoms, MODES, SD_ANGSTROM)
    config = DynamicsConfig(
        poses="in-plane",
        shift_sd_angstrom=2.0,
        training=TrainingConfig(steps=400),
    )
    found = infer_dynamics(particles, model, config, SilentMonitor())
    return {
        "atoms": len(atoms),
        "unexplained": found.inference.measured.unexplained,
        "gain": found.inference.measured.gain,
        "spread_angstrom": float(found.motions.mean[:, 0].std()),
    }


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (NOISE, PRODUCTS, HALF_PRECISION))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--other", help="an mmCIF or PDB file of another protein")
    options = parser.parse_args()
    results = results_of("wrong_model", options)
    if not options.table:
        simulation = SimulationConfig(
            CLOSED,
            n=options.n or 500,
            box=options.box or 96,
            pixel_size_angstrom=1.6 * 96 / (options.box or 96),
            snr_db=-10.0,
            defocus_range_angstrom=(8000.0, 15000.0),
            views="one",
        )
        particles = Particles.load(simulated(simulation) / "particles.star")
        for name, atoms in models(options):
            key: Row = {"model": name, "images": len(particles)}
            if options.again or not results.has(key):
                print(name, flush=True)
                results.put(key, measure_model(particles, atoms))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
