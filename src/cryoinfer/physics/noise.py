"""Stationary Gaussian noise: sampling, likelihood and estimation of its spectrum.

A spectrum holds the expected power ``E|F|^2`` of one orthonormal Fourier
coefficient for each ring, that is for each distance from the origin rounded to
whole Fourier pixels. White noise of variance v has the spectrum v everywhere.
Frequencies beyond the last ring, the corners of Fourier space, have its value.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier

_MASK_EDGE_PX = 4.0
_LEAST_BACKGROUND = 0.01  # of the area; less than this says nothing about the noise
_IMAGES_AT_ONCE = 256


@dataclass(frozen=True)
class GaussianNoise:
    """Gaussian noise that is independent from one Fourier coefficient to the next.

    Attributes
    ----------
    spectrum : Tensor, shape (rings,)
        Power of one Fourier coefficient for ring 0, 1, ...; positive.
    """

    spectrum: Tensor

    @classmethod
    def white(cls, variance: float, box: int) -> "GaussianNoise":
        """Return white noise of the given pixel variance for images of size box."""
        return cls(torch.full((box // 2 + 1,), variance, dtype=torch.float32))

    def pixel_variance(self, box: int) -> float:
        """Return the variance of a pixel: the mean of the spectrum over the plane."""
        variance = self._at_rings(_half_plane_rings(box)).double()
        return float((_multiplicity(box) * variance).sum()) / box**2

    def sample(self, n: int, box: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` independent images of noise.

        White noise is filtered with the square root of the spectrum.

        Returns
        -------
        Tensor, shape (n, box, box)
            In the dtype of the spectrum, on the device of the generator.
        """
        white = torch.randn(
            (n, box, box),
            generator=generator,
            dtype=self.spectrum.dtype,
            device=generator.device,
        )
        ring = _half_plane_rings(box).to(white.device)
        return fourier_to_image(
            image_to_fourier(white) * self._at_rings(ring).sqrt(), box
        )

    def log_prob(self, residuals: Tensor) -> Tensor:
        """Return the log density of images that hold nothing but noise.

        ``-1/2 sum_k (|F(k)|^2 / v(k) + log(2 pi v(k)))`` over the whole plane: the
        half-plane stands for both k and -k, but for the columns that are their own
        mirror images (x = 0, and x = box / 2 in an even box).

        Parameters
        ----------
        residuals : Tensor, shape (..., box, box)

        Returns
        -------
        Tensor, shape (...)
            In nats.
        """
        box = residuals.shape[-1]
        variance = self._at_rings(_half_plane_rings(box).to(residuals.device))
        multiplicity = _multiplicity(box).to(variance)
        power = image_to_fourier(residuals).abs().square()
        chi_square = (power * (multiplicity / variance)).sum((-2, -1))
        log_volume = (multiplicity * torch.log(2 * torch.pi * variance)).sum()
        return -0.5 * (chi_square + log_volume)

    def _at_rings(self, ring: Tensor) -> Tensor:
        spectrum = self.spectrum.to(ring.device)
        return spectrum[ring.clamp(max=spectrum.shape[0] - 1)]


def radial_power(
    coefficients: Tensor, disc: FourierDisc, weight: Tensor | None = None
) -> Tensor:
    """Average the power of Fourier coefficients over each ring.

    Parameters
    ----------
    coefficients : Tensor, complex, shape (..., p)
        In the order of the disc.
    disc : FourierDisc
    weight : Tensor, shape (..., p), optional
        Of each coefficient in the mean; by default all count alike.

    Returns
    -------
    Tensor, shape (rings,)
        Mean of ``|.|^2`` over the ring and all leading dimensions, for ring 0 to
        the last of the disc. A disc leaves out the origin: ring 0 repeats ring 1,
        so that the result is a valid noise spectrum.
    """
    rows = coefficients.reshape(-1, coefficients.shape[-1])
    if weight is None:
        power = torch.linalg.vector_norm(rows, dim=0).square() / rows.shape[0]
        share = torch.ones_like(power)
    else:
        weights = weight.reshape(rows.shape)
        power = (weights * rows.abs().square()).mean(0)
        share = weights.mean(0)
    rings = int(disc.ring.max()) + 1
    ring = disc.ring.to(power.device)
    total = power.new_zeros(rings).index_add_(0, ring, power)
    count = power.new_zeros(rings).index_add_(0, ring, share)
    mean = total / count.where(count > 0, 1.0)
    mean[0] = mean[1]
    return mean


def estimate_background_spectrum(
    images: Tensor, particle_radius_px: float, passed: Tensor | None = None
) -> Tensor:
    """Estimate the noise spectrum from the pixels around the particles.

    The particle is masked away with a soft edge, the mean of what is left is
    subtracted, and the power is divided by what white noise of variance 1 would have
    after that: where nothing has filtered it, the mean square of the mask. The mask
    blurs the spectrum over about ``box / (box - 2 * radius)`` rings; neighbouring rings
    are averaged (1, 2, 1) on top, since noise spectra are smooth and inner rings have
    few coefficients.

    Parameters
    ----------
    images : Tensor, shape (n, box, box)
    particle_radius_px : float
        No particle reaches further from the image centre than this.
    passed : Tensor, shape (box, box // 2 + 1), optional
        Share of the power of the noise that a filter has left of each coefficient, the
        mean over the images; by default all of it.

    Returns
    -------
    Tensor, shape (box // 2 + 1,)
        Power of one Fourier coefficient for ring 0 to ``box // 2``; that of an even
        box at Nyquist, where no disc reaches, repeats the ring before.

    Raises
    ------
    InputError
        If the particle fills the box.
    """
    box = images.shape[-1]
    mask = _background_mask(box, particle_radius_px).to(images)
    if mask.mean() < _LEAST_BACKGROUND:
        raise InputError(
            f"The noise is measured around the particle, but a radius of "
            f"{particle_radius_px:g} pixels leaves {float(mask.mean()):.1%} of a box "
            f"of {box}: use a larger box or a smaller particle diameter."
        )
    disc = FourierDisc.of_box(box, (box - 1) // 2)
    total = torch.zeros((box - 1) // 2 + 1, dtype=torch.float64)
    for part in torch.split(images, _IMAGES_AT_ONCE):
        mean = (part * mask).mean((-2, -1), keepdim=True) / mask.mean()
        background = disc.gather(image_to_fourier((part - mean) * mask))
        total += part.shape[0] * radial_power(background, disc).double().cpu()
    white = mask.double().square().mean().cpu()
    if passed is not None:
        white = _masked_power(passed.double().cpu(), mask.double().cpu(), disc)
    power = total / (images.shape[0] * white)
    padded = torch.cat((power[:1], power, power[-1:]))
    smooth = (padded[:-2] + 2 * power + padded[2:]) / 4
    nyquist = smooth[-1:] if box % 2 == 0 else smooth[:0]
    return torch.cat((smooth, nyquist)).to(images)


def _masked_power(passed: Tensor, mask: Tensor, disc: FourierDisc) -> Tensor:
    """Return the power of filtered white noise behind a mask, by ring, (rings,).

    The power spectrum of the filter convolved with that of the mask: a product of
    their autocorrelations.
    """
    box = mask.shape[-1]
    of_mask = torch.fft.irfft2(torch.fft.rfft2(mask).abs().square(), (box, box))
    of_filter = torch.fft.irfft2(passed, (box, box))
    power = torch.fft.rfft2(of_mask * of_filter).real / box**2
    return radial_power(disc.gather(power).clamp(min=0).sqrt()[None], disc)


def _background_mask(box: int, radius_px: float) -> Tensor:
    """Return 0 within the radius, 1 beyond a cosine edge around it, (box, box)."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    distance = torch.hypot(axis[:, None], axis[None, :])
    step = ((distance - radius_px) / _MASK_EDGE_PX).clamp(0, 1)
    return (1 - torch.cos(torch.pi * step)) / 2


def _half_plane_rings(box: int) -> Tensor:
    """Return the ring of every coefficient of a half-transform, (box, box // 2 + 1)."""
    rows = torch.fft.fftfreq(box, 1 / box)[:, None]
    columns = torch.arange(box // 2 + 1)[None]
    return torch.hypot(rows, columns.to(rows.dtype)).round().long()


def _multiplicity(box: int) -> Tensor:
    """Return how many coefficients each column of a half-transform stands for."""
    column = torch.arange(box // 2 + 1)
    alone = (column == 0) | (2 * column == box)
    return torch.where(alone, 1.0, 2.0)
