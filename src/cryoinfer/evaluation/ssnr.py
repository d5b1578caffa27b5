"""Spectral signal-to-noise ratio: power of the signal over that of the noise, by shell.

All estimates here compare the power of what was fitted (a map, an average) with that of
what is left over. Where noise is Gaussian, and white within a shell, their ratio has a
noncentral F distribution (Unser, Trus and Steven 1987, Ultramicroscopy 23, 39-52; for
maps from images Penczek 2002, J. Struct. Biol. 138, 34-46, and Unser et al. 2005, J.
Struct. Biol. 149, 243-255), of which the standard errors are. Two half-maps are the
case of two images: their mean is fitted, their difference is left over.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    inverse_real_fourier_transform_3d,
    real_fourier_transform_3d,
)
from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import shell_sizes, shell_sums
from cryoinfer.fourier.transform import image_to_fourier

_BINS = 8
"""A voxel, of distances: the phase of Nyquist's shell turns once in two voxels."""


@dataclass(frozen=True)
class SpectralSignalToNoise:
    """Ratio of the power of signal and noise, shell by shell.

    Attributes
    ----------
    ratio : Tensor of float64, shape (shells,)
        Scatters about 0 where there is no signal, and can be negative there; infinite
        where nothing is left over.
    standard_error : Tensor of float64, shape (shells,)
        By chance of the noise, for this very signal.
    """

    ratio: Tensor
    standard_error: Tensor

    def times(self, factor: Tensor | float) -> "SpectralSignalToNoise":
        """Return the ratio of what has so many times less noise."""
        return SpectralSignalToNoise(self.ratio * factor, self.standard_error * factor)


def independent_numbers(
    box: int, mask: Tensor | None = None, symmetry_order: int = 1
) -> Tensor:
    """Return how many independent real numbers each shell of a map holds.

    A shell of N coefficients of a real map, ``k`` and ``-k`` both counted, is N real
    numbers. A mask m correlates the noise of coefficients by the transform of ``m^2``.
    Their products scatter as those of ``sum w / sum w A^2`` numbers, where w(r) is the
    autocorrelation of ``m^2`` and A(r) the mean of ``exp(2 pi i k r / box)`` over the
    shell, here that of a round one: ``sinc(2 s r / box) sinc(r / box)``.

    Parameters
    ----------
    box : int
    mask : Tensor, shape (box, box, box), optional
    symmetry_order : int
        Number of rotations of the point group that was imposed on the map.

    Returns
    -------
    Tensor of float64, shape (box // 2 + 1,)
        At least 1.
    """
    count = shell_sizes(box)
    if mask is not None and bool((mask != mask.flatten()[0]).any()):
        count = torch.minimum(count, _within(mask.double()).cpu())
    return (count / symmetry_order).clamp(min=1.0)


def _within(mask: Tensor) -> Tensor:
    """Return the numbers of shells of noise under a mask."""
    box = len(mask)
    power = real_fourier_transform_3d(mask.square()).abs().square()
    shared = inverse_real_fourier_transform_3d(power, box).clamp(min=0.0)
    line = torch.fft.fftfreq(box, 1 / box, dtype=torch.float64, device=mask.device)
    distance = (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).sqrt()
    # By distance: every shell asks for the same sums.
    bins = (distance * _BINS).round_().long().flatten()
    weight = torch.bincount(bins, shared.flatten())
    r = torch.arange(len(weight), dtype=torch.float64, device=mask.device) / _BINS / box
    shell = torch.arange(box // 2 + 1, dtype=torch.float64, device=mask.device)
    mean = torch.sinc(2 * shell[:, None] * r) * torch.sinc(r)
    return weight.sum() / (mean.square() @ weight)


def ssnr_from_fsc(
    fsc: Tensor, n_independent: Tensor, joined: bool = True
) -> SpectralSignalToNoise:
    """Return the ratio of a map from the correlation of its half-maps.

    ``2 FSC / (1 - FSC)`` of the mean of both halves, ``FSC / (1 - FSC)`` of one half.
    The standard error of the first is ``sqrt((4 + 8 R + 2 R^2) / n)``, for a ratio R
    and n independent numbers, and the bias ``2 (1 + R) / (n - 2)``. For the bounded
    ratio of a Wiener filter see
    :func:`cryoinfer.reconstruction.backproject.signal_to_noise`.

    Parameters
    ----------
    fsc : Tensor, shape (shells,)
        Of independent half-maps, in [-1, 1].
    n_independent : Tensor, shape (shells,)
        From :func:`independent_numbers`.
    joined : bool
        Whether the ratio is that of both halves together.

    Returns
    -------
    SpectralSignalToNoise
    """
    correlation, count = fsc.double(), n_independent.to(fsc.device)
    ratio = 2.0 * correlation / (1.0 - correlation)
    positive = ratio.clamp(min=0.0)
    error = torch.sqrt((2 + 4 * positive + 2 * (1 + positive).square()) / count)
    found = SpectralSignalToNoise(ratio, error)
    return found if joined else found.times(0.5)


def ssnr_of_images(
    images: Tensor, predicted: Tensor, n_fitted: Tensor | None = None
) -> SpectralSignalToNoise:
    """Return the ratio of images, ring by ring, from what a map predicts of them.

    With m real numbers in a ring of all images together, and p that were fitted to
    them, what is left over has the power ``P = sum |X - A|^2 / (m - p)`` a number, and
    the ratio is ``(sum |A|^2 - p P) / (m P)``. Times ``m / p`` it is that of the map
    or average itself. Its bias is ``(ratio + p / m) 2 / (m - p - 2)``.

    Parameters
    ----------
    images : Tensor, shape (b, n, n)
        Unmasked; noise white within a ring.
    predicted : Tensor, shape (b, n, n)
        Projections at the images' poses, with their CTF, of a map that was fitted to
        the same images by least squares and not filtered: for images of one view,
        their mean. Or of a map without noise of its own.
    n_fitted : Tensor, shape (n // 2 + 1,), optional
        Real numbers of the map in each ring that the images determine: for images of
        one view, :func:`ring_sizes`. None for a map that was not made from them.

    Returns
    -------
    SpectralSignalToNoise
        By ring ``round(|k|)``.

    Raises
    ------
    InputError
        If images and predictions are not of one size, or too few for what was fitted.
    """
    box = images.shape[-1]
    if images.shape != predicted.shape or images.shape[1:] != (box, box):
        raise InputError(
            "expected square images and as many predictions of the same size, found "
            f"shapes {tuple(images.shape)} and {tuple(predicted.shape)}"
        )
    m = ring_sizes(box).to(images.device) * len(images)
    p = torch.zeros_like(m) if n_fitted is None else n_fitted.to(m)
    if bool((p >= m).any()):
        raise InputError(
            f"{len(images)} images are too few for what was fitted to them: nothing is "
            "left over to tell the noise by"
        )
    noise = _ring_power(images.double() - predicted.double()) / (m - p)
    signal = _ring_power(predicted.double()) / noise - p
    ratio, positive = signal / m, signal.clamp(min=0.0)
    # The noise of a map that was made from other images is not in these.
    of_fit = torch.where(p > 0, 2 * p + 4 * positive, 0.0)
    error = torch.sqrt(of_fit + 2 * (p + positive).square() / (m - p)) / m
    return SpectralSignalToNoise(ratio, error)


def ring_sizes(box: int) -> Tensor:
    """Return how many real numbers each ring ``round(|k|)`` of an image holds.

    Returns
    -------
    Tensor of float64, shape (box // 2 + 1,)
    """
    return _ring_sums(torch.ones(box, box // 2 + 1, dtype=torch.float64))


def _ring_power(images: Tensor) -> Tensor:
    """Return the power of all images together; of white noise it is 1 a number."""
    return _ring_sums(image_to_fourier(images).abs().square().sum(0))


def _ring_sums(values: Tensor) -> Tensor:
    """Return the sums over the rings of a whole transform, from its half."""
    box, count = values.shape
    line = torch.fft.fftfreq(box, 1 / box, dtype=torch.float64, device=values.device)
    along = torch.arange(count, dtype=torch.float64, device=values.device)
    ring = torch.hypot(line[:, None], along).round_().long()
    return shell_sums(values, ring)
