"""Images whose background has mean 0 and standard deviation 1, as RELION has them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.physics.premultiplied import multiplied_by_ctf
from cryoinfer.records import Optics

LARGEST = 65504.0
"""Of a float16."""

_LEAST_BACKGROUND = 0.01  # of the area; less says nothing about the noise
_SUSPICIOUS = 1e-4
"""Ratio of background and image, below which a background may be constant."""


@dataclass(frozen=True)
class Normalised:
    """Images on one scale, in float16.

    Attributes
    ----------
    images : Tensor of float16, shape (b, n, n)
    unreadable, flat, clipped : Tensor of bool, shape (b,)
        Which hold values that are no number, and are not used; are constant around
        the particle, and are not scaled; hold values beyond float16, which are set to
        its largest.
    """

    images: Tensor
    unreadable: Tensor
    flat: Tensor
    clipped: Tensor


@dataclass(frozen=True)
class Background:
    """What lies outside of a circle around the centre of images.

    Attributes
    ----------
    outside : Tensor of bool, shape (n, n)
    """

    outside: Tensor

    @classmethod
    def of(cls, box: int, radius_px: float) -> "Background":
        """Return the background of images whose particle lies within a radius.

        Raises
        ------
        InputError
            If the circle leaves next to nothing.
        """
        axis = torch.arange(box, dtype=torch.float64) - box // 2
        outside = torch.hypot(axis[:, None], axis[None, :]) > radius_px
        if outside.double().mean() < _LEAST_BACKGROUND:
            raise InputError(
                f"The noise is measured around the particle, but a radius of "
                f"{radius_px:.4g} pixels leaves less than {_LEAST_BACKGROUND:.0%} of a "
                f"box of {box}: use a larger box or a smaller particle diameter."
            )
        return cls(outside)

    def statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, float64, each of shape (b,).

        Of images (b, n, n); sums of rows come first, whose order no number of threads
        changes.
        """
        weight = self.outside.double()
        count = float(weight.sum())
        kept = torch.where(self.outside, images.double(), 0.0)
        mean = kept.sum(-1).sum(-1) / count
        left = (kept - mean[:, None, None]) * weight
        return mean, (left.square().sum(-1).sum(-1) / count).sqrt()

    def is_constant(self, images: Tensor) -> Tensor:
        """Tell of images (b, n, n) which have one value here, shape (b,)."""
        values = images[:, self.outside]
        return values.amin(1) == values.amax(1)


def normalised(
    images: Tensor, raw: Tensor, here: Background, there: Background, optics: Optics
) -> Normalised:
    """Return images on the scale of their own noise.

    Parameters
    ----------
    images : Tensor of float32, shape (b, n, n)
    raw : Tensor of float32, shape (b, m, m)
        What they were made from. A background that is constant there is known
        exactly: what cropping made of it is rounding, by which none may divide.
    here, there : Background
        Of images, and of what they were made from.
    optics : Optics
        Of images. Those that were multiplied by their CTF are so in the end: the noise
        around the particle is told without it.
    """
    # One pixel that is no number makes all that is cropped none.
    unreadable = ~images.flatten(1).isfinite().all(1)
    mean, deviation = here.statistics(images)
    rms = images.double().square().sum(-1).sum(-1).div(images[0].numel()).sqrt()
    flat = torch.zeros_like(unreadable)
    for i in torch.nonzero(~(deviation > _SUSPICIOUS * rms) & ~unreadable).flatten():
        flat[i] = there.is_constant(raw[i][None])[0]
    scale = torch.where(flat | unreadable, 1.0, deviation)
    # In single precision: the last digit of a float16 is 8,000 times as large.
    scaled = (images - mean.float()[:, None, None]) / scale.float()[:, None, None]
    scaled = multiplied_by_ctf(scaled, optics)
    scaled = torch.where(unreadable[:, None, None], torch.nan, scaled)
    clipped = (scaled.abs() > LARGEST).flatten(1).any(1)
    return Normalised(scaled.clamp(-LARGEST, LARGEST).half(), unreadable, flat, clipped)
