"""How particles were recorded, as far as their images show it.

Optics groups of different data sets bear the same numbers. What an encoder knows of a
group, its noise and the units of its images, holds for particles of the same kind only.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    reproducible_mean,
    reproducible_sum,
    robust_deviation,
)
from cryoinfer.data.particles import Particles
from cryoinfer.inference.whitening import WhitenedImages, is_finite

_LOOKED_AT = 200
"""Images whose corners are looked at: their noise is known to a percent or better."""

_FEWEST = 50
"""Images whose corners say something: levels differ between micrographs."""

_LIKE = 1.2
"""Ratio of variances up to which noise is the same: that of levels is 1.1."""

_LIKE_KV = 1.0

_STRONG = 2.0
"""Variance of an image over that of most: beyond it a hot pixel, or no particle."""

_STRONG_AT_LOW_RADIUS = 5.0
"""Standard deviations among images by which power at a low radius may exceed that of
most. Defocus and view change it too, without noise by factors: the deviation is that of
the images themselves."""

_FEWEST_TO_COMPARE = 20
_STRONG_AMONG_FEW = 4.0
"""Power over that of most, among images too few to tell how much they differ."""


@dataclass(frozen=True)
class AcquisitionStatistics:
    """How the particles of an optics group were recorded.

    Attributes
    ----------
    voltage_kv : float
    has_ctf : bool
        Whether a CTF is stated.
    corner_variance : float or None
        Of the pixels outside the circle that fits into the image; None if there were
        too few images.
    """

    voltage_kv: float
    has_ctf: bool
    corner_variance: float | None

    @classmethod
    def of(
        cls, particles: Particles, rows: Tensor, generator: torch.Generator
    ) -> Self | None:
        """Look at some particles of one optics group and box.

        Parameters
        ----------
        particles : Particles
        rows : Tensor of int64
            Which they are; a sample of them is read.
        generator : torch.Generator
            Of the sample.

        Returns
        -------
        AcquisitionStatistics or None
            None if none of the images is finite.
        """
        chosen = rows[torch.randperm(len(rows), generator=generator)[:_LOOKED_AT]]
        batch = particles.batch(chosen.sort().values)
        images = batch.images[is_finite(batch.images)]
        if not len(images):
            return None
        images = images[is_usual(images)]
        box = images.shape[-1]
        axis = torch.arange(box) - box // 2
        outside = axis[:, None] ** 2 + axis**2 > (box / 2) ** 2
        variance = None
        if len(images) >= _FEWEST:
            around = images[:, outside].double()
            apart = around - reproducible_mean(around)
            variance = float(reproducible_sum(apart.square())) / (apart.numel() - 1)
        return cls(float(batch.optics.voltage_kv[0]), particles.has_ctf, variance)

    def differences(self, learned: "AcquisitionStatistics") -> list[str]:
        """Say in what these images differ from those that were learned."""
        said = []
        if abs(self.voltage_kv - learned.voltage_kv) > _LIKE_KV:
            said.append(
                f"{self.voltage_kv:g} kV in the place of {learned.voltage_kv:g} kV"
            )
        if self.has_ctf != learned.has_ctf:
            words = "no CTF", "a CTF"
            said.append(
                f"{words[self.has_ctf]} in the place of {words[learned.has_ctf]}"
            )
        found, before = self.corner_variance, learned.corner_variance
        if found is None or before is None:
            return said
        if not before / _LIKE <= found <= before * _LIKE:
            times = math.sqrt(found / before) if before > 0 else math.inf
            said.append(f"noise {times:.3g} times as strong")
        return said


def is_usual_power(images: WhitenedImages) -> Tensor:
    """Tell which whitened images are no stronger than most, shape (b,).

    At low radii the edge of a support film, or an ice crystal, has two to tens of times
    the power of other images: a few of them would be all that a map shows.

    Parameters
    ----------
    images : WhitenedImages
        Of b particles, to a low radius.
    """
    power = images.coefficients.abs().square().mean(1)
    usual = power.median()
    if len(power) < _FEWEST_TO_COMPARE:
        return power <= _STRONG_AMONG_FEW * usual
    return power <= usual + _STRONG_AT_LOW_RADIUS * robust_deviation(power)


def is_usual(images: Tensor) -> Tensor:
    """Tell which of some finite images are no stronger than twice most, shape (b,).

    A mean over images would show one hot pixel of 200 standard deviations as noise of
    all of them.
    """
    variance = images.double().var((-2, -1))
    return variance <= _STRONG * variance.median()
