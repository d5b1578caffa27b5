"""What an encoder is shown of an image: a small picture, and what blurred it.

The picture has two channels: the coefficients as they are, and multiplied by their
CTF, which turns phases the right way round. Both come as small real images, cropped in
Fourier space, of unit power. What that hides, the noise and the CTF, goes along as
numbers: one encoder serves every defocus and every optics group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.inference.whitening import WhitenedImages

_TINY = 1e-12


@dataclass(frozen=True)
class EncoderInputs:
    """Of b images.

    Attributes
    ----------
    picture : Tensor of float32, shape (b, 2, side, side)
        As recorded, and multiplied by the CTF; unit power each.
    features : Tensor of float32, shape (b, feature_count(side))
        The CTF over the noise, a number a ring, and the log power of the image.
    """

    picture: Tensor
    features: Tensor


def picture_radius(side: int) -> int:
    """Return the largest Fourier radius, in pixels, of a picture."""
    return side // 2 - 1


def feature_count(side: int) -> int:
    """Return how many numbers go with a picture."""
    return picture_radius(side) + 1


def encoder_inputs(images: WhitenedImages, side: int) -> EncoderInputs:
    """Return what an encoder is shown of whitened images.

    Parameters
    ----------
    images : WhitenedImages
        Of ``picture_radius(side)`` or more, over the reference's area: scale 1.
    side : int
        Of the picture in pixels, even.

    Raises
    ------
    ValueError
        If the images reach less far than the picture.
    """
    disc = FourierDisc.of_box(side, picture_radius(side))
    p = len(disc)
    if images.coefficients.shape[1] < p:
        raise ValueError(
            f"a picture of {side} pixels takes {p} coefficients of each image, got "
            f"{images.coefficients.shape[1]}: whiten to a larger radius"
        )
    seen, ctf = images.coefficients[:, :p], images.ctf[:, :p]
    power = seen.abs().square().mean(1, keepdim=True)
    matched = seen * ctf
    matched = matched / (_rms(matched) + _TINY)
    channels = torch.stack([seen / (power.sqrt() + _TINY), matched], 1)
    half = disc.scatter(channels * disc.centring)
    picture = torch.fft.irfft2(half, s=(side, side), norm="ortho")
    ring = disc.ring.clamp(max=picture_radius(side)) - 1
    profile = ctf.new_zeros(len(ctf), picture_radius(side)).index_add_(1, ring, ctf)
    profile = profile / torch.bincount(ring, minlength=picture_radius(side))
    # Contrasts of noiseless images are enormous: only their order matters.
    features = torch.cat(
        [torch.asinh(profile / _UNIT_CONTRAST), (power + _TINY).log()], 1
    )
    return EncoderInputs(picture, features)


_UNIT_CONTRAST = 1e-2


def _rms(values: Tensor) -> Tensor:
    return values.abs().square().mean(1, keepdim=True).sqrt()
