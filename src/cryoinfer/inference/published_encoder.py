"""What names the rotations of images in cryoPoseNet as published.

A convolutional encoder names one rotation an image (Nashed et al. 2021). In the two
comparisons of the publication it is replaced: by poses that are known, or by poses that
are parameters of each image. How they are learned is in
:mod:`cryoinfer.inference.published_training`.

How three numbers name a quaternion is not stated there; what stands for it here is
said in :func:`rotations_of`.
"""

from typing import Literal

import roma
import torch
from torch import Tensor, nn

Head = Literal["s2s2", "quaternion", "euler"]
"""How a rotation is named by numbers."""

PoseChoice = Literal[Head, "known", "free"]
"""What names the rotation of an image: an encoder with a head, or no encoder."""

_NUMBERS: dict[Head, int] = {"s2s2": 6, "quaternion": 3, "euler": 3}
_FILTERS = (32, 64, 128)
_HIDDEN = 512
_ILL_DEFINED = 1e-9
"""Part of a fixed frame that is added, so that any two vectors make a rotation."""


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


def pose_source(
    choice: PoseChoice,
    count: int,
    box: int,
    rotation: Tensor | None,
    generator: torch.Generator,
) -> PoseSource:
    """Return what is to name the rotations of images, before it has learned.

    Parameters
    ----------
    choice : PoseChoice
    count, box : int
        Of the images.
    rotation : Tensor, shape (count, 3, 3), or None
        Theirs, where they are known.
    generator : torch.Generator
        Of weights, or of the first poses.

    Raises
    ------
    ValueError
        If rotations are to be known and are not given, or the box is none of an
        encoder's.
    """
    if choice == "known":
        if rotation is None:
            raise ValueError("expected rotations to be known, found none")
        return KnownPoses(rotation)
    if choice == "free":
        return FreePoses(count, generator)
    return PublishedEncoder(box, choice, generator)
