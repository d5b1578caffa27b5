"""Images that a detector counts, electron by electron.

A counting detector writes one point for each electron, at a place that is wrong by a
little. So what it blurs is the intensity alone, before electrons are counted: with the
modulation transfer function MTF(s), the noise power stays that of the dose at every
frequency, and DQE(s) = MTF(s)^2 (McMullan et al. 2009, Ultramicroscopy). Errors of the
place are taken as Gaussian, ``MTF(s) = exp(-2 pi^2 sigma^2 s^2)``; the sinc of the
pixels themselves, electrons that are missed and those that fall together are not in it.
"""

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.physics.multislice import contrast_per_density
from cryoinfer.records import Optics

_LEAST_UNIFORM = 2.0**-54
"""Half of the smallest step of a uniform number of double precision, for a 0."""


@dataclass(frozen=True)
class CountingDetector:
    """A detector that counts electrons.

    Attributes
    ----------
    dose_per_square_angstrom : float
        Electrons per square angstrom of the specimen, above 0.
    mtf_at_nyquist : float
        Of the images' own Nyquist frequency, above 0 and at most 1, a perfect one.
    """

    dose_per_square_angstrom: float
    mtf_at_nyquist: float = 1.0

    def mtf(self, box: int) -> Tensor:
        """Return the MTF at the frequencies of a half-transform, float64.

        Returns
        -------
        Tensor, shape (box, box // 2 + 1)
            ``m^(s^2 / s_N^2)`` with m at the Nyquist frequency along an axis.
        """
        y = torch.fft.fftfreq(box, dtype=torch.float64)[:, None]
        x = torch.fft.rfftfreq(box, dtype=torch.float64)
        return torch.pow(self.mtf_at_nyquist, 4 * (x * x + y * y))

    def blurred(self, signal: Tensor) -> Tensor:
        """Return images (n, box, box) as electrons are placed: times the MTF."""
        if self.mtf_at_nyquist == 1:
            return signal
        box = signal.shape[-1]
        transfer = self.mtf(box).to(signal)
        return fourier_to_image(image_to_fourier(signal) * transfer, box)

    def expected_counts(self, signal: Tensor, optics: Optics) -> Tensor:
        """Return how many electrons each pixel counts in the mean.

        Parameters
        ----------
        signal : Tensor, shape (n, box, box)
            In 1/angstrom, as images without noise are.
        optics : Optics
            Of the same images.

        Returns
        -------
        Tensor of float64, shape (n, box, box)
            Dose times the pixel's area times ``1 - c signal``, with c as
            :func:`cryoinfer.physics.multislice.contrast_per_density` has it; 0 where
            the signal takes away more than the beam.
        """
        contrast = contrast_per_density(optics.voltage_kv)[:, None, None]
        intensity = 1 - contrast * self.blurred(signal.double())
        return self._dose_per_pixel(optics) * intensity.clamp(min=0)

    def sample(
        self, signal: Tensor, optics: Optics, generator: torch.Generator
    ) -> Tensor:
        """Draw images, in the units of the signal: Poisson counts, scaled back.

        Every pixel takes one uniform number, whose quantile is its count: a rounding
        error of one pixel does not change those after it.

        Parameters
        ----------
        signal : Tensor, shape (n, box, box)
        optics : Optics
        generator : torch.Generator

        Returns
        -------
        Tensor, shape (n, box, box)
            In the dtype of the signal.
        """
        expected = self.expected_counts(signal, optics)
        uniform = torch.rand(expected.shape, generator=generator, dtype=torch.float64)
        at = uniform.clamp(min=_LEAST_UNIFORM).numpy()
        counts = torch.from_numpy(stats.poisson.ppf(at, expected.numpy()))
        intensity = counts / self._dose_per_pixel(optics)
        contrast = contrast_per_density(optics.voltage_kv)[:, None, None]
        return ((1 - intensity) / contrast).to(signal)

    def noise_variance(self, signal: Tensor, optics: Optics) -> Tensor:
        """Return the mean variance of the pixels of each image, float64, (n,)."""
        scale = self._dose_per_pixel(optics) * contrast_per_density(
            optics.voltage_kv
        ).reshape(-1, 1, 1)
        return (self.expected_counts(signal, optics) / scale**2).mean((1, 2))

    def _dose_per_pixel(self, optics: Optics) -> Tensor:
        area = optics.pixel_size_angstrom.double().square()
        return (self.dose_per_square_angstrom * area)[:, None, None]
