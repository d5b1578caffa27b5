"""Discrete classes of one stack: a molecule, the same without a domain, and another.

Shows, for adenylate kinase in its open state, the same without its LID domain (residues
122 to 159), and a molecule made of it by turning and moving all that follows residue
110 (64 x 64 pixels of 1.9 A, CTF, shifts to 4 A, one level of noise, poses unknown):
how many classes held-out images ask for and what the last one is worth to them, how
many particles are in the class that is matched with their molecule, their adjusted Rand
index, by how much populations are off and their largest standard error, the error of
the view in each molecule's own frame, and the seconds of the whole run. With
``--homogeneous`` all particles are of the first molecule.

    python benchmarks/classes.py
    python benchmarks/classes.py --n 1200 --homogeneous
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from kept import Teller
from measure import argument_parser, results_of, simulated
from noisy_sets import noisy_images
from printed import Column, table
from rows import HERE, Row
from torch import Tensor

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.evaluation.states import class_agreement, state_pose_errors
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.records import Pose
from cryoinfer.results.classes import Classes
from cryoinfer.workflows.class_config import ClassConfig
from cryoinfer.workflows.class_maps import classes

WHOLE = "adenylate-kinase-open"
SHARES = {"whole": 0.4, "lidless": 0.3, "rearranged": 0.3}
LID = range(122, 160)
HINGE = 110
"""Last residue that stays where it is in the molecule that is made."""

_SIGNAL_IMAGES = 200
COLUMNS = (
    Column("molecules", "molecules"),
    Column("signal (dB)", "snr_db", ".0f"),
    Column("images", "images", ","),
    Column("seed", "seed"),
    Column("seconds", "seconds", ",.0f"),
    Column("classes kept", "classes"),
    Column("held-out gain of the last (nats)", "gain_nats", "+.2f"),
    Column("Hungarian accuracy", "accuracy", ".1%"),
    Column("adjusted Rand index", "rand", ".3f"),
    Column("populations off by", "populations_off", ".1%"),
    Column("their largest se", "population_se", ".1%"),
    Column("view, median (deg): whole", "view_1", ".2f"),
    Column("lidless", "view_2", ".2f"),
    Column("rearranged", "view_3", ".2f"),
    Column("half-maps (A): class 1", "resolution_1", ".2f"),
    Column("2", "resolution_2", ".2f"),
    Column("3", "resolution_3", ".2f"),
)


def structures() -> dict[str, str]:
    """Return what is simulated of each molecule, made if it is absent."""
    folder = HERE / "data" / "structures"
    folder.mkdir(parents=True, exist_ok=True)
    atoms = example_atoms(WHOLE)
    number = np.array(atoms.residue_numbers)
    left = np.flatnonzero(~np.isin(number, list(LID)))
    write_ensemble(folder / "lidless.cif", "lidless", [atoms.select(left)])
    # By 110 degrees about z and 115 about x, about the middle, and aside.
    first, second = math.radians(110), math.radians(115)
    about_z = [
        [math.cos(first), -math.sin(first), 0],
        [math.sin(first), math.cos(first), 0],
        [0, 0, 1],
    ]
    about_x = [
        [1, 0, 0],
        [0, math.cos(second), -math.sin(second)],
        [0, math.sin(second), math.cos(second)],
    ]
    place = atoms.coordinates_angstrom
    middle = place.mean(0)
    turned = (place - middle) @ (np.array(about_z) @ about_x).T + middle + [14, 9, -10]
    moved = np.where((number > HINGE)[:, None], turned, place)
    other = replace(atoms, coordinates_angstrom=moved)
    write_ensemble(folder / "rearranged.cif", "rearranged", [other])
    return {
        "whole": WHOLE,
        **{name: str(folder / f"{name}.cif") for name in ("lidless", "rearranged")},
    }


def signal_variance(config: SimulationConfig) -> float:
    """Return the variance of the pixels of a set without noise."""
    few = replace(config, n=_SIGNAL_IMAGES, snr_db=None, seed=0)
    particles = Particles.load(simulated(few) / "particles.star")
    images = particles.batch(torch.arange(_SIGNAL_IMAGES)).images
    return float(images.var())


def measure(options: argparse.Namespace, seed: int) -> Row:
    """Return the row of one run."""
    parts, poses, labels = [], [], []
    whole: float | None = None
    for place, (name, structure) in enumerate(structures().items()):
        share = SHARES[name] if not options.homogeneous else float(place == 0)
        count = round(share * (options.n or 4000))
        if not count:
            continue
        box = options.box or 64
        config = noisy_images(structure, count, 3 * seed + place, options.snr_db, box)
        # The noise of all is that of the first: it must not tell them apart.
        variance = signal_variance(config)
        whole = whole or variance
        level = options.snr_db + 10 * math.log10(variance / whole)
        folder = simulated(replace(config, snr_db=level))
        parts.append(Particles.load(folder / "particles.star"))
        pose = Particles.load(Path(folder) / "truth.star").pose
        assert pose is not None
        poses.append(pose)
        labels.append(torch.full((count,), place))
    particles = join(parts).particles
    started = time.perf_counter()
    found = classes(particles, ClassConfig(seed=seed), Teller())
    row: Row = {
        "images": len(particles),
        "seconds": time.perf_counter() - started,
        "classes": found.count,
        "tried": list(found.gain.classes),
        "steps_nats": list(found.gain.step_nats),
        "steps_se_nats": list(found.gain.step_se_nats),
    }
    if found.count > 1:
        row["gain_nats"] = found.gain.step_nats[-1]
    return row | judged(found, Pose.joined(poses), torch.cat(labels))


def judged(found: Classes, true: Pose, label: Tensor) -> Row:
    """Compare what was found with the truth, each molecule in a frame of its own."""
    agreement = class_agreement(found.class_number, label)
    row: Row = {
        "accuracy": agreement.accuracy,
        "rand": agreement.adjusted_rand_index,
        "populations_off": agreement.total_variation,
        "population_se": float(found.population.se.max()),
    }
    there = Pose(true.rotation.double(), true.shift_angstrom.double())
    identity = torch.eye(3, dtype=torch.float64)[None]
    errors = state_pose_errors(found.poses().pose, there, label, identity)
    for state, one in errors.items():
        row[f"view_{int(state) + 1}"] = float(one.view_degrees.median())
    for number, maps in enumerate(found.reconstructions, 1):
        row[f"resolution_{number}"] = maps.resolution_angstrom
    return row


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--snr-db", type=float, default=-10.0, help="default: -10")
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--homogeneous", action="store_true", help="one molecule in place of three"
    )
    options = parser.parse_args()
    results = results_of("classes", options)
    key: Row = {
        "molecules": "one" if options.homogeneous else "three",
        "snr_db": options.snr_db,
    }
    results.measure_seeds(options, key, measure)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
