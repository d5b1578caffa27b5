"""Sets that show one conformation, none at all, or much that is no particle.

Shows what `heterogeneity` says of 10,000 images of 64 x 64 pixels of 1.9 A (CTF,
shifts, -10 dB, poses unknown): of one state of adenylate kinase, of white noise, of one
state whose contrast varies by 20 %, and of two states with 30 % junk (ice, edges of the
film): how many components are kept and what the first is worth to held-out images,
whether a structure is found at all; of junk, the chance that its outlier score is above
a particle's (AUC), and the shares of both that are flagged.

    python benchmarks/verdicts.py
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
from kept import Teller
from measure import argument_parser, results_of, simulated
from noisy_sets import noisy_images
from printed import Column, table
from rows import Row

from cryoinfer.data.junk import EDGE, ICE, Junk
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulated_set import Composition
from cryoinfer.errors import NothingFoundError
from cryoinfer.evaluation.junk import compare_junk
from cryoinfer.results.conformations import true_junk
from cryoinfer.results.heterogeneity import Heterogeneity
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig

IMAGES, CONTRAST_SD, NOISE_DB = 10_000, 0.2, -80.0
STATES = ("adenylate-kinase-open", "adenylate-kinase-closed")
COLUMNS = (
    Column("set", "set"),
    Column("images", "images", ","),
    Column("seed", "seed"),
    Column("found", "verdict"),
    Column("components kept", "components"),
    Column("held-out gain of the first (nats)", "gain_nats", "+.2f"),
    Column("spread of the contrast", "contrast_sd", ".3f"),
    Column("junk: AUC", "auc", ".4f"),
    Column("flagged: junk", "flagged_junk", ".1%"),
    Column("particles", "flagged_particles", ".1%"),
    Column("seconds", "seconds", ",.0f"),
)


def plain(options: argparse.Namespace, seed: int) -> SimulationConfig:
    return noisy_images(STATES[0], options.n or IMAGES, seed)


def one_state(options: argparse.Namespace, seed: int) -> Path:
    return simulated(plain(options, seed))


def white_noise(options: argparse.Namespace, seed: int) -> Path:
    return simulated(replace(plain(options, seed), snr_db=NOISE_DB))


def uneven(options: argparse.Namespace, seed: int) -> Path:
    """Simulate without noise, and add it to images times a contrast of their own."""
    config = plain(options, seed)
    source = simulated(replace(config, snr_db=60.0))
    folder = source.with_name(f"{source.name}-uneven")
    if folder.exists():
        return folder
    folder.mkdir()
    random = np.random.default_rng(seed)
    clean = mrcfile.read(source / "particles.mrcs").astype("f4")
    contrast = 1.0 + CONTRAST_SD * random.standard_normal(len(clean), dtype="f4")
    sigma = clean.std() * 10**0.5
    noise = random.standard_normal(clean.shape, dtype="f4")
    with mrcfile.new(folder / "particles.mrcs") as stack:
        stack.set_data(contrast[:, None, None] * clean + sigma * noise)
        stack.voxel_size = config.pixel_size_angstrom
    text = (source / "particles.star").read_text()
    (folder / "particles.star").write_text(text)
    return folder


def with_junk(options: argparse.Namespace, seed: int) -> Path:
    junk = (Junk(ICE, 0.15), Junk(EDGE, 0.15))
    composition = Composition(also=STATES[1:], junk=junk)
    return simulated(replace(plain(options, seed), composition=composition))


SETS: dict[str, Callable[[argparse.Namespace, int], Path]] = {
    "one state": one_state,
    "white noise": white_noise,
    "one state, contrast 1 +- 0.2": uneven,
    "two states, 30 % junk": with_junk,
}


def measure(folder: Path, seed: int) -> Row:
    """Return the row of one run."""
    particles = Particles.load(folder / "particles.star")
    started = time.perf_counter()
    try:
        found = heterogeneity(particles, HeterogeneityConfig(seed=seed), Teller())
    except NothingFoundError:
        seconds = time.perf_counter() - started
        return {"verdict": "no structure", "seconds": seconds}
    row: Row = {
        "verdict": "a structure",
        "seconds": time.perf_counter() - started,
        "components": found.dims,
        "gain_nats": found.gain.step_nats[0],
    }
    if found.contrast is not None:
        row["contrast_sd"] = found.contrast.spread
    return row | judged(found, folder)


def judged(found: Heterogeneity, folder: Path) -> Row:
    """Compare outlier scores with what is junk, where anything is."""
    score, path = found.run.outlier_score_nats, folder / "truth.star"
    if score is None or not path.exists():
        return {}
    is_junk = true_junk(Particles.load(path).table)
    if not bool(is_junk.any()):
        return {}
    compared = compare_junk(is_junk, score, found.run.left_out())
    return {
        "auc": compared.auc,
        "flagged_junk": compared.flagged_junk,
        "flagged_particles": compared.flagged_particles,
    }


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    results = results_of("verdicts", options)
    for name in options.sets:

        def row(given: argparse.Namespace, seed: int, name: str = name) -> Row:
            return measure(SETS[name](given, seed), seed)

        key: Row = {"set": name, "images": options.n or IMAGES}
        results.measure_seeds(options, key, row)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
