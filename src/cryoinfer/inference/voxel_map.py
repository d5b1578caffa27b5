"""A voxel map that is learned by gradient descent, through its central slices.

The map is transformed once a batch; slices are read from the transform by trilinear
interpolation, differentiably in the map and in the rotations. It is the model of
:mod:`cryoinfer.fourier.slices` in PyTorch's own operations, which take any device and
double precision.
"""

import math

import torch
from torch import Tensor, nn

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.oversampled import oversampled_transform
from cryoinfer.fourier.slices import DEFAULT_PADDING, kernel_falloff, padded_box
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.records import ParticleBatch


def coefficient_frequencies(box: int) -> Tensor:
    """Return the frequencies that images and slices are compared at.

    Parameters
    ----------
    box : int
        Even.

    Returns
    -------
    Tensor of float32, shape (2, 1 + p)
        kx and ky in Fourier pixels: first the origin, then those of
        :class:`FourierDisc` within ``box / 2 - 1``.
    """
    disc = FourierDisc.of_box(box, box // 2 - 1)
    return nn.functional.pad(torch.stack([disc.kx, disc.ky]), (1, 0))


class VoxelMap(nn.Module):
    """A real density on a grid, whose voxels are the parameters.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
        To begin with; axes (z, y, x), the origin is the voxel ``n // 2``, n even.
    padding : float
        Voxels of the Fourier grid per Fourier pixel, 1 or more.
    """

    _gain: Tensor
    _frequency: Tensor

    def __init__(self, density: Tensor, padding: float = DEFAULT_PADDING) -> None:
        super().__init__()
        box = density.shape[-1]
        if density.shape != (box, box, box) or box % 2:
            raise ValueError(
                f"expected a cubic map of even size, found {tuple(density.shape)}"
            )
        self.density = nn.Parameter(density.clone())
        self._padded = padded_box(box, padding)
        falloff = kernel_falloff(box, self._padded, density.device).to(density)
        self.register_buffer("_gain", 1 / (box * falloff), persistent=False)
        frequency = coefficient_frequencies(box).to(density)
        self.register_buffer("_frequency", frequency[:, 1:].T, persistent=False)

    @property
    def box(self) -> int:
        """Size n of the map in voxels."""
        return self.density.shape[-1]

    def forward(self, rotation: Tensor) -> Tensor:
        """Return central slices, in the convention of ``transform.map_to_fourier``.

        Parameters
        ----------
        rotation : Tensor, shape (b, 3, 3)
            Reference to image: the slice at k is the transform at ``rotation.T @ k``.

        Returns
        -------
        Tensor, complex, shape (b, 1 + p)
            At :func:`coefficient_frequencies`.
        """
        factor = self._padded / self.box
        point = factor * (self._frequency @ rotation[:, :2])
        # The other half of the transform is the conjugate of this one.
        sign = torch.where(point[..., :1] < 0, -1.0, 1.0).to(point)
        values = self._interpolate(point * sign)
        slices = torch.complex(values[0], values[1] * sign[..., 0])
        origin = (self.density.sum() / self.box).expand(len(rotation), 1)
        return torch.cat([origin.to(slices), slices], 1)

    def _interpolate(self, point: Tensor) -> Tensor:
        """Read the transform at points (b, p, 3) with x >= 0; shape (2, b, p)."""
        reach = math.ceil((self.box // 2 - 1) * self._padded / self.box) + 1
        reach = min(reach, self._padded // 2 - 1)
        transform = oversampled_transform(
            self.density * self._gain, self._padded, reach
        )
        grid = torch.view_as_real(transform).permute(3, 0, 1, 2)
        # From voxels to [-1, 1] between the centres of the first and the last.
        last = reach / 2
        place = torch.stack(
            [point[..., 0] / last - 1, point[..., 1] / reach, point[..., 2] / reach], -1
        )
        # Beyond the grid there is only what is read with weight zero.
        sampled = nn.functional.grid_sample(
            grid[None], place[None, None], mode="bilinear", align_corners=True
        )
        return sampled[0, :, 0]


def typical_voxel(box: int) -> float:
    """Return the value of which a third of the box adds up to 1."""
    return 3 / box


def random_map(box: int, highest: float, generator: torch.Generator) -> Tensor:
    """Draw voxels uniformly from 0 to ``highest`` typical ones; (box, box, box)."""
    return highest * typical_voxel(box) * torch.rand(box, box, box, generator=generator)


def mean_squared_error(slices: Tensor, images: Tensor, ctf: Tensor) -> Tensor:
    """Return the mean squared difference of images and model, over pixels and images.

    Summed over Fourier coefficients, of which the independent half is known; by
    Parseval's theorem it is the sum over pixels. The model is zero where slices have
    no coefficient: from Nyquist on.

    Parameters
    ----------
    slices : Tensor, complex, shape (b, 1 + p)
        Of :class:`VoxelMap`.
    images : Tensor, shape (b, n, n)
        The origin is the pixel ``n // 2``.
    ctf : Tensor, shape (b, 1 + p)
        At :func:`coefficient_frequencies`.

    Returns
    -------
    Tensor, shape ()
    """
    box = images.shape[-1]
    disc = FourierDisc.of_box(box, box // 2 - 1)
    half = torch.fft.rfft2(images, norm="ortho")
    seen = disc.gather(half) * disc.centring.to(images)
    seen = torch.cat([half[:, :1, 0], seen], 1)
    # Every coefficient but the origin stands for its conjugate as well.
    weight = torch.full_like(ctf[0], 2.0)
    weight[0] = 1.0
    left = torch.view_as_real(seen - ctf * slices).square().sum(-1)
    power = torch.view_as_real(seen).square().sum(-1)
    beyond = images.square().sum() - (power @ weight).sum()
    return ((left @ weight).sum() + beyond) / images.numel()


def transfer_functions(batch: ParticleBatch) -> Tensor:
    """Return the CTF of every particle, shape (b, 1 + p), on the device of the images.

    At :func:`coefficient_frequencies`; all of one pixel size.
    """
    box = batch.images.shape[-1]
    frequency = coefficient_frequencies(box).to(batch.images)
    step = 1 / (box * float(batch.optics.pixel_size_angstrom[0]))
    return evaluate_ctf(batch.optics, *(frequency * step))
