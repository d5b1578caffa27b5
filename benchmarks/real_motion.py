"""Motion that normal modes do not span: adenylate kinase from closed to open.

Shows, for images of the 102 frames of a simulated transition (MDAnalysis' test data,
`adk_dims2.dcd`; 96 x 96 pixels of 1.6 A, CTF, shifts to 5 A), all alike likely, and the
model at one end of it: how the inferred path coordinate ranks the true frames, how far
the predicted alpha carbons are from the true ones, against the least that so many modes
of the given model allow, and which share of the particles is nearer to the open end;
with modes of the elastic network, and with model and modes learned from the particles.

    python benchmarks/real_motion.py
    python benchmarks/real_motion.py --start closed --modes 5 --learn 8
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import roma
import torch
from dynamics import LOST_DEGREES
from judged import trial_of
from kept import Teller
from measure import argument_parser, results_of, simulated
from printed import HALF_PRECISION, KERNELS, NOISE, PRODUCTS, Column, table
from rows import HERE, Row
from scipy.stats import spearmanr
from torch import Tensor

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.workflows.dynamics import Dynamics, infer_dynamics
from cryoinfer.workflows.motion_problem import DynamicsConfig

DATA = HERE.parent.parent / "shared" / "data"
STRUCTURES = {
    "open": DATA / "models" / "adk_4ake_open_charmm.pdb",
    "closed": DATA / "models" / "adk_1ake_closed_charmm.pdb",
}
TRAJECTORY = DATA / "traj" / "adk_dims2.dcd"
FITS = 20  # of modes and superposition, in turn
MAX_SHIFT_ANGSTROM = 5.0
COLUMNS = (
    Column("model at rest", "start"),
    Column("modes", "modes"),
    Column("first poses", "poses"),
    Column("rounds of learning", "learn"),
    Column("images", "images", ","),
    Column("seconds", "seconds", ",.0f"),
    Column("rank correlation, mode 1", "rank_mode", ".3f"),
    Column("nearest frame", "rank_frame", ".3f"),
    Column("CA RMSD, median (A)", "rmsd_angstrom", ".2f"),
    Column("least with the given modes (A)", "floor_angstrom", ".2f"),
    Column("at rest (A)", "rest_angstrom", ".2f"),
    Column("share nearer to open", "open_share", ".1%"),
    Column("true share", "true_open_share", ".1%"),
    Column("told rightly", "open_agreement", ".1%"),
    Column("pose, median (deg)", "median_degrees", ".2f"),
    Column("off by more than 10 deg", "lost", ".1%"),
    Column("90 % sets of simulated images hold", "trial_90%", ".1%"),
)


def measure_motion(options: argparse.Namespace) -> Row:
    """Return the row of one run."""
    structure: Path = STRUCTURES[options.start]
    box = options.box or 96
    simulation = SimulationConfig(
        str(structure),
        n=options.n or 2000,
        box=box,
        pixel_size_angstrom=1.6 * 96 / box,
        snr_db=options.snr_db,
        defocus_range_angstrom=(8000.0, 15000.0),
        max_shift_angstrom=MAX_SHIFT_ANGSTROM,
        trajectory=str(TRAJECTORY),
    )
    folder = simulated(simulation)
    model = MovingModel.of(
        named_atoms(str(structure)), options.modes, options.amplitude
    )
    config = DynamicsConfig(
        poses=options.poses,
        shift_sd_angstrom=0.6 * MAX_SHIFT_ANGSTROM,
        training=TrainingConfig(steps=options.steps),
        learning_rounds=options.learn,
    )
    started = time.perf_counter()
    particles = Particles.load(folder / "particles.star")
    found = infer_dynamics(particles, model, config, Teller())
    seconds = time.perf_counter() - started
    row = judged(found, model, Simulation.of(simulation))
    return {"images": len(particles), "seconds": seconds, **row}


def judged(found: Dynamics, given: MovingModel, truth: Simulation) -> Row:
    """Compare what was found with the frames that the images show."""
    frame = truth.latents.conformation[:, 0].long()
    nodes = torch.from_numpy(given.nodes.atom)
    path = truth.model.structure.frames[:, nodes].double()  # type: ignore[union-attr]
    motions = found.motions
    moved = found.model.modes.displacement_angstrom(motions.mean)
    predicted = found.model.node_coordinates_angstrom + moved
    apart = torch.stack([distances(one, path) for one in predicted])
    own = apart[torch.arange(len(frame)), frame]
    is_open = apart[:, -1] < apart[:, 0]
    between = torch.stack([distances(one, path) for one in path])
    truly_open = (between[:, -1] < between[:, 0])[frame]
    angle = torch.rad2deg(geodesic_angle(motions.rotation, truth.latents.pose.rotation))
    ranked = spearmanr(motions.mean[:, 0], frame).statistic
    trial = trial_of(found)
    at_rest = distances(given.node_coordinates_angstrom, path)[frame]
    return {
        "rank_mode": abs(float(ranked)),
        "rank_frame": float(spearmanr(apart.argmin(1), frame).statistic),
        "rmsd_angstrom": float(own.median()),
        "rmsd_p90_angstrom": float(own.quantile(0.9)),
        "floor_angstrom": float(floor(given, path)[frame].median()),
        "rest_angstrom": float(at_rest.median()),
        "open_share": float(is_open.double().mean()),
        "true_open_share": float(truly_open.double().mean()),
        "open_agreement": float((is_open == truly_open).double().mean()),
        "median_degrees": float(angle.median()),
        "lost": float((angle > LOST_DEGREES).double().mean()),
        "unexplained": found.inference.measured.unexplained,
        "trial_90%": trial.share_in(0.9),
        "verdict": found.verdict,
    }


def distances(nodes: Tensor, path: Tensor) -> Tensor:
    """Return the RMSD (f,) of nodes (n, 3) to each frame, laid on it."""
    turn, along = roma.rigid_points_registration(nodes.expand_as(path), path)
    placed = nodes @ turn.mT + along[:, None]
    return (placed - path).square().sum(-1).mean(-1).sqrt()


def floor(model: MovingModel, path: Tensor) -> Tensor:
    """Return the least RMSD (f,) that the modes of a model allow to each frame."""
    rest = model.node_coordinates_angstrom
    direction = model.modes.direction.flatten(1)
    least = []
    for frame in path:
        nodes = rest
        for _ in range(FITS):
            turn, along = roma.rigid_points_registration(frame, nodes)
            away = (frame @ turn.mT + along - rest).flatten()
            nodes = rest + (direction.mT @ (direction @ away)).view_as(rest)
        least.append(distances(nodes, frame[None]))
    return torch.cat(least)


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    encoded = HALF_PRECISION.of(lambda row: bool(row["poses"] == "unknown"))
    return table(rows, COLUMNS, (NOISE, KERNELS, PRODUCTS, encoded))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--start", choices=STRUCTURES, default="open")
    parser.add_argument(
        "--poses",
        choices=("unknown", "searched"),
        default="searched",
        help="of an encoder, or of a search (default)",
    )
    parser.add_argument("--snr-db", type=float, default=-10.0, help="default: -10")
    parser.add_argument("--learn", type=int, default=0, help="rounds; default: 0")
    parser.add_argument("--steps", type=int, default=3000, help="default: 3,000")
    parser.add_argument("--amplitude", type=float, default=4.0, help="default: 4")
    parser.add_argument("--modes", type=int, default=10, help="default: 10")
    options = parser.parse_args()
    results = results_of("real_motion", options)
    key: Row = {
        "start": options.start,
        "modes": options.modes,
        "poses": options.poses,
        "snr_db": options.snr_db,
        "learn": options.learn,
        "steps": options.steps,
        "amplitude_angstrom": options.amplitude,
    }
    if not options.table and (options.again or not results.has(key)):
        results.put(key, measure_motion(options))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
