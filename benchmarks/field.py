"""A large motion of a domain, in a linear subspace and in a curved field of maps.

Shows, for adenylate kinase whose LID domain (residues 122 to 159) turns by any angle up
to 150 degrees (64 x 64 pixels of 1.9 A, CTF, true poses given): how many components or
dimensions of z are kept, by how much the field raises the likelihood of a held-out
image over the subspace, the seconds of both runs, and the area under the FSC with the
true map, the mean of ten angles, of four kinds of maps at the same particles: sums of
the components, the field, and kernel regression (``volumes``) at z of either. The area
is over shells 1 to 26 of 64, which all of them reach: at most 0.406; where the domain
is, and in the whole sphere. The map of an angle is that of z of the particle which is
nearest to the mean z of the 60 particles nearest to the angle, as in CryoBench.

    python benchmarks/field.py
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from conformation_maps import by_kernels, central_z, true_maps
from kept import Teller
from measure import argument_parser, in_box, results_of, simulated
from printed import Column, table
from rows import Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulated_path import TURN
from cryoinfer.data.turns import Turn
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.workflows.field_heterogeneity import field_heterogeneity
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig

MOLECULE = "adenylate-kinase-open"
PART = Turn.parse("A:122-159 about A:118 A:163 by 150")
ANGLES, NEAREST, LAST_SHELL = 10, 60, 26
_MOVING, _SMOOTHED = 0.15, 2
"""Of the largest standard deviation of the true maps, where the domain is taken to be;
and how often its edge is smoothed."""

COLUMNS = (
    Column("signal (dB)", "snr_db", ".0f"),
    Column("images", "images", ","),
    Column("seed", "seed"),
    Column("components kept", "components"),
    Column("dimensions of the field", "dims"),
    Column("its held-out gain (nats)", "gain_nats", "+.2f"),
    Column("seconds: subspace", "seconds_subspace", ",.0f"),
    Column("field", "seconds_field", ",.0f"),
    Column("area at the domain: subspace", "domain_subspace", ".4f"),
    Column("field", "domain_field", ".4f"),
    Column("kernels, z of subspace", "domain_kernel_subspace", ".4f"),
    Column("kernels, z of field", "domain_kernel_field", ".4f"),
    Column("area of all: subspace", "whole_subspace", ".4f"),
    Column("field", "whole_field", ".4f"),
    Column("kernels, z of subspace", "whole_kernel_subspace", ".4f"),
    Column("kernels, z of field", "whole_kernel_field", ".4f"),
)


def measure(options: argparse.Namespace, seed: int) -> Row:
    """Return the row of both runs."""
    config = SimulationConfig(
        MOLECULE,
        n=options.n or options.images,
        box=64,
        pixel_size_angstrom=1.9,
        snr_db=options.snr_db,
        defocus_range_angstrom=(5000.0, 15000.0),
        turn=PART,
        seed=seed,
    )
    config = in_box(config, options.box or 64)
    folder = simulated(config)
    particles = Particles.load(folder / "truth.star")
    told = particles.table.results[TURN]
    angle = torch.from_numpy(np.asarray(told, dtype=np.float64))
    last = len(PART.angles_degrees()) - 1
    true = true_maps(config, torch.tensor(angles()).double() / PART.degrees * last)
    chosen = HeterogeneityConfig(poses="given", seed=seed)
    started = time.perf_counter()
    linear = heterogeneity(particles, chosen, Teller())
    between = time.perf_counter()
    curved = field_heterogeneity(particles, chosen, Teller())
    row: Row = {
        "images": len(particles),
        "seconds_subspace": between - started,
        "seconds_field": time.perf_counter() - between,
        "components": linear.dims,
        "steps_nats": list(linear.gain.step_nats),
    }
    at = torch.stack([nearest_z(linear.z, angle, one) for one in angles()])
    shares = torch.cat([torch.ones(len(at), 1), at.float()], 1)
    row |= areas("subspace", torch.einsum("tk,kzyx->tzyx", shares, linear.maps), true)
    row |= areas("kernel_subspace", by_kernels(particles, linear, at), true)
    gain, field = curved.field_gain, curved.field
    if gain is not None:
        row |= {"tried_nats": list(gain.mean_nats), "tried_se_nats": list(gain.se_nats)}
    if gain is not None and gain.best is not None and field is not None:
        at = torch.stack([nearest_z(curved.z, angle, one) for one in angles()])
        row |= {"gain_nats": gain.mean_nats[gain.best], "dims": field.features.dims}
        row |= areas("field", torch.stack([field.at(one) for one in at]), true)
        row |= areas("kernel_field", by_kernels(particles, curved, at), true)
    return row


def angles() -> list[float]:
    """Return the angles that are judged, in degrees."""
    return [PART.degrees * (k + 0.5) / ANGLES for k in range(ANGLES)]


def nearest_z(z: Tensor, angle: Tensor, wanted: float) -> Tensor:
    """Return z of the particle nearest to the mean z of those nearest to an angle."""
    return central_z(z[(angle - wanted).abs().argsort()[:NEAREST]])


def areas(name: str, maps: Tensor, true: Tensor) -> Row:
    """Return the mean areas of maps (t, n, n, n), at the domain and in all."""
    box = true.shape[-1]
    moving = true.std(0)
    domain = (moving > _MOVING * moving.max()).float()[None, None]
    domain = torch.nn.functional.max_pool3d(domain, 3, 1, 1)
    for _ in range(_SMOOTHED):
        domain = torch.nn.functional.avg_pool3d(domain, 3, 1, 1)
    masks = {"domain": domain[0, 0], "whole": soft_sphere(box, 0.375 * box, 2.0)}
    row: Row = {}
    for place, mask in masks.items():
        found = [
            float(
                fourier_shell_correlation(a * mask, b * mask)[1 : LAST_SHELL + 1].sum()
            )
            for a, b in zip(maps, true, strict=True)
        ]
        row[f"{place}_{name}"] = sum(found) / len(found) / box
    return row


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--snr-db", type=float, default=-10.0, help="default: -10")
    parser.add_argument("--images", type=int, default=5000, help="default: 5,000")
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    options = parser.parse_args()
    results = results_of("field", options)
    key: Row = {
        "snr_db": options.snr_db,
        "images": options.n or options.images,
    }
    results.measure_seeds(options, key, measure)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
