"""A continuous motion without a model: adenylate kinase from closed to open.

Shows, for particles uniform along the straight way from the closed state to the open
one (64 x 64 pixels of 1.9 A, CTF, shifts to 4 A, poses unknown): how many components
held-out images ask for; the rank correlation of z with the place on the way and R2
after the best monotone map, fitted and judged on different particles; the error of the
view in each third of the way; and, of seven maps by kernel regression at places evenly
apart, the area under the FSC with the true map to Nyquist, the same of maps that are
made of the same particles at their true poses and places, and by how much the
resolution that half-maps tell (0.143) is off the true one (0.5). Seconds are those of
the inference; the maps are made after it.

    python benchmarks/continuous.py
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accuracy import resolution_inside
from conformation_maps import exactly, posterior_of, true_maps
from kept import Teller
from measure import argument_parser, results_of, simulated
from noisy_sets import noisy_images
from printed import Column, table
from rows import Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulated_path import PATH
from cryoinfer.evaluation.conformation import monotone_r2, rank_correlation
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.evaluation.volume_alignment import align_map
from cryoinfer.reconstruction.kernel_regression import ConformationPosterior
from cryoinfer.records import Pose
from cryoinfer.results.heterogeneity import Heterogeneity
from cryoinfer.results.target_volume import TargetVolume
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.volumes import kernel_volumes

PLACES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
_NEAR = 0.02
"""Particles so near to a place tell which z is meant by it."""

COLUMNS = (
    Column("signal (dB)", "snr_db", ".0f"),
    Column("images", "images", ","),
    Column("seed", "seed"),
    Column("seconds", "seconds", ",.0f"),
    Column("components kept", "components"),
    Column("rank correlation", "rank", ".3f"),
    Column("R2", "r2", ".3f"),
    Column("view, median (deg): first third", "view_1", ".2f"),
    Column("middle", "view_2", ".2f"),
    Column("last", "view_3", ".2f"),
    Column("off by more than 10 deg", "lost", ".1%"),
    Column("FSC area of maps: mean", "area", ".3f"),
    Column("least", "least_area", ".3f"),
    Column("at true poses and places: mean", "oracle_area", ".3f"),
    Column("resolution of half-maps off the true by", "resolution_off", ".1%"),
)


@dataclass(frozen=True)
class Set:
    """Particles on the way, and where they are."""

    config: SimulationConfig
    particles: Particles
    pose: Pose
    place: Tensor

    @classmethod
    def made(cls, options: argparse.Namespace, seed: int) -> "Set":
        """Simulate, or read what was simulated before."""
        count, box = options.n or options.images, options.box or 64
        closed = "adenylate-kinase-closed"
        config = noisy_images(closed, count, seed, options.snr_db, box)
        config = replace(config, to="adenylate-kinase-open")
        folder = simulated(config)
        truth = Particles.load(folder / "truth.star")
        assert truth.pose is not None
        place = torch.from_numpy(truth.table.results[PATH].astype(float))
        pose = Pose(truth.pose.rotation.double(), truth.pose.shift_angstrom.double())
        return cls(config, Particles.load(folder / "particles.star"), pose, place)

    def true_map(self, place: float) -> Tensor:
        """Return the density there."""
        return true_maps(self.config, torch.tensor([place]).double())[0]


def measure(options: argparse.Namespace, seed: int) -> Row:
    """Return the row of one run."""
    made = Set.made(options, seed)
    started = time.perf_counter()
    found = heterogeneity(made.particles, HeterogeneityConfig(seed=seed), Teller())
    row: Row = {
        "seconds": time.perf_counter() - started,
        "components": found.dims,
        "gain_nats": list(found.gain.step_nats),
    }
    if not found.dims:
        return row
    generator = torch.Generator().manual_seed(0)
    row["rank"] = rank_correlation(found.z, made.place, generator)
    row["r2"] = monotone_r2(found.z, made.place, generator)
    pose = found.posterior.mode().pose
    lost = torch.zeros(len(pose), dtype=torch.bool)
    for third in range(3):
        own = (made.place * 3).long().clamp(max=2) == third
        here, there = pose[own], made.pose[own]
        frame = align_poses(here, there, torch.Generator().manual_seed(0))
        errors = pose_errors(here, there, frame)
        row[f"view_{third + 1}"] = float(errors.view_degrees.median())
        lost[own] = errors.view_degrees > 10
    row["lost"] = float(lost.double().mean())
    return row | _maps(made, found, pose)


def _maps(made: Set, found: Heterogeneity, pose: Pose) -> Row:
    """Compare maps along the way with the true ones."""
    posterior = posterior_of(found)
    near = [(made.place - one).abs() < _NEAR for one in PLACES]
    targets = torch.stack([found.z[one].mean(0) for one in near])
    half = found.run.random_subset
    posed = made.particles.with_results(pose=pose, random_subset=half)
    areas, off = _areas(made, posed, pose, posterior, targets)
    exact = exactly(made.place[:, None])
    true = made.particles.with_results(pose=made.pose, random_subset=half)
    places = torch.tensor(PLACES).double()[:, None]
    oracle, _ = _areas(made, true, made.pose, exact, places)
    return {
        "area": float(torch.tensor(areas).mean()),
        "least_area": min(areas),
        "areas": areas,
        "oracle_area": float(torch.tensor(oracle).mean()),
        "resolution_off": float(torch.tensor(off).abs().max()),
    }


def _areas(
    made: Set,
    particles: Particles,
    pose: Pose,
    posterior: ConformationPosterior,
    targets: Tensor,
) -> tuple[list[float], list[float]]:
    """Return areas under the FSC, and relative errors of the half-maps' resolution."""
    areas, off = [], []
    size = made.config.pixel_size_angstrom
    volumes: Sequence[TargetVolume] = list(
        kernel_volumes(particles, posterior, targets)
    )
    for place, one in zip(PLACES, volumes, strict=True):
        own = (made.place - place).abs() < 5 * _NEAR
        start = align_poses(pose[own], made.pose[own], torch.Generator().manual_seed(0))
        mask = one.reconstruction.mask
        density = one.reconstruction.density * mask
        true = align_map(made.true_map(place), density, start, size) * mask
        fsc = fourier_shell_correlation(true, density)
        areas.append(float(fsc[1 : made.config.box // 2].mean()))
        told = one.reconstruction.resolution_angstrom
        off.append(told / resolution_inside(fsc, 0.5, size) - 1)
    return areas, off


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--snr-db", type=float, default=-10.0, help="default: -10")
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    parser.add_argument("--images", type=int, default=10_000, help="default: 10,000")
    options = parser.parse_args()
    results = results_of("continuous", options)
    key: Row = {
        "snr_db": options.snr_db,
        "images": options.n or options.images,
    }
    results.measure_seeds(options, key, measure)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
