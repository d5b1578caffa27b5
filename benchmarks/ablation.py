"""What each piece of an encoder's training buys.

Shows, for particles of set G (with a CTF) or of adenylate kinase in D2, encoders that
learn the true map in 1,000 steps, each time with one piece left out: the loss and the
error on simulated images held back, and the share of truths in credible sets. A row is
one training of one seed.

    python benchmarks/ablation.py
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
from measure import LEVELS, argument_parser, resized, results_of, simulated
from rows import Column, Row, print_table
from symmetric import simulation_of
from torch import nn

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulation_preset
from cryoinfer.inference import amortized, training
from cryoinfer.inference.encoder_inputs import encoder_inputs
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map
from cryoinfer.workflows.train import EncoderConfig, Lesson, train_encoder
from cryoinfer.workflows.trial import ENCODER, hold_trials

STEPS = 1000
COLUMNS = (
    Column("set", "set"),
    Column("without", "without"),
    Column("steps", "steps"),
    Column("loss (nats)", "loss_nats", ".2f"),
    Column("median error (deg)", "median_degrees", ".2f"),
    *(Column(f"{level:.0%} sets", f"{level:.0%}", ".1%") for level in LEVELS),
    Column("training (s)", "training_seconds", ".0f"),
)


@dataclass(frozen=True)
class Variant:
    """A training with one piece left out.

    Attributes
    ----------
    without : str
    change : function of EncoderConfig to another
    patched : function that returns a context in which the piece is gone
    """

    without: str
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
    def blind(images, side):
        inputs = encoder_inputs(images, side)
        return replace(inputs, features=torch.zeros_like(inputs.features))

    with (
        patch.object(training, "encoder_inputs", blind),
        patch.object(amortized, "encoder_inputs", blind),
    ):
        yield


def mates_apart() -> AbstractContextManager[object]:
    true = training.Loss.__init__

    def apart(loss, network, symmetry, mixed_precision=True):
        true(loss, network, symmetry[:1], mixed_precision)

    return patch.object(training.Loss, "__init__", apart)


def with_training(**values: float) -> Callable[[EncoderConfig], EncoderConfig]:
    return lambda config: replace(config, training=replace(config.training, **values))


def with_network(**values: int) -> Callable[[EncoderConfig], EncoderConfig]:
    return lambda config: replace(config, network=replace(config.network, **values))


VARIANTS = {
    "G": (
        Variant("nothing"),
        Variant("orthogonal steps (AdamW alone)", patched=adam_alone),
        Variant("a rate that falls", patched=constant_rate),
        Variant("average of weights", with_training(average_share=0.0)),
        Variant("forgetting in it (half the steps)", with_training(average_share=0.5)),
        Variant("fitted widths", patched=widths_as_learned),
        Variant("several components", with_network(components=1)),
        Variant("knowing CTF and power", patched=blind_to_optics),
        Variant("half precision", with_training(mixed_precision=False)),
    ),
    "D2": (Variant("nothing"), Variant("a loss of orbits", patched=mates_apart)),
}


def set_of(name: str) -> SimulationConfig:
    if name == "D2":
        return simulation_of(name)
    return simulation_preset(f"cryoposenet-{name.lower()}")


def lesson_of(name: str, options: argparse.Namespace) -> tuple[Particles, Lesson]:
    """Return the particles of a set, and its true map and noise as a lesson."""
    simulation = resized(set_of(name), options)
    folder = simulated(simulation)
    particles = Particles.load(folder / "particles.star")
    density = torch.from_numpy(read_map(folder / "truth.mrc").density.copy()).float()
    noise = Simulation.of(simulation).model.noise.spectrum
    shift_sd = simulation.max_shift_angstrom / math.sqrt(3)  # uniform in a square
    group = "D2" if name == "D2" else "C1"
    pixel_size = particles.pixel_size_angstrom
    return particles, Lesson(density, pixel_size, (noise,), shift_sd, group)


def measure(name: str, variant: Variant, options: argparse.Namespace) -> Row:
    particles, lesson = lesson_of(name, options)
    config = EncoderConfig(training=TrainingConfig(steps=options.steps))
    monitor = SilentMonitor()
    with variant.patched():
        started = time.perf_counter()
        trained = train_encoder(particles, lesson, variant.change(config), monitor)
        seconds = time.perf_counter() - started
        trial = hold_trials(trained, particles, 1, monitor)[ENCODER]
    return {
        "loss_nats": trained.checks[-1].loss_nats,
        "median_degrees": trained.checks[-1].median_degrees,
        **{f"{level:.0%}": trial.share_in(level) for level in LEVELS},
        "training_seconds": seconds,
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    options = parser.parse_args()
    results = results_of("ablation", options)
    cases = [(name, variant) for name, own in VARIANTS.items() for variant in own]
    for name, variant in () if options.table else cases:
        key = {"set": name, "without": variant.without, "steps": options.steps}
        if options.again or not results.has(key):
            row = measure(name, variant, options)
            print(key, row, flush=True)
            results.put(key, row)
    print_table(results.rows(), COLUMNS)


if __name__ == "__main__":
    main()
