"""What each piece of an encoder's training buys.

Shows, for particles of sets G (with a CTF) and F (-10 dB), or of adenylate kinase in
D2, encoders that learn the true map in 1,000 steps, each time with one piece left out,
or with one more that is not kept: the loss and the error on simulated images held back,
and the share of truths in credible sets. A row is one training of one seed.

    python benchmarks/ablation.py
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import roma
import torch
from accuracy import LEVELS
from measure import argument_parser, resized, results_of, simulated
from printed import HALF_PRECISION, KERNELS, Column, table
from rows import Row
from symmetric import simulation_of
from torch import Tensor, nn

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.geometry.rotations import rotation_vector
from cryoinfer.inference import amortized, training
from cryoinfer.inference.encoder_inputs import (
    EncoderInputs,
    encoder_inputs,
    picture_radius,
)
from cryoinfer.inference.pose_network import PoseNetwork
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map
from cryoinfer.records import Latents, Pose
from cryoinfer.results.calibration_trial import ENCODER
from cryoinfer.workflows.encoder_calibration import calibrate_encoder
from cryoinfer.workflows.train import EncoderConfig, TrainingData, train_encoder

STEPS = 1000
FIRST_RADIUS = 4  # of frequency marching, in Fourier pixels
DIFFERENCE = 1e-3  # of rotations in radian, and of shifts over the prior's sd
COLUMNS = (
    Column("set", "set"),
    Column("change", "change"),
    Column("steps", "steps", ","),
    Column("loss (nats)", "loss_nats", ".2f"),
    Column("median error (deg)", "median_degrees", ".2f"),
    *(Column(f"{level:.0%} sets", f"{level:.0%}", ".1%") for level in LEVELS),
    Column("training (s)", "training_seconds", ".0f"),
)


@dataclass(frozen=True)
class Variant:
    """A training that differs in one piece.

    Attributes
    ----------
    name : str
    change : function of EncoderConfig to another
    patched : function that returns a context in which the piece is another
    """

    name: str
    change: Callable[[EncoderConfig], EncoderConfig] = lambda config: config
    patched: Callable[[], AbstractContextManager[object]] = nullcontext


# --- Pieces that no option leaves out -----------------------------------------------


class AdamAlone:
    """AdamW for all weights, in the place of the optimiser."""

    def __init__(self, network: nn.Module, ends: tuple[str, ...]) -> None:
        self._adam = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)

    def step(self, learning_rate: float) -> None:
        """Take one step."""
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()

    def state(self) -> dict[str, object]:
        """Return nothing: these trainings are not resumed."""
        return {}


def adam_alone() -> AbstractContextManager[object]:
    return patch.object(training, "Optimiser", AdamAlone)


def constant_rate() -> AbstractContextManager[object]:
    def rate(run: training._Run) -> float:
        config = run._config
        return config.learning_rate * min(1.0, (run.step + 1) / config.warm_up)

    return patch.object(training._Run, "_rate", rate)


def widths_as_learned() -> AbstractContextManager[object]:
    return patch.object(training._Run, "fit_widths", lambda run: None)


@contextmanager
def blind_to_optics() -> Iterator[None]:
    def blind(images: WhitenedImages, side: int) -> EncoderInputs:
        inputs = encoder_inputs(images, side)
        return replace(inputs, features=torch.zeros_like(inputs.features))

    with (
        patch.object(training, "encoder_inputs", blind),
        patch.object(amortized, "encoder_inputs", blind),
    ):
        yield


def mates_apart() -> AbstractContextManager[object]:
    true = training.Loss.__init__

    def apart(
        loss: training.Loss,
        network: PoseNetwork,
        symmetry: Tensor,
    ) -> None:
        true(loss, network, symmetry[:1])

    return patch.object(training.Loss, "__init__", apart)


# --- Pieces that were tried beside --------------------------------------------------


@contextmanager
def frequency_marching() -> Iterator[None]:
    """Show a radius that grows from 4 pixels to all in the first half of the steps."""
    share = 1.0
    step = training._Run.advance

    def advance(run: training._Run) -> None:
        nonlocal share
        share = min(1.0, 2 * run.step / run._config.steps)
        step(run)
        share = 1.0  # images held back are shown whole

    def marched(images: WhitenedImages, side: int) -> EncoderInputs:
        reach = FIRST_RADIUS + share * (picture_radius(side) - FIRST_RADIUS)
        shown = images.coefficients * (images.disc.ring <= reach)
        return encoder_inputs(replace(images, coefficients=shown), side)

    with (
        patch.object(training._Run, "advance", advance),
        patch.object(training, "encoder_inputs", marched),
    ):
        yield


class EvidenceBound:
    """Minus the evidence lower bound of the particles themselves, in a loss's place.

    Its slopes in the network's numbers go through a pose drawn from every component,
    and on through the physics by central differences.

    Parameters
    ----------
    run : training._Run
        Whose shifts are unknown and whose defoci are given.
    """

    def __init__(self, run: training._Run) -> None:
        self._run, self._images, self._loss = run, run._images, run._loss
        self._seen = self._images.templates[0]

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[WhitenedImages, Latents]:
        """Return particles in the place of simulated images; of their poses nothing."""
        rows = torch.randint(
            len(self._images.templates[0]), (count,), generator=generator
        )
        self._seen = self._images.templates[0].select(rows)
        unknown = Pose(torch.eye(3).expand(count, 3, 3), torch.zeros(count, 2))
        return self._seen, Latents.rigid(unknown, torch.zeros(count))

    def __call__(self, inputs: EncoderInputs, latents: Latents) -> Tensor:
        """Return minus the bound of the particles drawn last, in nats, shape (b,)."""
        said = self._loss.parameters_of(inputs)
        b, k, d, _ = said.factor.shape
        normal = torch.randn(b, k, d, 1, generator=self._run._generator)
        step = torch.linalg.solve_triangular(said.factor.mT, normal, upper=True)[..., 0]
        rotation = roma.rotvec_to_rotmat(step[..., :3]) @ said.rotation
        offset = said.offset + step[..., 3:]
        turn = rotation_vector(rotation @ rotation.detach().mT)
        away = torch.cat([turn, offset - offset.detach()], -1)
        height, slope = self._joint_and_slope(rotation.detach(), offset.detach())
        joint = height + (slope * away).sum(-1)
        weight = said.log_weight[:, :k].softmax(1)
        return (weight * (said.log_prob(rotation, offset) - joint)).sum(1)

    def _joint_and_slope(
        self, rotation: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log likelihood and prior, (b, k), and the slopes, (b, k, d)."""
        slopes = []
        for axis in torch.eye(3 + offset.shape[-1]) * DIFFERENCE:
            turn = roma.rotvec_to_rotmat(axis[:3])
            ahead = self._joint(turn @ rotation, offset + axis[3:])
            behind = self._joint(turn.mT @ rotation, offset - axis[3:])
            slopes.append((ahead - behind) / (2 * DIFFERENCE))
        return self._joint(rotation, offset), torch.stack(slopes, -1)

    def _joint(self, rotation: Tensor, offset: Tensor) -> Tensor:
        """Return log likelihood and prior, but for constants, shape (b, k)."""
        b, k = rotation.shape[:2]
        seen = self._seen.select(torch.arange(b).repeat_interleave(k))
        shift = (offset * self._images.prior.unknowns_sd_angstrom[:2]).flatten(0, 1)
        pose = Pose(rotation.flatten(0, 1).double(), shift)
        latents = Latents.rigid(pose, torch.zeros(b * k))
        shown = seen.ctf * self._images.projector.coefficients(latents, seen)
        left = (seen.moved_back(shift) - shown).abs().square().sum(1)
        return -left.view(b, k) - 0.5 * offset.square().sum(-1)


def evidence_bound_at_last() -> AbstractContextManager[object]:
    """Take the last third of the steps by the bound on the particles themselves."""
    step = training._Run.advance

    def advance(run: training._Run) -> None:
        if 3 * run.step < 2 * run._config.steps:
            return step(run)
        bound = EvidenceBound(run)
        with patch.multiple(run, _images=bound, _shared=bound):
            return step(run)

    return patch.object(training._Run, "advance", advance)


def with_training(**values: Any) -> Callable[[EncoderConfig], EncoderConfig]:
    return lambda config: replace(config, training=replace(config.training, **values))


def with_network(**values: int) -> Callable[[EncoderConfig], EncoderConfig]:
    return lambda config: replace(config, network=replace(config.network, **values))


MORE = (
    Variant("with frequency marching", patched=frequency_marching),
    Variant("with the ELBO on the particles at last", patched=evidence_bound_at_last),
)
VARIANTS = {
    "G": (
        Variant("none"),
        Variant("without orthogonal steps (AdamW alone)", patched=adam_alone),
        Variant("without a rate that falls", patched=constant_rate),
        Variant("without average of weights", with_training(average_share=0.0)),
        Variant("average over half of the steps", with_training(average_share=0.5)),
        Variant("without fitted widths", patched=widths_as_learned),
        Variant("without several components", with_network(components=1)),
        Variant("without knowing CTF and power", patched=blind_to_optics),
        *MORE,
    ),
    "F": (Variant("none"), *MORE),
    "D2": (Variant("none"), Variant("without a loss of orbits", patched=mates_apart)),
}


def set_of(name: str) -> SimulationConfig:
    if name == "D2":
        return simulation_of(name)
    return simulation_preset(f"cryoposenet-{name.lower()}")


def lesson_of(name: str, options: argparse.Namespace) -> tuple[Particles, TrainingData]:
    """Return the particles of a set, and its true map and noise as training data."""
    simulation = resized(set_of(name), options)
    folder = simulated(simulation)
    particles = Particles.load(folder / "particles.star")
    density = torch.from_numpy(read_map(folder / "truth.mrc").density.copy()).float()
    noise = Simulation.of(simulation).model.noise.spectrum
    shift_sd = simulation.max_shift_angstrom / math.sqrt(3)  # uniform in a square
    group = "D2" if name == "D2" else "C1"
    pixel_size = particles.pixel_size_angstrom
    return particles, TrainingData(density, pixel_size, (noise,), shift_sd, group)


def measure(name: str, variant: Variant, options: argparse.Namespace) -> Row:
    particles, training_data = lesson_of(name, options)
    config = EncoderConfig(training=TrainingConfig(steps=options.steps))
    monitor = SilentMonitor()
    with variant.patched():
        started = time.perf_counter()
        trained = train_encoder(
            particles, training_data, variant.change(config), monitor
        )
        seconds = time.perf_counter() - started
        trial = calibrate_encoder(trained, particles, 1, monitor)[ENCODER]
    return {
        "loss_nats": trained.checks[-1].loss_nats,
        "median_degrees": trained.checks[-1].median_degrees,
        **{f"{level:.0%}": trial.share_in(level) for level in LEVELS},
        "training_seconds": seconds,
    }


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    halved = HALF_PRECISION.of(lambda row: "half precision" not in row["change"])
    return table(rows, COLUMNS, (KERNELS, halved))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    options = parser.parse_args()
    results = results_of("ablation", options)
    cases = [(name, variant) for name, own in VARIANTS.items() for variant in own]
    for name, variant in () if options.table else cases:
        key = {"set": name, "change": variant.name, "steps": options.steps}
        if options.again or not results.has(key):
            row = measure(name, variant, options)
            print(key, row, flush=True)
            results.put(key, row)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
