"""Images of points that move, and how they change with every unknown.

The transform of a point is a wave: its derivative by the place is the wave times the
frequency. So all derivatives, by rotation, shift and amplitudes, are sums of the same
waves with other weights, and one matrix product gives them together.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.physics.structures.waves import images_at_once
from cryoinfer.records import Latents

TURN, SHIFT = slice(0, 3), slice(3, 5)
"""Rows of slopes: rotation vector in the image frame, shift, then the amplitudes."""


@dataclass(frozen=True)
class DiscView:
    """Which Fourier coefficients of images are computed, and in which units.

    Attributes
    ----------
    disc : FourierDisc
    pixel_size_angstrom : float
        Of the images that the disc is of.
    unit : float
        What sums of scattering factors are multiplied by.
    """

    disc: FourierDisc
    pixel_size_angstrom: float
    unit: float

    @property
    def cropped(self) -> tuple[int, float]:
        """The least box that holds the disc over the same area, and its pixel."""
        radius = int(torch.maximum(self.disc.kx.abs(), self.disc.ky.abs()).max())
        box = 2 * (radius + 1)
        return box, self.disc.box * self.pixel_size_angstrom / box

    @property
    def angular_frequency(self) -> Tensor:
        """Along x and y, in radian per angstrom, shape (2, p)."""
        length = self.disc.box * self.pixel_size_angstrom
        return torch.stack([self.disc.kx, self.disc.ky]) * (2 * math.pi / length)


def coefficients(moving: MovingAtoms, latents: Latents, view: DiscView) -> Tensor:
    """Return Fourier coefficients of images without CTF, complex64, shape (n, p).

    Parameters
    ----------
    moving : MovingAtoms
    latents : Latents
        Of n images; defocus is not looked at.
    view : DiscView
    """
    points = _placed(moving, latents)
    one = points.new_ones(1, points.shape[-1])
    return _sums(moving, latents, points, one, view)[:, 0]


def coefficients_and_slopes(
    moving: MovingAtoms, latents: Latents, view: DiscView, tilts: bool = True
) -> tuple[Tensor, Tensor]:
    """Return Fourier coefficients of images and their derivatives.

    Parameters
    ----------
    moving : MovingAtoms
        Of c modes.
    latents : Latents
        Of n images.
    view : DiscView
    tilts : bool
        Whether derivatives by rotations out of the plane are wanted; they are zero
        otherwise.

    Returns
    -------
    values : Tensor of complex64, shape (n, p)
    slopes : Tensor of complex64, shape (n, 5 + c, p)
        Per radian of rotation about the image's x, y and z, and per angstrom of shift
        and amplitudes.
    """
    points = _placed(moving, latents)
    n, _, a = points.shape
    rotation = latents.pose.rotation.to(points)[:, :2]
    modes = torch.einsum("nij,kaj->nkia", rotation, moving.direction.to(points))
    weights = torch.cat(
        [points.new_ones(n, 1, a), points[:, : 3 if tilts else 2], modes.flatten(1, 2)],
        dim=1,
    )
    sums = _sums(moving, latents, points, weights, view)
    first = 4 if tilts else 3
    values, x, y = sums[:, 0], sums[:, 1], sums[:, 2]
    along_x, along_y = view.angular_frequency
    slopes = values.new_zeros(n, 5 + modes.shape[1], len(view.disc))
    if tilts:
        depth = sums[:, 3]
        slopes[:, 0] = -along_y * depth
        slopes[:, 1] = along_x * depth
    slopes[:, 2] = along_y * x - along_x * y
    slopes[:, 3], slopes[:, 4] = along_x * values, along_y * values
    slopes[:, 5:] = along_x * sums[:, first::2] + along_y * sums[:, first + 1 :: 2]
    return values, slopes.mul_(-1j)


def _placed(moving: MovingAtoms, latents: Latents) -> Tensor:
    """Return where points are, turned and not yet shifted, shape (n, 3, a)."""
    points = moving.at(latents.conformation).coordinates_angstrom
    return latents.pose.rotation.to(points) @ points.mT


def _sums(
    moving: MovingAtoms,
    latents: Latents,
    points: Tensor,
    weights: Tensor,
    view: DiscView,
) -> Tensor:
    """Return coefficients of weighted sums of waves, shape (n, w, p)."""
    box, pixel_size = view.cropped
    shift = latents.pose.shift_angstrom.to(points)[:, :, None]
    turns = (points[:, :2] + shift) / (box * pixel_size)
    # The products come in the units of an image of that box.
    unit = view.unit * box * pixel_size**2
    at_once = images_at_once(box, points.shape[-1])
    weights = weights.expand(len(points), -1, -1)
    parts = [
        _of_disc(moving.atoms.products(t, w, box, pixel_size), view.disc) * unit
        for t, w in zip(turns.split(at_once), weights.split(at_once), strict=True)
    ]
    return torch.cat(parts)


def _of_disc(products: Tensor, disc: FourierDisc) -> Tensor:
    """Return the coefficients (n, w, p) of sums of products of tables."""
    k = products.shape[-1]
    quadrants = products.permute(0, 1, 2, 4, 3, 5).flatten(-2)
    place = disc.ky.abs().long() * k + disc.kx.long()
    taken = quadrants[..., place]
    sign = torch.where(disc.ky < 0, -1.0, 1.0).to(taken)
    (cc, cs), (sc, ss) = (part.unbind(2) for part in taken.unbind(2))
    return torch.complex(cc - sign * ss, -(cs + sign * sc))
