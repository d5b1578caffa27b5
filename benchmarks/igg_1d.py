"""A Fab of an antibody that turns about its hinge, beside what is published.

Shows a set made as IgG-1D of CryoBench is (Jeon et al., NeurIPS 2024): one Fab of IgG
in 100 conformations about its hinge, 128 x 128 pixels of 3 A, a signal-to-noise ratio
of 0.01, a CTF; of another antibody (1IGT), with shifts to 10 A and fewer images. For
poses that are given and for unknown ones: seconds of the inference, components kept,
the error of the poses, and the area under the FSC with the true map to Nyquist (at most
0.5). *Per conformation*, the map is at z of the particle nearest to the mean z of all
that show it; *per image*, at z of one particle of each. Maps are made by kernel
regression (``volumes``), and compared as they are, and within one mask for all of them
(the union of theirs), as the published scripts do with the mask of a back-projection of
all images. The bound is the same of maps made at the true angles of the particles, at
their true poses.

    python benchmarks/igg_1d.py
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from conformation_maps import central_z, exactly, posterior_of, true_maps
from kept import Teller
from measure import argument_parser, resized, results_of, simulated
from printed import Column, table
from rows import HERE, Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulated_path import TURN
from cryoinfer.data.turns import Turn
from cryoinfer.errors import NothingFoundError
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.evaluation.pose_error import (
    GlobalAlignment,
    align_poses,
    pose_errors,
)
from cryoinfer.evaluation.volume_alignment import align_map
from cryoinfer.reconstruction.kernel_regression import ConformationPosterior
from cryoinfer.records import Pose
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.volumes import kernel_volumes

MODEL = HERE.parent.parent / "shared" / "data" / "models" / "1igt_igg.pdb"
HINGE = "A, B:1-226 about B:226 B:232 by 360 in 100"
"""A light chain and the Fab's half of a heavy one; no atoms clash on the way."""

COLUMNS = (
    Column("images", "images", ","),
    Column("poses", "poses"),
    Column("seed", "seed"),
    Column("seconds", "seconds", ",.0f"),
    Column("found", "found"),
    Column("components kept", "components"),
    Column("view, median (deg)", "view_degrees", ".2f"),
    Column("off by more than 10 deg", "lost", ".1%"),
    Column("judged", "judged"),
    Column("area per conformation", "conformation_area", ".3f"),
    Column("in the common mask", "conformation_common", ".3f"),
    Column("area per image", "image_area", ".3f"),
    Column("in the common mask", "image_common", ".3f"),
    Column("bound", "bound_area", ".3f"),
    Column("in the common mask", "bound_common", ".3f"),
)


@dataclass(frozen=True)
class TurningFab:
    """Particles whose Fab has turned, and by how much."""

    config: SimulationConfig
    folder: Path

    @cached_property
    def particles(self) -> Particles:
        """The set, with its true poses."""
        return Particles.load(self.folder / "truth.star")

    @cached_property
    def conformation(self) -> Tensor:
        """The number of the conformation of each particle."""
        degrees = self.particles.table.results[TURN].astype(np.float64)
        turn = self.config.turn
        assert turn is not None
        known = torch.from_numpy(turn.angles_degrees())
        return (torch.from_numpy(degrees)[:, None] - known).abs().argmin(1)

    @cached_property
    def pose(self) -> Pose:
        """The true poses."""
        pose = self.particles.pose
        assert pose is not None
        return Pose(pose.rotation.double(), pose.shift_angstrom.double())


def measure(
    poses: Literal["given", "unknown"], options: argparse.Namespace, seed: int
) -> Row:
    """Return the row of one run."""
    made = turning_fab(options)
    particles = made.particles
    if poses == "unknown":
        particles = Particles.load(made.folder / "particles.star")
    started = time.perf_counter()
    config = HeterogeneityConfig(poses=poses, seed=seed)
    try:
        found = heterogeneity(particles, config, Teller())
    except NothingFoundError:
        return {"seconds": time.perf_counter() - started, "found": "no structure"}
    row: Row = {
        "seconds": time.perf_counter() - started,
        "found": "a structure",
        "components": found.dims,
        "gain_nats": list(found.gain.step_nats),
    }
    if not found.dims:
        return row
    pose = found.posterior.mode().pose
    frame = None
    if poses == "unknown":
        frame = align_poses(pose, made.pose, torch.Generator().manual_seed(0))
        errors = pose_errors(pose, made.pose, frame)
        row["view_degrees"] = float(errors.view_degrees.median())
        row["lost"] = float((errors.view_degrees > 10).double().mean())
    posed = made.particles.with_results(
        pose=pose, random_subset=found.run.random_subset
    )
    posterior = posterior_of(found)
    judged = judged_conformations(options.conformations)
    members = [torch.nonzero(made.conformation == one).squeeze(1) for one in judged]
    central = torch.stack([central_z(found.z[own]) for own in members])
    single = torch.stack([found.z[own[0]] for own in members])
    true = true_maps(made.config, judged.double())
    row["judged"] = len(judged)
    row |= areas("conformation", posed, posterior, central, true, frame)
    row |= areas("image", posed, posterior, single, true, frame)
    return row | bound(made, posed, judged, true)


def turning_fab(options: argparse.Namespace) -> TurningFab:
    """Simulate the set, or read what was simulated before."""
    config = SimulationConfig(
        str(options.model),
        n=options.images,
        box=128,
        pixel_size_angstrom=3.0,
        snr_db=-20.0,
        defocus_range_angstrom=(8000.0, 38000.0),
        max_shift_angstrom=10.0,
        turn=Turn.parse(HINGE),
    )
    config = resized(config, options)
    return TurningFab(config, simulated(config))


def judged_conformations(count: int) -> Tensor:
    """Return numbers of conformations, evenly apart."""
    return (torch.arange(count) * 100) // count


def areas(
    name: str,
    particles: Particles,
    posterior: ConformationPosterior,
    at: Tensor,
    true: Tensor,
    frame: GlobalAlignment | None,
) -> Row:
    """Return mean areas under the FSC of maps at z (t, q), whole and masked."""
    size, box = particles.pixel_size_angstrom, true.shape[-1]
    made = [one.reconstruction for one in kernel_volumes(particles, posterior, at)]
    common = torch.stack([one.mask for one in made]).amax(0)
    found: dict[str, list[float]] = {"area": [], "common": [], "masked": []}
    for expected, one in zip(true, made, strict=True):
        if frame is not None:
            expected = align_map(expected, one.density * common, frame, size)
        windows = torch.ones_like(common), common, one.mask
        for kept, window in zip(found.values(), windows, strict=True):
            fsc = fourier_shell_correlation(expected * window, one.density * window)
            kept.append(float(fsc[1 : box // 2 + 1].sum()) / box)
    means = {f"{name}_{kept}": float(np.mean(all_)) for kept, all_ in found.items()}
    return {**means, f"{name}_areas": found["common"]}


def bound(made: TurningFab, posed: Particles, judged: Tensor, true: Tensor) -> Row:
    """Return the areas of maps that are made at the true angles."""
    # As points of a circle, so that the last conformation is near to the first.
    angle = made.conformation.double() * (2 * torch.pi / 100)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    at = torch.stack([circle[made.conformation == one][0] for one in judged])
    particles = posed.with_results(pose=made.pose)
    return areas("bound", particles, exactly(circle), at, true, None)


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help=f"default: {MODEL}")
    parser.add_argument("--images", type=int, default=20_000, help="default: 20,000")
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--conformations",
        type=int,
        default=20,
        help="that are judged of the 100, evenly apart (default: 20)",
    )
    options = parser.parse_args()
    results = results_of("igg_1d", options)
    measured: dict[str, Callable[[argparse.Namespace, int], Row]] = {
        "given": partial(measure, "given"),
        "unknown": partial(measure, "unknown"),
    }
    for poses, measured_seed in measured.items():
        key: Row = {"images": options.n or options.images, "poses": poses}
        results.measure_seeds(options, key, measured_seed)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
