"""Which density should an encoder learn? Three candidates behind one network.

Shows, for set G (0 dB, with a CTF) and set F (-10 dB), encoders that learn the true map
with the same convolutions, images and steps, and say what they know of a pose as

- 8 Gaussians in the tangent spaces of rotations, jointly with the shift: the density
  of the library;
- 8 matrix Fisher densities, their normaliser by Lee's integral (arXiv:1710.03746,
  2018), times a Gaussian of the shift;
- a grid of 4,608 rotations, 15 degrees apart: a probability of each, and a Gaussian
  about each, jointly with the shift, whose place and precision are learned too.

The loss is minus the log density of the true poses of images held back, in the same
units for all. The grid's counts the 16 nearest rotations alone, a lower bound. Widths
are not fitted afterwards.

    python benchmarks/densities.py
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self, cast
from unittest.mock import patch

import numpy as np
import roma
import torch
from ablation import lesson_of
from judged import seeded
from measure import argument_parser, results_of
from printed import HALF_PRECISION, KERNELS, Column, table
from rows import Row
from torch import Tensor, nn

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.rotation_volume import (
    LOG_VOLUME_OF_ROTATIONS,
    log_exponential_volume,
)
from cryoinfer.geometry.rotations import rotation_vector
from cryoinfer.geometry.so3_grid import rotation_grid
from cryoinfer.inference import training
from cryoinfer.inference.encoder_inputs import EncoderInputs, picture_radius
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training import TrainingConfig, train
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import ReferenceGrid
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.simulated_images import templates_of

STEPS = 1000
COLUMNS = (
    Column("set", "set"),
    Column("density", "density"),
    Column("weights", "weights", ",d"),
    Column("steps", "steps", ","),
    Column("loss (nats)", "loss_nats", ".2f"),
    Column("median error (deg)", "median_degrees", ".2f"),
    Column("training (s)", "training_seconds", ".0f"),
)
HIDDEN = 512


@dataclass(frozen=True)
class Said:
    """Parameters of a density of n images, and how they are joined and asked."""

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Return those of several batches as of one."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in names))


class Mode:
    """The one thing that is asked of a posterior while an encoder learns."""

    def __init__(self, rotation: Tensor) -> None:
        zero = torch.zeros(len(rotation), dtype=torch.float64)
        shift = torch.zeros(len(rotation), 2, dtype=torch.float64)
        self._latents = Latents.rigid(Pose(rotation.double(), shift), zero)

    def mode(self) -> Latents:
        """Return the best rotation, and no shift."""
        return self._latents


def gaussian(step: Tensor, factor: Tensor) -> Tensor:
    """Return the log density of steps (.., d) from a mean, precision L L^T."""
    white = (factor.mT @ step[..., None])[..., 0]
    log_volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    spread = 0.5 * step.shape[-1] * math.log(2 * math.pi)
    return log_volume - 0.5 * white.square().sum(-1) - spread


def triangle(entries: Tensor, d: int, least: float) -> Tensor:
    """Return lower triangles with diagonals above a floor, (.., d, d)."""
    rows, columns = torch.tril_indices(d, d)
    positive = nn.functional.softplus(entries) + least
    factor = entries.new_zeros(*entries.shape[:-1], d, d)
    factor[..., rows, columns] = torch.where(rows == columns, positive, entries)
    return factor


# What candidates say is no mixture of the library's, so that their methods return other
# things than those that they stand in for.

# --- Matrix Fisher ------------------------------------------------------------------


def nodes() -> tuple[Tensor, Tensor]:
    """Return points and weights on [0, 2], dense towards 0 as exp(-12)."""
    at, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(96))
    t = (at + 1) / 2
    steep = 12.0
    top = math.expm1(steep)
    return 2 * torch.expm1(steep * t) / top, weight * steep * (steep * t).exp() / top


def log_normaliser(s: Tensor) -> Tensor:
    """Return log of the integral of exp(tr F^T R), less s1 + s2 + s3, shape (..).

    ``s`` (.., 3) are the proper singular values of F, falling; the integral is over
    rotations, whose whole volume is 1.
    """
    v, weight = nodes()
    one, two, three = (part[..., None] for part in s.unbind(-1))
    value = torch.special.i0e(0.5 * (one - two) * v)
    value = value * torch.special.i0e(0.5 * (one + two) * (2 - v))
    value = value * torch.exp(-(two + three) * v)
    return (0.5 * weight * value).sum(-1).log()


@dataclass(frozen=True)
class FisherSaid(Said):
    """Of k components; see :class:`FisherNetwork`."""

    log_weight: Tensor
    matrix: Tensor
    offset: Tensor
    factor: Tensor

    def log_prob_of_orbit(
        self, rotation: Tensor, offset: Tensor, symmetry: Tensor
    ) -> Tensor:
        """Return the log density of poses, (n,); there is no symmetry."""
        matrix = self.matrix.double()
        values = torch.linalg.svdvals(matrix)
        sign = torch.linalg.det(matrix).sign().detach()
        proper = torch.stack(
            [values[..., 0], values[..., 1], sign * values[..., 2]], -1
        )
        trace = (matrix * rotation[:, None].double()).sum((-2, -1))
        log_fisher = trace - proper.sum(-1) - log_normaliser(proper)
        near = log_fisher - LOG_VOLUME_OF_ROTATIONS
        near = near + gaussian(offset[:, None] - self.offset, self.factor)
        return torch.logsumexp(self.log_weight + near, 1).float()


class FisherNetwork(PoseNetwork):
    """Says, of each component: a weight, a 3 x 3 matrix, a shift and its precision."""

    def __init__(self, config: PoseNetworkConfig, prior: PosePrior) -> None:
        super().__init__(config, prior)
        self.last = nn.Linear(HIDDEN, config.components * 16)

    def _mixture(self, raw: Tensor) -> FisherSaid:  # type: ignore[override]
        parts = raw.unflatten(1, (self.config.components, 16))
        scale = (4 * parts[..., 1]).clamp(-4, 12).exp()[..., None, None]
        return FisherSaid(
            parts[..., 0].log_softmax(1),
            scale * parts[..., 2:11].unflatten(-1, (3, 3)),
            parts[..., 11:13],
            triangle(parts[..., 13:], 2, 0.5),
        )

    def posterior(self, said: FisherSaid) -> Mode:  # type: ignore[override]
        """Return the best mode."""
        best = roma.special_procrustes(said.matrix.double())
        n, k = best.shape[:2]
        density = []
        for component in range(k):
            own = said.log_prob_of_orbit(
                best[:, component], said.offset[:, component], torch.empty(0)
            )
            density.append(own)
        chosen = torch.stack(density, 1).argmax(1)
        return Mode(best[torch.arange(n), chosen])


# --- A grid -------------------------------------------------------------------------

NEAREST = 16


@dataclass(frozen=True)
class GridSaid(Said):
    """Log probabilities of the grid, and what refinements are made of."""

    log_weight: Tensor
    hidden: Tensor


class GridNetwork(PoseNetwork):
    """Says a probability of every rotation of a grid, and refines the best ones."""

    grid: Tensor

    def __init__(self, config: PoseNetworkConfig, prior: PosePrior) -> None:
        super().__init__(config, prior)
        self.register_buffer("grid", rotation_grid(2).float())
        self.last = nn.Linear(HIDDEN, len(self.grid))
        self.cell = nn.Embedding(len(self.grid), 64)
        d = self.unknowns
        self.refine = nn.Sequential(
            nn.Linear(HIDDEN + 64, 256),
            nn.SiLU(),
            nn.Linear(256, 256),
            nn.SiLU(),
            nn.Linear(256, d + d * (d + 1) // 2),
        )
        outer = self

        class Asked(GridSaid):
            def log_prob_of_orbit(
                self, rotation: Tensor, offset: Tensor, symmetry: Tensor
            ) -> Tensor:
                return outer.log_prob(self, rotation, offset)

        self._said = Asked

    def forward(  # type: ignore[override]
        self, inputs: EncoderInputs
    ) -> GridSaid:
        """Return what is said of every image."""
        kept = []
        hook = self.head.register_forward_hook(lambda *seen: kept.append(seen[-1]))
        log_weight = cast(Tensor, super().forward(inputs))
        hook.remove()
        return self._said(log_weight, kept[0].float())

    def _mixture(self, raw: Tensor) -> Tensor:  # type: ignore[override]
        return raw.log_softmax(1)

    def refined(self, hidden: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return means (n, k, d), from the cells' centres, and factors (n, k, d, d)."""
        d = self.unknowns
        beside = hidden[:, None].expand(-1, cells.shape[1], -1)
        raw = self.refine(torch.cat([beside, self.cell(cells)], -1))
        return 0.3 * raw[..., :d], triangle(10 * raw[..., d:], d, 0.5)

    def log_prob(self, said: GridSaid, rotation: Tensor, offset: Tensor) -> Tensor:
        """Return a lower bound of the log density of poses, (n,)."""
        trace = torch.einsum("nij,gij->ng", rotation, self.grid)
        cells = trace.topk(NEAREST, 1).indices
        mean, factor = self.refined(said.hidden, cells)
        turn = rotation_vector(rotation[:, None] @ self.grid[cells].mT)
        beside = offset[:, None].expand(-1, NEAREST, -1)
        own = gaussian(torch.cat([turn, beside], -1) - mean, factor)
        own = own - log_exponential_volume(turn.norm(dim=-1))
        return torch.logsumexp(said.log_weight.gather(1, cells) + own, 1)

    def posterior(self, said: GridSaid) -> Mode:  # type: ignore[override]
        """Return the best mode among those about the likeliest cells."""
        with torch.no_grad():
            weight, cells = said.log_weight.topk(8, 1)
            mean, factor = self.refined(said.hidden, cells)
            log_volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            best = (weight + log_volume).argmax(1)
            rows = torch.arange(len(best))
            turn = roma.rotvec_to_rotmat(mean[rows, best, :3])
            return Mode(turn @ self.grid[cells[rows, best]])


# --- The script ---------------------------------------------------------------------

NETWORKS = {
    "tangent Gaussians": PoseNetwork,
    "matrix Fisher": FisherNetwork,
    "grid": GridNetwork,
}


def measure(name: str, density: str, options: argparse.Namespace) -> Row:
    particles, training_data = lesson_of(name, options)
    config = PoseNetworkConfig()
    radius, box = picture_radius(config.side), training_data.density.shape[-1]
    grid = ReferenceGrid(box, training_data.pixel_size_angstrom)
    # Centred particles: a quarter of a pixel, as the library has it.
    sd = max(training_data.shift_sd_angstrom, 0.25 * training_data.pixel_size_angstrom)
    prior = PosePrior(sd, 0.0)
    generator = seeded(0)
    lent = templates_of(particles, grid, radius, training_data.noise_power, generator)
    volume = FourierVolume.from_map(training_data.density, radius)
    images = TrainingImages(MapProjector(volume), lent, prior)
    torch.manual_seed(0)
    network = NETWORKS[density](config, prior)
    alone = torch.eye(3, dtype=torch.float64)[None]
    setup = TrainingConfig(steps=options.steps)
    started = time.perf_counter()
    with patch.object(training._Run, "fit_widths", lambda run: None):
        done = train(network, images, setup, alone, generator, SilentMonitor())
    return {
        "weights": sum(weight.numel() for weight in network.parameters()),
        "loss_nats": done.checks[-1].loss_nats,
        "median_degrees": done.checks[-1].median_degrees,
        "training_seconds": time.perf_counter() - started,
    }


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (KERNELS, HALF_PRECISION))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sets", default="GF", help="which (default: GF)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    options = parser.parse_args()
    results = results_of("densities", options)
    for name in () if options.table else options.sets:
        for density in NETWORKS:
            key = {"set": name, "density": density, "steps": options.steps}
            if options.again or not results.has(key):
                row = measure(name, density, options)
                print(key, row, flush=True)
                results.put(key, row)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
