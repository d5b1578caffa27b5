"""Which particles go into which shard, and what is done to their images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cryoinfer.data import shards
from cryoinfer.data.normalising import Background, Normalised, normalised
from cryoinfer.data.particles import Particles
from cryoinfer.data.resampling import cropped_images
from cryoinfer.errors import InputError
from cryoinfer.io.mrc_header import HEADER_BYTES
from cryoinfer.records import Optics

USUAL_MEMORY_BYTES = 250_000_000

_SHARD_BYTES = 2_000_000_000
"""At most, but for its header: a few files to copy, none too long to do again."""

_CIRCLE = 0.75
"""Diameter of the particle over the box, as everywhere where none is given."""


@dataclass(frozen=True)
class PreparationConfig:
    """What particles are to be prepared for.

    Attributes
    ----------
    box : int or None
        To crop to; None keeps that of the images.
    resolution_angstrom : float or None
        That is to be kept, in place of a box.
    particle_diameter_angstrom : float or None
        The noise is measured around it; None for three quarters of the box.
    memory_bytes : int
        For images. Changes nothing but the speed.
    """

    box: int | None = None
    resolution_angstrom: float | None = None
    particle_diameter_angstrom: float | None = None
    memory_bytes: int = USUAL_MEMORY_BYTES

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, in values that JSON knows."""
        return {
            "box": self.box,
            "resolution_angstrom": self.resolution_angstrom,
            "particle_diameter_angstrom": self.particle_diameter_angstrom,
            "shard_bytes": _SHARD_BYTES,
        }


@dataclass(frozen=True)
class Crop:
    """From images of one box and pixel size to smaller ones of the same area.

    Attributes
    ----------
    old_box, box : int
    old_pixel_size_angstrom : float
    diameter_angstrom : float
        Of the particle.
    """

    old_box: int
    box: int
    old_pixel_size_angstrom: float
    diameter_angstrom: float

    @property
    def pixel_size_angstrom(self) -> float:
        """Of the cropped images."""
        return self.old_pixel_size_angstrom * self.old_box / self.box

    def images(self, raw: Tensor, optics: Optics) -> Normalised:
        """Crop and normalise images, and multiply by their CTF those that were before.

        Fourier coefficients from Nyquist's frequency of the new box on are left out.

        Parameters
        ----------
        raw : Tensor of float32, shape (b, old_box, old_box)
            Without their CTF.
        optics : Optics
            Of the same particles.
        """
        made = cropped_images(raw, self.box)
        optics = optics.with_pixel_size(self.pixel_size_angstrom)
        return normalised(made, raw, self._background, self._old_background, optics)

    @cached_property
    def _background(self) -> Background:
        radius = self.diameter_angstrom / 2 / self.pixel_size_angstrom
        return Background.of(self.box, radius)

    @cached_property
    def _old_background(self) -> Background:
        radius = self.diameter_angstrom / 2 / self.old_pixel_size_angstrom
        return Background.of(self.old_box, radius)


@dataclass(frozen=True)
class PlannedShard:
    """Images that go into one file.

    Attributes
    ----------
    name : str
    crop : Crop
    rows : Tensor of int64
        Of the particles' file, ascending.
    """

    name: str
    crop: Crop
    rows: Tensor

    @property
    def bytes(self) -> int:
        """Of the file."""
        return HEADER_BYTES + len(self.rows) * self.crop.box**2 * 2


def plan_shards(
    particles: Particles, config: PreparationConfig
) -> tuple[PlannedShard, ...]:
    """Return which images go where: those of a box and pixel size together.

    Raises
    ------
    InputError
        If the images cannot be cropped as is asked.
    """
    planned: list[PlannedShard] = []
    for box, pixel_size, rows in kinds_of(particles):
        crop = _crop(box, pixel_size, config)
        for part in rows.split(max(1, _SHARD_BYTES // (2 * crop.box**2))):
            name = shards.SHARD.format(len(planned) + 1)
            planned.append(PlannedShard(name, crop, part))
    return tuple(planned)


def kinds_of(particles: Particles) -> Iterator[tuple[int, float, Tensor]]:
    """Yield box, pixel size in angstrom and rows of all images that share both."""
    kinds = torch.stack(
        [particles.boxes.double(), particles.optics.pixel_size_angstrom], 1
    )
    distinct, kind = kinds.unique(dim=0, return_inverse=True)
    for number, (box, pixel_size) in enumerate(distinct.tolist()):
        yield int(box), pixel_size, torch.nonzero(kind == number).squeeze(1)


def _crop(box: int, pixel_size: float, config: PreparationConfig) -> Crop:
    """Return what is done to images of a kind.

    Raises
    ------
    InputError
    """
    side, new = box * pixel_size, config.box or box
    if config.resolution_angstrom is not None:
        if not 2 * pixel_size <= config.resolution_angstrom <= side:
            raise InputError(
                f"--resolution must lie between {2 * pixel_size:.4g} and {side:.4g} A "
                f"for images of {box} pixels of {pixel_size:.4g} A, found "
                f"{config.resolution_angstrom:g}."
            )
        new = min(new, _box_that_holds(side / config.resolution_angstrom))
    if new > box or new % 2:
        raise InputError(
            f"--box must be an even number up to the {box} pixels of the images, which "
            f"are cropped and never padded, found {new}."
        )
    diameter = config.particle_diameter_angstrom or _CIRCLE * side
    least = 2 * side / new
    if not least <= diameter <= side:
        raise InputError(
            f"--particle-diameter must lie between {least:.4g} and {side:.4g} A for "
            f"images of {new} pixels of {side / new:.4g} A, found {diameter:g}."
        )
    return Crop(box, new, pixel_size, diameter)


def _box_that_holds(radius_px: float) -> int:
    """Return the even box with fast transforms whose last full ring is at a radius."""
    box = 2 * (math.ceil(radius_px - 1e-6) + 1)
    while _without(box, 2, 3, 5) > 1:
        box += 2
    return box


def _without(number: int, *factors: int) -> int:
    for factor in factors:
        while number % factor == 0:
            number //= factor
    return number
