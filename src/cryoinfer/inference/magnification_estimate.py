"""Anisotropic magnification from images at known poses, as RELION's CtfRefine has it.

Where an image's coefficients are those of its prediction at ``(1 + D) s``, they differ
from it by ``(D s) . grad P``, to first order. Sums over the images of an optics group,
frequency by frequency, hold all that they say of D::

    A = sum of Re conj(grad P) grad P^T      b = sum of Re conj(grad P) (image - P)

Of the four numbers of D a turn is part of every particle's pose, and a scale is that of
the map, which was made of these images: both are fitted along and left alone. The other
two stretch along one direction as much as they shrink across it (Zivanov, Nakane and
Scheres 2020). References are filtered: how much too weak they are is measured ring by
ring, from the same images.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.inference.filtered_reference import add_products, scale_of_filtered
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents


@dataclass(frozen=True)
class MapGradient:
    """A map and the derivatives of its Fourier transform by the frequency.

    Attributes
    ----------
    projector : MapProjector
    density : Tensor, shape (n, n, n)
        Axes (z, y, x).
    voxel_angstrom : float
    """

    projector: MapProjector
    density: Tensor
    voxel_angstrom: float

    @classmethod
    def of_map(
        cls, density: Tensor, voxel_angstrom: float, radius: int, padding: float
    ) -> Self:
        """Transform a map, shape (n, n, n), axes (z, y, x)."""
        volume = FourierVolume.from_map(density, radius, padding)
        return cls(MapProjector(volume), density, voxel_angstrom)

    @cached_property
    def along(self) -> tuple[FourierVolume, FourierVolume, FourierVolume]:
        """Of the map times x, y and z in angstrom.

        Its transform is the derivative over ``-2 pi i``.
        """
        volume, n = self.projector.volume, self.density.shape[-1]
        axis = torch.arange(n, device=self.density.device) - n // 2
        axis = axis * self.voxel_angstrom
        x, y, z = (
            FourierVolume.from_map(self.density * place, volume.radius, volume.padding)
            for place in (axis, axis[:, None], axis[:, None, None])
        )
        return x, y, z

    def slices(
        self, images: WhitenedImages, rotation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return slices, and their derivatives along x and y of the image, (b, p).

        The derivatives are by the frequency in 1/angstrom.
        """
        plain, x, y, z = (
            extract_slices(volume, rotation, images.disc, images.scale)
            for volume in (self.projector.volume, *self.along)
        )
        by_x, by_y = (
            (row[:, :1] * x + row[:, 1:2] * y + row[:, 2:] * z) * (-2j * math.pi)
            for row in rotation.to(plain.real.dtype)[:, :2].unbind(1)
        )
        return plain, by_x, by_y


@dataclass(frozen=True)
class MagnificationSums:
    """Sums over images of one optics group.

    Attributes
    ----------
    disc : FourierDisc
        Of p coefficients.
    pixel_size_angstrom : float
    sums : Tensor of float64, shape (9, p)
        Products of derivatives (xx, xy, yy); of derivatives and images (x, y); of
        derivatives and predictions (x, y); of images and predictions; and of
        predictions with themselves. Real parts of the first times the conjugate of the
        second; changed in place.
    """

    disc: FourierDisc
    pixel_size_angstrom: float
    sums: Tensor

    @classmethod
    def empty(cls, disc: FourierDisc, pixel_size_angstrom: float) -> Self:
        """Return the sums of no image."""
        zero = torch.zeros(9, len(disc), dtype=torch.float64, device=disc.kx.device)
        return cls(disc, pixel_size_angstrom, zero)

    def add(
        self, images: WhitenedImages, gradient: MapGradient, latents: Latents
    ) -> None:
        """Add images, compared with those of their half's map at their latents."""
        moved = images.at_defocus_offset(latents.defocus_offset_angstrom)
        seen = moved.moved_back(latents.pose.shift_angstrom)
        plain, by_x, by_y = gradient.slices(moved, latents.pose.rotation)
        predicted, along_x, along_y = (moved.ctf * x for x in (plain, by_x, by_y))
        pairs = (
            (along_x, along_x),
            (along_x, along_y),
            (along_y, along_y),
            (seen, along_x),
            (seen, along_y),
            (predicted, along_x),
            (predicted, along_y),
            (seen, predicted),
            (predicted, predicted),
        )
        add_products(self.sums, pairs)


@dataclass(frozen=True)
class MagnificationEstimate:
    """What the images of an optics group say of their magnification.

    Attributes
    ----------
    stretch : Tensor of float64, shape (2,)
        By how much it is larger along x and smaller along y, and the same along the
        diagonals: ``D = [[a, b], [b, -a]]``.
    sd : Tensor of float64, shape (2,)
        The Cramer-Rao bound, turn and scale unknown, poses known.
    """

    stretch: Tensor
    sd: Tensor

    @property
    def matrix(self) -> Tensor:
        """What the magnification is multiplied by from the left, (2, 2)."""
        a, b = self.stretch.tolist()
        change = torch.tensor([[a, b], [b, -a]], dtype=torch.float64)
        return torch.eye(2, dtype=torch.float64) + change


def estimate_magnification(sums: MagnificationSums) -> MagnificationEstimate | None:
    """Return a Gauss-Newton step of the magnification.

    Parameters
    ----------
    sums : MagnificationSums
        Of all images of a group.

    Returns
    -------
    MagnificationEstimate or None
        None where the map shows nothing at these frequencies.
    """
    disc, total = sums.disc, sums.sums.cpu()
    frequencies = disc.frequencies(sums.pixel_size_angstrom, torch.float64)
    x, y = (one.cpu() for one in frequencies)
    xx, xy, yy, seen_x, seen_y, own_x, own_y, cross, power = total
    scale = scale_of_filtered(cross, power, disc.ring.cpu())
    left_x = scale * seen_x - scale.square() * own_x
    left_y = scale * seen_y - scale.square() * own_y
    # The two stretches, the turn and the scale, as displacements of the frequency.
    along_x = torch.stack([x, y, -y, x], 1)
    along_y = torch.stack([-y, x, x, y], 1)
    weight = scale.square()[:, None]
    information = (
        along_x.mT @ (weight * xx[:, None] * along_x)
        + along_y.mT @ (weight * yy[:, None] * along_y)
        + along_x.mT @ (weight * xy[:, None] * along_y)
        + along_y.mT @ (weight * xy[:, None] * along_x)
    )
    gradient = along_x.mT @ left_x + along_y.mT @ left_y
    inverse, problem = torch.linalg.inv_ex(information)
    if int(problem) or not bool(inverse.isfinite().all()):
        return None
    variance = inverse.diagonal()[:2] / 2
    return MagnificationEstimate((inverse @ gradient)[:2], variance.sqrt())
