"""The one loop that teaches an encoder, from images whose poses are known.

A learning rate that warms up and falls as a cosine, an average of the weights over the
last steps, and at the end a fit of the posteriors' widths. A set of images that are
never learned from tells how far it has come: where nothing was learned in half of
the steps, the others are not taken. The state is handed to the monitor, so that
an interrupted run goes on.

Where ``torch.distributed`` has been initialised, processes share every batch: each
draws it whole, which costs next to nothing, and learns from its own rows. Gradients
are averaged, so that all have the same weights, those of one process.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cryoinfer.errors import InputError, state_of_this_version
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.inference.convergence import Check, in_vain, lost_degrees, verdict
from cryoinfer.inference.covariance_inflation import fitted_narrowing
from cryoinfer.inference.encoder_inputs import EncoderInputs, encoder_inputs
from cryoinfer.inference.optimiser import Optimiser
from cryoinfer.inference.pose_network import MixtureParameters, PoseNetwork
from cryoinfer.inference.training_images import TrainingImages, drawn_batches
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.world import World

_HELD_BACK, _OF_ONE_GROUP = 500, 25
"""Images held back, and how many of them are of one optics group before the next is
drawn."""

_LONGEST_GRADIENT = 1.0

_FITTED = 2000
"""Images that widths are fitted to: each is then known to 2 %."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast an encoder learns.

    Attributes
    ----------
    steps : int
    batch : int
        Images a step.
    learning_rate : float
        The highest.
    warm_up : int
        Steps until it is reached.
    average_share : float
        Of the steps: as many of the last ones the weights are averaged over, with
        weights that fall exponentially.
    check_every : int
        Steps between looks at the images held back, and checkpoints.
    """

    steps: int = 7000
    batch: int = 64
    learning_rate: float = 1e-3
    warm_up: int = 100
    average_share: float = 0.05
    check_every: int = 250


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes
    ----------
    network : PoseNetwork
        With averaged weights, ready to infer.
    checks : tuple of Check
    verdict : str
        In plain words, whether it has converged.
    """

    network: PoseNetwork
    checks: tuple[Check, ...]
    verdict: str


class Loss(nn.Module):
    """How badly a network's posteriors foretell the true latents.

    Parameters
    ----------
    network : PoseNetwork
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is, the identity among them: mates of the
        truth are as good as the truth.
    """

    def __init__(self, network: PoseNetwork, symmetry: Tensor) -> None:
        super().__init__()
        self._network, self._symmetry = network, symmetry

    def forward(self, inputs: EncoderInputs, latents: Latents) -> Tensor:
        """Return minus the log density of the true latents, in nats, shape (b,)."""
        return self.of(self.parameters_of(inputs), *self.truths_of(latents))

    def parameters_of(self, inputs: EncoderInputs) -> MixtureParameters:
        """Return what the network says of images."""
        said: MixtureParameters = self._network(inputs)
        return said

    def truths_of(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Return rotations, and the other unknowns over the prior's sd."""
        return latents.pose.rotation.float(), self._network.offset_of(latents)

    def of(
        self, parameters: MixtureParameters, rotation: Tensor, offset: Tensor
    ) -> Tensor:
        """Return the loss of what was said of images, shape (b,)."""
        return -parameters.log_prob_of_orbit(rotation, offset, self._symmetry)


def train(
    network: PoseNetwork,
    images: TrainingImages[Any],
    config: TrainingConfig,
    symmetry: Tensor,
    generator: torch.Generator,
    monitor: Monitor,
) -> Training:
    """Teach an encoder the posteriors of a map.

    Parameters
    ----------
    network : PoseNetwork
        Changed in place.
    images : TrainingImages
    config : TrainingConfig
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is, the identity among them: errors are
        those from the nearest mate.
    generator : torch.Generator
        Of images and poses; saved with the state.
    monitor : Monitor
        Of several processes, the checkpoint of the first is continued by all.

    Returns
    -------
    Training

    Raises
    ------
    InputError
        If there are several processes, and their number does not divide the batch.
    """
    run = _Run(network, images, config, symmetry, generator)
    saved = World.current().of_first(monitor.load_checkpoint())
    if saved is not None:
        with state_of_this_version():
            run.load(saved)
    monitor.stage("training", config.steps - run.step)
    while not run.over:
        run.advance()
        monitor.advance()
        if run.step % config.check_every == 0 or run.step == config.steps:
            monitor.message(run.check())
            if run.over:
                # After the last look: what that gains has not been learned.
                run.fit_widths()
            monitor.save_checkpoint(run.state())
    if run.step < config.steps:
        monitor.message(
            f"stopped at step {run.step} of {config.steps}: nothing was learned in "
            "half of them, and a rate that falls from there would not help"
        )
    return run.finished()


def require_divided(batch: int, processes: int) -> None:
    """Refuse a number of processes that does not divide the batch of a step.

    Raises
    ------
    InputError
    """
    if batch % processes:
        raise InputError(
            f"expected a number of processes that divides the batch of {batch}, found "
            f"{processes}"
        )


class _Run:
    """Weights, their average, the optimiser, and the images held back."""

    def __init__(
        self,
        network: PoseNetwork,
        images: TrainingImages[Any],
        config: TrainingConfig,
        symmetry: Tensor,
        generator: torch.Generator,
    ) -> None:
        self._network, self._images, self._symmetry = network, images, symmetry
        self._config, self._generator = config, generator
        self._world = World.current()
        require_divided(config.batch, self._world.size)
        for weight in network.parameters():
            if weight.dim() == 4:
                # The layout that convolutions are fastest in.
                weight.data = weight.contiguous(memory_format=torch.channels_last)
        decay = 1 - 1 / max(config.average_share * config.steps, 1.0)
        self._average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._optimiser = Optimiser(network, ends=network.ends)
        self._loss = Loss(network, symmetry)
        self._shared: nn.Module = self._loss
        if self._world.size > 1:
            self._shared = DistributedDataParallel(self._loss)
        self._side = network.config.side
        drawn = drawn_batches(images, _HELD_BACK, generator, _OF_ONE_GROUP)
        self._held_back = [
            (encoder_inputs(some, self._side), latents) for some, latents in drawn
        ]
        self._checks: list[Check] = []
        self._left_out = 0
        self._lost_degrees = lost_degrees(network.prior.rotation_unknowns, symmetry)
        self.step = 0

    @property
    def over(self) -> bool:
        """Whether all steps are taken, or half of them in vain."""
        steps = self._config.steps
        # By the step of the last look: a training ends at one.
        half = bool(self._checks) and 2 * self._checks[-1].step >= steps
        vain = half and in_vain(self._checks, self._lost_degrees)
        return self.step >= steps or vain

    def advance(self) -> None:
        """Take one step."""
        drawn, latents = self._images.draw(self._config.batch, self._generator)
        own = torch.arange(self._world.rank, self._config.batch, self._world.size)
        inputs = encoder_inputs(drawn.select(own), self._side)
        value = self._shared(inputs, latents[own]).mean()
        self._network.zero_grad(set_to_none=True)
        value.backward()
        weights = self._network.parameters()
        length = torch.nn.utils.clip_grad_norm_(weights, _LONGEST_GRADIENT)
        # One batch that overflows must not be the end of all weights.
        if bool(length.isfinite()):
            self._optimiser.step(self._rate())
            self._average.update_parameters(self._network)
        else:
            self._left_out += 1
        self.step += 1

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self._config.warm_up)
        falling = 0.5 * (1 + math.cos(math.pi * self.step / self._config.steps))
        return self._config.learning_rate * warm * max(falling, 1e-3)

    def fit_widths(self) -> None:
        """Make the widths of the averaged network's posteriors true."""
        network = self._averaged()
        batch = self._config.batch
        drawn = drawn_batches(self._images, _FITTED, self._generator, batch)
        look = Loss(network, self._symmetry)
        said = _said(
            look, ((encoder_inputs(some, self._side), true) for some, true in drawn)
        )
        network.narrowing.copy_(fitted_narrowing(*said, self._symmetry))

    def check(self) -> str:
        """Look at the images held back, and say what is seen."""
        network = self._averaged()
        look = Loss(network, self._symmetry)
        parameters, true, offset = _said(look, self._held_back)
        value = float(look.of(parameters, true, offset).mean())
        found = network.posterior(parameters).mode().pose.rotation
        mates = nearest_mates(true.double(), found, self._symmetry)
        degrees = math.degrees(float(geodesic_angle(found, mates).median()))
        self._checks.append(Check(self.step, value, degrees))
        return (
            f"step {self.step}: {value:.2f} nats, median error {degrees:.2f} degrees "
            "on simulated images held back" + self._overflows()
        )

    def _overflows(self) -> str:
        """Say how many batches were left out since the last look, if any."""
        count, self._left_out = self._left_out, 0
        if not count:
            return ""
        return f"; {count} batch{'es' * (count > 1)} that overflowed left out"

    def _averaged(self) -> PoseNetwork:
        network = self._average.module
        assert isinstance(network, PoseNetwork)
        return network

    def finished(self) -> Training:
        """Return the averaged network and a verdict."""
        told = verdict(self._checks, self._lost_degrees)
        return Training(self._averaged(), tuple(self._checks), told)

    def state(self) -> dict[str, object]:
        """Return all that the next step depends on."""
        return {
            "step": self.step,
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state(),
            "generator": self._generator.get_state(),
            "checks": [dict(vars(check)) for check in self._checks],
        }

    def load(self, saved: Mapping[str, object]) -> None:
        """Invert :meth:`state`."""
        state: dict[str, Any] = dict(saved)
        self.step = state["step"]
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load(state["optimiser"])
        self._generator.set_state(state["generator"])
        self._checks = [Check(**entry) for entry in state["checks"]]


def _said(
    look: Loss, drawn: Iterable[tuple[EncoderInputs, Latents]]
) -> tuple[MixtureParameters, Tensor, Tensor]:
    """Return what a network says of images, and their rotations and offsets."""
    said, rotation, offset = [], [], []
    for inputs, latents in drawn:
        with torch.no_grad():
            said.append(look.parameters_of(inputs))
        true, others = look.truths_of(latents)
        rotation.append(true)
        offset.append(others)
    # Of whichever class the network says: benchmarks/densities.py has others.
    return said[0].joined(said), torch.cat(rotation), torch.cat(offset)
