"""cryoPoseNet as published: pose and map by an auto-encoder (Nashed et al. 2021).

A convolutional encoder names one rotation an image, a voxel map is seen from there, and
the squared difference of pixels is what both learn from: no posterior, no several
starts, no annealing. In the two comparisons of the publication the encoder is replaced:
by poses that are known, or by poses that are parameters of each image. The baseline of
:mod:`cryoinfer.inference.training`.

Not stated there, or not to be used as printed, are: the learning rate (5e-10, by which
Adam moves no weight farther than 5e-6 in 10,000 steps), the range of the uniform random
map, the interpolation of slices, the scale of the images, and how three numbers name a
quaternion. What stands for them here is said where it is done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import roma
import torch
from torch import Tensor, nn

from cryoinfer.fourier.slices import DEFAULT_PADDING
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

Head = Literal["s2s2", "quaternion", "euler"]
"""How a rotation is named by numbers."""

_NUMBERS: dict[Head, int] = {"s2s2": 6, "quaternion": 3, "euler": 3}
_FILTERS = (32, 64, 128)
_HIDDEN = 512
_ILL_DEFINED = 1e-9
"""Part of a fixed frame that is added, so that any two vectors make a rotation."""


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
    """

    steps: int = 10_000
    batch: int = 32
    pose_learning_rate: float = 5e-4
    map_learning_rate: float = 0.1
    initial_map: float = 0.1
    padding: float = DEFAULT_PADDING
    mixed_precision: bool = False


def rotations_of(numbers: Tensor, head: Head) -> Tensor:
    """Return the rotations that any finite numbers name.

    Parameters
    ----------
    numbers : Tensor, shape (..., 3), or (..., 6) for s2s2
        ``euler``: rot, tilt and psi in radians, as RELION has them. ``quaternion``:
        (a, b, c) give a unit quaternion by Shoemake's map (Graphics Gems III, 1992,
        124-132), with the logistic function of a and the turns b and c in the place
        of the three uniform numbers. ``s2s2``: two vectors, made orthonormal; they
        are the first columns of the matrix.
    head : Head

    Returns
    -------
    Tensor of the type of ``numbers``, shape (..., 3, 3)
        Computed in double precision: nearly parallel vectors are still made
        orthonormal.
    """
    values = numbers.double()
    if head == "euler":
        rotation = roma.euler_to_rotmat("ZYZ", values).mT
    elif head == "quaternion":
        logit, turns = values[..., 0], 2 * torch.pi * values[..., 1:]
        # Through logarithms the roots have a gradient at 0 too.
        first = (nn.functional.logsigmoid(-logit) / 2).exp()
        second = (nn.functional.logsigmoid(logit) / 2).exp()
        parts = (
            first * turns[..., 0].sin(),
            first * turns[..., 0].cos(),
            second * turns[..., 1].sin(),
            second * turns[..., 1].cos(),
        )
        rotation = roma.unitquat_to_rotmat(torch.stack(parts, -1))
    else:
        frame = values.unflatten(-1, (2, 3)).mT
        size = torch.linalg.matrix_norm(frame)[..., None, None]
        frame = frame / size.clamp_min(torch.finfo(torch.float64).tiny)
        fixed = torch.eye(3, 2, dtype=frame.dtype, device=frame.device)
        rotation = roma.special_gramschmidt(frame + _ILL_DEFINED * fixed)
    return rotation.to(numbers.dtype)


class PublishedEncoder(nn.Module):
    """The published network: images to rotations.

    Three blocks of two convolutions of 3 x 3 and a maximum over 2 x 2, with 32, 64 and
    128 filters; two dense layers of 512; a linear head. Rectifiers follow all but the
    head. Weights begin as those of Keras, which the publication used: Glorot's uniform
    distribution, no biases. That matters for s2s2: its rotation does not depend on the
    length of the vectors, so that without biases views differ from the first step on,
    however small the numbers.

    Parameters
    ----------
    box : int
        Size of the images, a multiple of 8.
    head : Head
    generator : torch.Generator
        Of the weights.
    """

    def __init__(self, box: int, head: Head, generator: torch.Generator) -> None:
        super().__init__()
        if box % 2 ** len(_FILTERS):
            raise ValueError(f"expected a box that is a multiple of 8, found {box}")
        self.head: Head = head
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self._build(box, _NUMBERS[head])
        for weight in self.convolutions.parameters():
            if weight.dim() == 4:
                # The layout that convolutions are fastest in.
                weight.data = weight.contiguous(memory_format=torch.channels_last)

    def _build(self, box: int, numbers: int) -> None:
        layers: list[nn.Module] = []
        for before, filters in zip((1, *_FILTERS), _FILTERS, strict=False):
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU(inplace=True)]
            # A rectifier and a maximum commute: a quarter of the work this way round.
            layers += [nn.Conv2d(filters, filters, 3, padding=1), nn.MaxPool2d(2)]
            layers += [nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        side = box // 2 ** len(_FILTERS)
        self.dense = nn.Sequential(
            nn.Linear(_FILTERS[-1] * side**2, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
        )
        self.last = nn.Linear(_HIDDEN, numbers)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Return the rotation of every image.

        Parameters
        ----------
        images : Tensor, shape (b, n, n)
            Of unit variance over the set.
        index : Tensor, shape (b,)
            Not looked at.

        Returns
        -------
        Tensor, shape (b, 3, 3)
        """
        # Of one channel every layout looks contiguous: only strides tell convolutions.
        picture = images[..., None].permute(0, 3, 1, 2)
        hidden = self.dense(self.convolutions(picture).flatten(1))
        # Half precision would round the rotations to a tenth of a degree.
        with torch.autocast(hidden.device.type, enabled=False):
            return rotations_of(self.last(hidden.to(images.dtype)), self.head)


class KnownPoses(nn.Module):
    """The comparison "tomo": poses are given, the map alone is learned.

    Parameters
    ----------
    rotation : Tensor, shape (n, 3, 3)
        Of all images.
    """

    rotation: Tensor

    def __init__(self, rotation: Tensor) -> None:
        super().__init__()
        self.register_buffer("rotation", rotation.float())

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Return the rotations (b, 3, 3) of the images numbered ``index``."""
        return self.rotation[index].to(images.dtype)


class FreePoses(nn.Module):
    """The comparison "AD": s2s2 vectors are parameters, six for every image.

    They begin uniform over all rotations. Adam's momentum, which goes on while an image
    is not seen, moves it by about 30 learning rates a visit.

    Parameters
    ----------
    count : int
        Number of images.
    generator : torch.Generator
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.randn(count, 6, generator=generator))

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Return the rotations (b, 3, 3) of the images numbered ``index``."""
        return rotations_of(self.numbers[index], "s2s2").to(images.dtype)


PoseSource = PublishedEncoder | KnownPoses | FreePoses
"""What names the rotation of an image."""


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
        Of the first map and of the order of the images, on the CPU.
    monitor : Monitor
        Sees one stage of ``config.steps``.
    watch : callable, optional
        Called after every step with the steps done and the model.

    Returns
    -------
    PublishedRun

    Raises
    ------
    InputError
        If an image holds NaN or infinite pixels.
    ValueError
        If there are fewer images than a batch.
    """
    if len(images) < config.batch:
        raise ValueError(f"{len(images)} images do not fill a batch of {config.batch}")
    require_finite(images)
    device = images.images.device
    images = images.to(device)
    unit = float(images.images.std())
    density = random_map(images.images.shape[-1], config.initial_map, generator)
    model = PublishedModel(
        poses.to(device),
        VoxelMap(density, config.padding).to(device),
        unit,
        config.mixed_precision,
    )
    optimiser = _optimiser(model, config)
    losses = torch.empty(config.steps, device=device)
    monitor.stage("auto-encoder", config.steps)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(config.steps):
        if len(order) < config.batch:
            order = torch.randperm(len(images), generator=generator)
        rows, order = order[: config.batch], order[config.batch :]
        loss = model.loss(images[rows.to(device)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses[step] = loss.detach()
        monitor.advance()
        if watch is not None:
            watch(step + 1, model)
    return PublishedRun(model, losses.cpu())


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
