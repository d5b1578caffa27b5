"""A density map as a structure, projected by central slices of its transform."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.fourier.transform import fourier_to_image
from cryoinfer.records import Pose


@dataclass(frozen=True)
class VoxelVolume:
    """A density on a grid.

    A :class:`cryoinfer.interfaces.Structure`. The transform that slices are read
    from is made on first use and kept. Images have no gradient in the density:
    maps are updated in closed form, see :mod:`cryoinfer.reconstruction`.

    Attributes
    ----------
    density : Tensor, shape (n, n, n)
        Axes (z, y, x), n even; the origin is the voxel ``n // 2``.
    pixel_size_angstrom : float
    """

    density: Tensor
    pixel_size_angstrom: float

    @cached_property
    def transform(self) -> FourierVolume:
        """The map's transform up to the last whole frequency below Nyquist."""
        return FourierVolume.from_map(self.density, self.density.shape[-1] // 2 - 1)

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return the images of the map at the given poses, without CTF.

        An image is the sum of the map along z, whatever its own pixel size: a value
        is that of a map voxel times the number of voxels. Frequencies that either
        the map or the image lacks are zero.

        Parameters
        ----------
        pose : Pose
            Of n particles.
        box : int
        pixel_size_angstrom : float
            Of the images; map and images may differ in pixel size and box.

        Returns
        -------
        Tensor of float32, shape (n, box, box)
        """
        side = box * pixel_size_angstrom
        n = self.density.shape[-1]
        scale = n * self.pixel_size_angstrom / side
        # A tenth of a millionth forgives the rounding of equal pixel sizes.
        radius = min((box - 1) // 2, int(self.transform.radius / scale + 1e-7))
        disc = FourierDisc.of_box(box, radius)
        # Transforms are divided by the square root of the number of their pixels.
        ratio = n / box * (self.pixel_size_angstrom / pixel_size_angstrom) ** 2
        slices = extract_slices(self.transform, pose.rotation, disc, scale)
        shift = pose.shift_angstrom.to(slices.device, torch.float32) / side
        frequency = torch.stack((disc.kx, disc.ky)).to(slices.device)
        turns = 2 * torch.pi * (shift @ frequency)
        moved = slices * torch.polar(torch.full_like(turns, ratio), -turns)
        half = disc.scatter(moved)
        half[:, 0, 0] = ratio * self.density.double().sum() / n
        return fourier_to_image(half, box)
