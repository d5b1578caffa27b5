"""Conformations without a model, of two states of adenylate kinase, poses unknown.

Shows, for open and closed adenylate kinase in equal numbers (64 x 64 pixels of 1.9 A,
CTF, shifts to 4 A): how many components held-out images ask for and what the first is
worth to them, how many particles are on the wrong side of the best threshold in z, the
error of the view in each state's own frame, and the share of particles beyond 10
degrees, with the seconds of the whole run. Then the same of 10,000 other particles that
are searched in the maps of the run. With ``--homogeneous`` all particles are of one
state. With ``--method semi-amortized`` an encoder infers all particles after a subspace
has been learned from 10,000 of them, and the others too.

    python benchmarks/heterogeneity.py
    python benchmarks/heterogeneity.py --images 50000
    python benchmarks/heterogeneity.py --images 50000 --method semi-amortized
    python benchmarks/heterogeneity.py --n 2000 --homogeneous
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

from kept import Teller
from measure import argument_parser, results_of
from printed import Column, table
from rows import Row
from two_states import TrueStates, judged_poses, judged_states, simulated_states

from cryoinfer.results.heterogeneity import Heterogeneity
from cryoinfer.workflows.amortize import fitting_encoder
from cryoinfer.workflows.amortized_conformations import (
    amortize_conformations,
    infer_conformations,
)
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.infer import InferConfig
from cryoinfer.workflows.subspace_learning import SubspaceLearning
from cryoinfer.workflows.unseen_conformations import (
    LearnedMaps,
    search_conformations,
)

UNSEEN = 10_000
COLUMNS = (
    Column("states", "states"),
    Column("signal (dB)", "snr_db", ".0f"),
    Column("images", "images", ","),
    Column("inferred by", "method"),
    Column("seed", "seed"),
    Column("seconds", "seconds", ",.0f"),
    Column("components kept", "components"),
    Column("held-out gain of the first (nats)", "gain_nats", "+.2f"),
    Column("confusion error", "confusion", ".2%"),
    Column("view, median (deg): open", "view_first", ".2f"),
    Column("second set", "view_second", ".2f"),
    Column("off by more than 10 deg: open", "lost_first", ".1%"),
    Column("second set", "lost_second", ".1%"),
    Column("unseen: seconds", "unseen_seconds", ",.0f"),
    Column("confusion error", "unseen_confusion", ".2%"),
    Column("view (deg): open", "unseen_view_first", ".2f"),
    Column("second set", "unseen_view_second", ".2f"),
)


def measure(options: argparse.Namespace, seed: int) -> Row:
    """Return the row of one run."""
    count = options.n or options.images
    particles, true = simulated_states(options, count, 2 * seed, options.homogeneous)
    config = HeterogeneityConfig(seed=seed)
    started = time.perf_counter()
    if options.method == "search":
        found = heterogeneity(particles, config, Teller())
        trained = None
    else:
        refines = options.method == "semi-amortized"
        encoder = replace(fitting_encoder(particles.box), seed=seed)
        learning = SubspaceLearning.begun(particles, config, Teller())
        done = amortize_conformations(learning, encoder, refines)
        found, trained = done.found, done.trained
    row: Row = {
        "seconds": time.perf_counter() - started,
        "components": found.dims,
        "gain_nats": found.gain.mean_nats[0],
        "gain_se_nats": found.gain.se_nats[0],
        "steps_nats": list(found.gain.step_nats),
    }
    row |= judged(found, true, options.homogeneous)
    if found.dims:
        few, other = min(count, UNSEEN), 2 * seed + 1000
        unseen, true = simulated_states(options, few, other, options.homogeneous)
        started = time.perf_counter()
        if trained is None:
            size = particles.pixel_size_angstrom
            spread = 0.0 if found.contrast is None else found.contrast.spread
            maps = tuple(found.maps)
            learned = LearnedMaps(maps, size, found.last_radius, spread)
            found = search_conformations(unseen, learned, seed, Teller())
        else:
            how = InferConfig(local_refinement=options.method == "semi-amortized")
            found = infer_conformations(unseen, trained, how, Teller())
        seconds = time.perf_counter() - started
        own = judged(found, true, options.homogeneous)
        own |= {"images": len(unseen), "seconds": seconds}
        row |= {f"unseen_{name}": value for name, value in own.items()}
    return row


def judged(found: Heterogeneity, true: TrueStates, homogeneous: bool) -> Row:
    """Compare what was found with the truth."""
    row: Row = {}
    if found.dims and not homogeneous:
        row |= judged_states(found.posterior, true)
    return row | judged_poses(found.posterior.mode().pose, true)


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--snr-db", type=float, default=-10.0, help="default: -10")
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    parser.add_argument("--images", type=int, default=10_000, help="default: 10,000")
    parser.add_argument(
        "--method",
        choices=("search", "amortized", "semi-amortized"),
        default="search",
        help="by which all particles are inferred; default: search",
    )
    parser.add_argument(
        "--homogeneous", action="store_true", help="one state in place of two"
    )
    options = parser.parse_args()
    results = results_of("heterogeneity", options)
    key: Row = {
        "states": "open" if options.homogeneous else "open, closed",
        "snr_db": options.snr_db,
        "images": options.n or options.images,
        "method": options.method,
    }
    results.measure_seeds(options, key, measure)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
