"""cryoPoseNet as published: pose and map by an auto-encoder (Nashed et al. 2021).

An encoder names one rotation an image (:mod:`cryoinfer.inference.published_encoder`), a
voxel map is seen from there, and the squared difference of pixels is what both learn
from: no posterior, no several starts, no annealing. The baseline of
:mod:`cryoinfer.inference.training`.

Not stated there, or not to be used as printed, are: the learning rate (5e-10, by which
Adam moves no weight farther than 5e-6 in 10,000 steps), the range of the uniform random
map, the interpolation of slices, and the scale of the images. What stands for them here
is said where it is done.

The state is handed to the monitor, so that an interrupted run goes on: on the CPU with
the same bits as one that was not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cryoinfer.errors import state_of_this_version
from cryoinfer.fourier.slices import DEFAULT_PADDING
from cryoinfer.inference.published_encoder import PoseSource
from cryoinfer.inference.voxel_map import (
    VoxelMap,
    mean_squared_error,
    random_map,
    transfer_functions,
    typical_voxel,
)
from cryoinfer.inference.whitening import require_finite
from cryoinfer.interfaces import Monitor
from cryoinfer.records import ParticleBatch

_POSED = 500
"""Images that rotations are named of at a time, once nothing is learned any more."""


@dataclass(frozen=True)
class PublishedConfig:
    """How long and how fast encoder and map are learned.

    Attributes
    ----------
    steps : int
    batch : int
        Images a step; the last of an epoch that do not fill one are left out.
    pose_learning_rate : float
        Of the encoder, or of poses that are parameters: the printed mantissa with an
        exponent at which weights move.
    map_learning_rate : float
        Over :func:`typical_voxel`, so that it means the same in every box.
    initial_map : float
        Upper end of the uniform distribution of the first voxels, over the same value.
    padding : float
        Of the map's transform; see :class:`VoxelMap`.
    mixed_precision : bool
        Whether the encoder computes in bfloat16, all but its last layer; its poses then
        depend on the processor.
    check_every : int
        Steps between messages, and checkpoints.
    """

    steps: int = 10_000
    batch: int = 32
    pose_learning_rate: float = 5e-4
    map_learning_rate: float = 0.1
    initial_map: float = 0.1
    padding: float = DEFAULT_PADDING
    mixed_precision: bool = False
    check_every: int = 250


@dataclass(frozen=True)
class PublishedModel:
    """Poses and map, while they are learned and after.

    Attributes
    ----------
    poses : PoseSource
    map : VoxelMap
        In units of ``unit``.
    unit : float
        Standard deviation of all pixels of the set, which images are divided by.
    mixed_precision : bool
    """

    poses: PoseSource
    map: VoxelMap
    unit: float
    mixed_precision: bool

    @property
    def density(self) -> Tensor:
        """The map in the units of the images, shape (n, n, n), on the CPU."""
        return self.map.density.detach().cpu() * self.unit

    def rotations(self, images: Tensor, index: Tensor) -> Tensor:
        """Return the rotation of every image, differentiably in what is learned.

        Parameters
        ----------
        images : Tensor, shape (b, n, n)
            As recorded.
        index : Tensor of int64, shape (b,)
            Their numbers in the set.

        Returns
        -------
        Tensor, shape (b, 3, 3)
        """
        kind = images.device.type
        mixed = self.mixed_precision and images.dtype == torch.float32
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=mixed):
            return self.poses(images / self.unit, index)

    def named_rotations(self, images: ParticleBatch) -> Tensor:
        """Return the rotations of any number of images as they are now.

        Parameters
        ----------
        images : ParticleBatch
            ``index`` are the numbers in the set.

        Returns
        -------
        Tensor of float64, shape (n, 3, 3)
            On the CPU.
        """
        parts = []
        with torch.no_grad():
            for rows in torch.arange(len(images)).split(_POSED):
                few = images[rows.to(images.images.device)]
                parts.append(self.rotations(few.images, few.index).double().cpu())
        return torch.cat(parts)

    def loss(self, batch: ParticleBatch) -> Tensor:
        """Return the mean squared error of the pixels, over the set's variance.

        Parameters
        ----------
        batch : ParticleBatch
            ``index`` are the numbers in the set; shifts are zero.

        Returns
        -------
        Tensor, shape ()
        """
        slices = self.map(self.rotations(batch.images, batch.index))
        ctf = transfer_functions(batch)
        return mean_squared_error(slices, batch.images / self.unit, ctf)


@dataclass(frozen=True)
class PublishedRun:
    """What was learned.

    Attributes
    ----------
    model : PublishedModel
    losses : Tensor of float32, shape (steps,)
        :meth:`PublishedModel.loss` of every step's batch, before the step.
    """

    model: PublishedModel
    losses: Tensor


def train_published(
    images: ParticleBatch,
    poses: PoseSource,
    config: PublishedConfig,
    generator: torch.Generator,
    monitor: Monitor,
    watch: Callable[[int, PublishedModel], None] | None = None,
) -> PublishedRun:
    """Learn a map from random voxels, and the poses with it.

    Adam, one learning rate for the poses and one for the map, constant. All works on
    the device that the images lie on. Gradients of slices on a GPU are summed in any
    order: there, unlike on the CPU, two runs agree to rounding only.

    Parameters
    ----------
    images : ParticleBatch
        The whole set, of one pixel size, particles centred; ``index`` is 0 to n - 1.
        Single precision.
    poses : PoseSource
        Changed in place, and moved to the images' device.
    config : PublishedConfig
    generator : torch.Generator
        Of the first map and of the order of the images, on the CPU; saved with the
        state.
    monitor : Monitor
        Sees one stage of the steps that are left. Its checkpoint, if it has one, is
        continued.
    watch : callable, optional
        Called after every step with the steps done and the model.

    Returns
    -------
    PublishedRun

    Raises
    ------
    InputError
        If an image holds NaN or infinite pixels, or the checkpoint is of another
        version.
    ValueError
        If there are fewer images than a batch.
    """
    run = _Run(images, poses, config, generator)
    saved = monitor.load_checkpoint()
    if saved is not None:
        with state_of_this_version():
            run.load(saved)
    monitor.stage("auto-encoder", config.steps - run.step)
    while run.step < config.steps:
        run.advance()
        monitor.advance()
        if watch is not None:
            watch(run.step, run.model)
        if run.step % config.check_every == 0 or run.step == config.steps:
            monitor.message(run.told())
            monitor.save_checkpoint(run.state())
    return PublishedRun(run.model, run.losses.cpu())


class _Run:
    """Poses and map, their optimiser, and the images of the epoch that are left."""

    def __init__(
        self,
        images: ParticleBatch,
        poses: PoseSource,
        config: PublishedConfig,
        generator: torch.Generator,
    ) -> None:
        count = len(images)
        if count < config.batch:
            raise ValueError(f"{count} images do not fill a batch of {config.batch}")
        require_finite(images)
        device = images.images.device
        self._images, self._config = images.to(device), config
        self._generator = generator
        density = random_map(images.images.shape[-1], config.initial_map, generator)
        self.model = PublishedModel(
            poses.to(device),
            VoxelMap(density, config.padding).to(device),
            float(images.images.std()),
            config.mixed_precision,
        )
        self._optimiser = _optimiser(self.model, config)
        self._order = torch.empty(0, dtype=torch.int64)
        self.losses = torch.zeros(config.steps, device=device)
        self.step = 0

    def advance(self) -> None:
        """Take one step."""
        batch = self._config.batch
        if len(self._order) < batch:
            count = len(self._images)
            self._order = torch.randperm(count, generator=self._generator)
        rows, self._order = self._order[:batch], self._order[batch:]
        loss = self.model.loss(self._images[rows.to(self.losses.device)])
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        self.losses[self.step] = loss.detach()
        self.step += 1

    def told(self) -> str:
        """Say how much of the images is left, over the steps since the last look."""
        since = (self.step - 1) // self._config.check_every * self._config.check_every
        left = float(self.losses[since : self.step].mean())
        return f"step {self.step}: {left:.3f} of the images' variance is left"

    def state(self) -> dict[str, object]:
        """Return all that the next step depends on."""
        return {
            "step": self.step,
            "poses": self.model.poses.state_dict(),
            "map": self.model.map.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "order": self._order.clone(),
            "losses": self.losses[: self.step].clone(),
        }

    def load(self, saved: Mapping[str, object]) -> None:
        """Invert :meth:`state`."""
        state: dict[str, Any] = dict(saved)
        self.step = state["step"]
        self.losses[: self.step] = state["losses"]
        self.model.poses.load_state_dict(state["poses"])
        self.model.map.load_state_dict(state["map"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])
        self._order = state["order"]


def _optimiser(model: PublishedModel, config: PublishedConfig) -> torch.optim.Adam:
    groups = [
        {
            "params": [model.map.density],
            "lr": config.map_learning_rate * typical_voxel(model.map.box),
        },
        {"params": list(model.poses.parameters()), "lr": config.pose_learning_rate},
    ]
    # Known poses leave the second group empty.
    return torch.optim.Adam([g for g in groups if g["params"]], fused=True)
