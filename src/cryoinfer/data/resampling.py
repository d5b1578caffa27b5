"""Images brought to another box and pixel size, with the noise that they then have.

Band-limited interpolation: the Fourier coefficients of an image at the frequencies of
the new area are those of its pixels inside that area, so that one real matrix, applied
along y and along x, crops, pads and changes the pixel size at once. Values are kept,
not sums: a smooth image looks the same on every grid, and its centre stays the pixel
``box // 2``.

The power of white noise in a coefficient then goes with the number of pixels averaged:
``S_new(f) = S_old(f) * (pixel_old / pixel_new)**2`` at the same frequency f in 1/A, for
the power per area is the microscope's. Outside of an image nothing was measured. Zeros
there would make noise that is weaker than its neighbours' and correlated, which a
likelihood takes for information; instead the gap is filled with noise of the image's
own spectrum, which says nothing about a particle that lies inside.
"""

import functools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from cryoinfer.physics.noise import GaussianNoise

_ROUNDING = 1e-3
"""Of half a box in pixels: pixel sizes in files are rounded."""


def band_limited_matrix(old_box: int, box: int, span_px: float) -> Tensor:
    """Return what evaluates rows of pixels at the points of another grid.

    Multiplied along y and x it crops Fourier coefficients to the frequencies below
    Nyquist's of the new grid. It takes half the time of two transforms (256 pixels to
    128, one thread), and boxes may be odd.

    Parameters
    ----------
    old_box, box : int
        Both grids have their centre at ``box // 2``.
    span_px : float
        Old pixels across the new box.

    Returns
    -------
    Tensor of float64, shape (box, old_box)
    """
    old = (torch.arange(old_box, dtype=torch.float64) - old_box // 2) / span_px
    new = torch.arange(box, dtype=torch.float64) - box // 2
    turn = new[:, None] / box - old
    # Dirichlet's kernel: the cosines of all frequencies below Nyquist's. Of period
    # 1, and at its middle 0 over 0, which the ratio of two sinc functions is not.
    turn -= turn.round()
    count = 2 * ((box - 1) // 2) + 1
    return count * torch.sinc(count * turn) / torch.sinc(turn) / span_px


def cropped_map(density: Tensor, box: int) -> Tensor:
    """Return a map of fewer voxels over the same cube, cropped in Fourier space.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
    box : int
        At most n.

    Returns
    -------
    Tensor, shape (box, box, box)
    """
    matrix = band_limited_matrix(len(density), box, float(len(density))).to(density)
    return torch.einsum("az,by,cx,zyx->abc", matrix, matrix, matrix, density)


def even_sized(images: Tensor) -> Tensor:
    """Return images of an even size: odd ones cropped in Fourier space by a pixel.

    The field of view stays, so that the pixel size grows by ``box / (box - 1)``, and
    the centre is the pixel ``box // 2`` before and after. All coefficients below the
    new Nyquist's frequency are kept: those of an odd box but for its last ring, which
    an even one has no phases for.

    Parameters
    ----------
    images : Tensor of float32, shape (b, box, box)

    Returns
    -------
    Tensor of float32, shape (b, box - box % 2, box - box % 2)
        The same tensor where the size is even.
    """
    box = images.shape[-1]
    return cropped_images(images, box - box % 2)


def cropped_images(images: Tensor, box: int) -> Tensor:
    """Return images of fewer pixels over the same area, cropped in Fourier space.

    Parameters
    ----------
    images : Tensor of float32, shape (b, n, n)
    box : int
        At most n.

    Returns
    -------
    Tensor of float32, shape (b, box, box)
        The same tensor where there is nothing to crop.
    """
    if images.shape[-1] == box:
        return images
    matrix = _cropping_matrix(images.shape[-1], box)
    return matrix @ images @ matrix.mT


@functools.lru_cache(maxsize=8)
def _cropping_matrix(old_box: int, box: int) -> Tensor:
    return band_limited_matrix(old_box, box, float(old_box)).float()


@dataclass(frozen=True)
class Resampling:
    """From images of one box and pixel size to those of another area.

    Attributes
    ----------
    old_box, box : int
        Even.
    old_pixel_size_angstrom, pixel_size_angstrom : float
    """

    old_box: int
    box: int
    old_pixel_size_angstrom: float
    pixel_size_angstrom: float

    @classmethod
    def to_area(
        cls, box: int, pixel_size_angstrom: float, length_angstrom: float, most: int
    ) -> Self:
        """Return what covers an area with pixels as fine as the images', or coarser.

        Parameters
        ----------
        box : int
            Of the images.
        pixel_size_angstrom : float
            Of the images.
        length_angstrom : float
            Side of the new area.
        most : int
            Pixels of the new box; fewer where the images' pixels are coarser.
        """
        held = 2 * math.floor(length_angstrom / pixel_size_angstrom / 2 + _ROUNDING)
        new = min(most, held)
        return cls(box, new, pixel_size_angstrom, length_angstrom / new)

    @property
    def is_padded(self) -> bool:
        """Whether the new area reaches beyond the images."""
        return self._span > self.old_box + 2 * _ROUNDING

    def images(
        self, images: Tensor, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Resample images.

        Parameters
        ----------
        images : Tensor of float32, shape (b, old_box, old_box)
        noise : Tensor, shape (rings,)
            Power of a coefficient of these images, for what lies outside of them.
        generator : torch.Generator
            Of that noise.

        Returns
        -------
        Tensor of float32, shape (b, box, box)
        """
        if self.is_padded:
            images = self._filled(images, noise, generator)
        return self._matrix @ images @ self._matrix.mT

    def spectrum(self, noise: Tensor) -> Tensor:
        """Return the noise spectrum of resampled images.

        Parameters
        ----------
        noise : Tensor, shape (rings,)
            Of the images, per ring of theirs.

        Returns
        -------
        Tensor, shape (box // 2 + 1,)
        """
        rings = torch.arange(self.box // 2 + 1, dtype=torch.float64)
        old = rings * (self.old_box / self._span)
        old = old.clamp(max=len(noise) - 1)
        below = old.floor().long().clamp(max=max(0, len(noise) - 2))
        above = (below + 1).clamp(max=len(noise) - 1)
        share = (old - below).clamp(0, 1).to(noise)
        power = noise[below] * (1 - share) + noise[above] * share
        ratio = self.old_pixel_size_angstrom / self.pixel_size_angstrom
        # Pixels that the new area cuts count by what lies inside.
        weight = self._weight(self._wide_box())
        counted = float(weight.square().sum() / self._span)
        return power * (ratio * counted) ** 2

    @property
    def _span(self) -> float:
        """Old pixels across the new area."""
        return self.box * self.pixel_size_angstrom / self.old_pixel_size_angstrom

    def _wide_box(self) -> int:
        """Return the old box, widened until it covers the new area; even."""
        if not self.is_padded:
            return self.old_box
        return 2 * math.ceil(self._span / 2)

    def _weight(self, wide: int) -> Tensor:
        """Return how much of each old pixel the new area holds, shape (wide,)."""
        # The middle of an even box is half a pixel before its centre.
        middle = torch.arange(wide, dtype=torch.float64) - wide // 2 + 0.5
        high = (middle + 0.5).clamp(max=self._span / 2)
        low = (middle - 0.5).clamp(min=-self._span / 2)
        return (high - low).clamp(min=0)

    @cached_property
    def _matrix(self) -> Tensor:
        """What resamples a row, float32, shape (box, wide)."""
        wide = self._wide_box()
        kernel = band_limited_matrix(wide, self.box, self._span)
        return (kernel * self._weight(wide)).float()

    def _filled(
        self, images: Tensor, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return images in the middle of noise, shape (b, wide, wide)."""
        wide = self._wide_box()
        rings = torch.arange(wide // 2 + 1, dtype=torch.float64)
        near = (rings * (self.old_box / wide)).round().long()
        spectrum = noise[near.clamp(max=len(noise) - 1)].float()
        filled = GaussianNoise(spectrum).sample(len(images), wide, generator)
        first = wide // 2 - self.old_box // 2
        inner = slice(first, first + self.old_box)
        filled[:, inner, inner] = images
        return filled
