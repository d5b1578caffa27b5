"""Motions of particles whose poses are unknown, from a model in one conformation.

Shows, for adenylate kinase (96 x 96 pixels of 1.6 A, CTF, shifts to 5 A, given defoci
off by up to 1,000 A) that moves along three modes with spreads of 2, 1.3 and 0.87 A,
from any direction: the distance of the predicted from the true alpha carbons, errors of
pose, amplitudes and defocus, and how often intervals and simulated trials hold the
truth; with the seconds of the whole run, search or training included.

    python benchmarks/dynamics.py
    python benchmarks/dynamics.py --poses unknown --steps 6000
    python benchmarks/dynamics.py --snr-db -20 --draws 4 --n 500
"""

import argparse
import time
from collections.abc import Sequence

import torch
from judged import trial_of
from kept import Teller
from measure import argument_parser, results_of, simulated
from printed import HALF_PRECISION, KERNELS, NOISE, PRODUCTS, Column, table
from rows import Row

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.motions import Motion
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.workflows.dynamics import Dynamics, infer_dynamics
from cryoinfer.workflows.motion_problem import DynamicsConfig

STRUCTURE = "adenylate-kinase-open"
MODES, SD_ANGSTROM = 3, 2.0
DEFOCUS_ERROR_ANGSTROM = 1000.0
MAX_SHIFT_ANGSTROM = 5.0
LOST_DEGREES = 10.0
COLUMNS = (
    Column("signal (dB)", "snr_db", ".0f"),
    Column("images", "images", ","),
    Column("first poses", "poses"),
    Column("steps", "steps", ","),
    Column("seconds", "seconds", ",.0f"),
    Column("CA RMSD, median (A)", "rmsd_angstrom", ".2f"),
    Column("at rest (A)", "rmsd_before_angstrom", ".2f"),
    Column("pose, median (deg)", "median_degrees", ".2f"),
    Column("off by more than 10 deg", "lost", ".1%"),
    Column("90 % intervals of z hold", "intervals"),
    Column("R2 of z", "r2"),
    Column("defocus, rms (A)", "defocus_rms_angstrom", ".0f"),
    Column("median (A)", "defocus_median_angstrom", ".0f"),
    Column("simulated images: 50 % sets hold", "trial_50%", ".1%"),
    Column("90 %", "trial_90%", ".1%"),
    Column("95 %", "trial_95%", ".1%"),
    Column("least p of ranks", "least_p", ".2f"),
    Column("widening of rotation, shift, defocus, amplitudes", "widening"),
)


def measure_motions(options: argparse.Namespace) -> Row:
    """Return the row of one run."""
    model = MovingModel.of(named_atoms(STRUCTURE), MODES, SD_ANGSTROM)
    box = options.box or 96
    simulation = SimulationConfig(
        STRUCTURE,
        n=options.n or 10_000,
        box=box,
        pixel_size_angstrom=1.6 * 96 / box,
        snr_db=options.snr_db,
        defocus_range_angstrom=(8000.0, 15000.0),
        max_shift_angstrom=MAX_SHIFT_ANGSTROM,
        motions=tuple(
            Motion(mode, "normal", 0.0, sd)
            for mode, sd in enumerate(model.amplitude_sd_angstrom, 1)
        ),
        defocus_error_angstrom=DEFOCUS_ERROR_ANGSTROM,
    )
    folder = simulated(simulation)
    particles = Particles.load(folder / "particles.star")
    given, true = particles.optics, Particles.load(folder / "truth.star").optics
    config = DynamicsConfig(
        poses=options.poses,
        # Standard deviations of uniform errors, and a little more.
        shift_sd_angstrom=0.6 * MAX_SHIFT_ANGSTROM,
        defocus_sd_angstrom=DEFOCUS_ERROR_ANGSTROM / 3**0.5,
        training=TrainingConfig(steps=options.steps),
        draws=options.draws,
    )
    started = time.perf_counter()
    found = infer_dynamics(particles, model, config, Teller())
    seconds = time.perf_counter() - started
    row = judged(found, Simulation.of(simulation))
    offset = true.defocus_u_angstrom - given.defocus_u_angstrom
    defocus = found.motions.defocus_offset_angstrom - offset
    return row | {
        "images": len(particles),
        "seconds": seconds,
        "defocus_rms_angstrom": float(defocus.square().mean().sqrt()),
        "defocus_median_angstrom": float(defocus.abs().median()),
    }


def judged(found: Dynamics, truth: Simulation) -> Row:
    """Compare what was found with the truth."""
    latents, motions = truth.latents, found.motions
    amplitude = latents.conformation
    assert amplitude is not None
    error = motions.mean - amplitude
    angle = torch.rad2deg(geodesic_angle(motions.rotation, latents.pose.rotation))
    inside = (amplitude > motions.low) & (amplitude < motions.high)
    left = error.square().mean(0) / amplitude.var(0)
    trial = trial_of(found)
    return {
        # Modes are orthonormal over the nodes: amplitudes add in squares.
        "rmsd_angstrom": float(error.norm(dim=1).median()),
        "rmsd_before_angstrom": float(amplitude.norm(dim=1).median()),
        "median_degrees": float(angle.median()),
        "lost": float((angle > LOST_DEGREES).double().mean()),
        "intervals": listed(inside.double().mean(0), ".1%"),
        "r2": listed(1 - left, ".3f"),
        "sd": listed(motions.sd.median(0).values, ".2f"),
        "widening": listed(found.inference.covariance_inflation[[0, 3, 5, 6]], ".3f"),
        "trial_50%": trial.share_in(0.5),
        "trial_90%": trial.share_in(0.9),
        "trial_95%": trial.share_in(0.95),
        "p_values": dict(trial.p_values),
        "verdict": found.verdict,
    }


def listed(values: torch.Tensor, style: str) -> str:
    """Return numbers of the modes in one cell."""
    return " / ".join(format(value, style) for value in values.tolist())


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table, with the least p-value of each."""
    encoded = HALF_PRECISION.of(lambda row: bool(row["poses"] == "unknown"))
    least = [row | {"least_p": min(row["p_values"].values())} for row in rows]
    return table(least, COLUMNS, (NOISE, KERNELS, PRODUCTS, encoded))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--snr-db", type=float, default=-10.0, help="default: -10")
    parser.add_argument(
        "--poses",
        choices=("unknown", "searched"),
        default="searched",
        help="first poses: of an encoder, or of a search (default)",
    )
    parser.add_argument("--steps", type=int, default=6000, help="default: 6,000")
    parser.add_argument("--draws", type=int, default=0, help="default: 0")
    options = parser.parse_args()
    results = results_of("dynamics", options)
    key: Row = {
        "snr_db": options.snr_db,
        "poses": options.poses,
        "steps": options.steps if options.poses == "unknown" else 0,
        "draws": options.draws,
    }
    if not options.table and (options.again or not results.has(key)):
        results.put(key, measure_motions(options))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
