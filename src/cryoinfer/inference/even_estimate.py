"""Even aberrations from images at known poses: errors of the phase of the CTF.

Tetrafoil, and an error of Cs, change ``gamma`` of all images of an optics group alike,
by ``-sum of c Z``. A prediction's derivative by a coefficient is that of its CTF by
gamma times ``-Z``, so that sums over images, frequency by frequency, hold all that they
say of the coefficients, as for the magnification. All orders up to the fourth are
fitted, as in RELION's CtfRefine: what defoci and a phase plate's shift, found with
wrong tetrafoil, have taken on of it is of the second and of none.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.inference.filtered_reference import add_products, scale_of_filtered
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.physics.aberrations import EVEN_TERMS
from cryoinfer.physics.ctf import electron_wavelength_angstrom
from cryoinfer.physics.zernike import even_order, zernike
from cryoinfer.records import Latents


@dataclass(frozen=True)
class EvenSums:
    """Sums over images of one optics group.

    Attributes
    ----------
    disc : FourierDisc
        Of p coefficients.
    pixel_size_angstrom : float
    sums : Tensor of float64, shape (5, p)
        Products of derivatives by gamma with themselves, with images, and with
        predictions; of images and predictions; of predictions with themselves. Real
        parts of the first times the conjugate of the second; changed in place.
    """

    disc: FourierDisc
    pixel_size_angstrom: float
    sums: Tensor

    @classmethod
    def empty(cls, disc: FourierDisc, pixel_size_angstrom: float) -> Self:
        """Return the sums of no image."""
        zero = torch.zeros(5, len(disc), dtype=torch.float64, device=disc.kx.device)
        return cls(disc, pixel_size_angstrom, zero)

    def add(
        self, images: WhitenedImages, projector: MapProjector, latents: Latents
    ) -> None:
        """Add images, compared with those of their half's map at their latents."""
        moved, by_defocus = images.with_defocus_offset(latents.defocus_offset_angstrom)
        seen = moved.moved_back(latents.pose.shift_angstrom)
        plain = projector.coefficients(latents, moved)
        predicted = moved.ctf * plain
        # Gamma has the defocus as pi lambda s^2 of it.
        x, y = self._frequencies()
        voltage = images.optics.voltage_kv[:1].double()
        rate = math.pi * electron_wavelength_angstrom(voltage) * (x * x + y * y)
        along = by_defocus / rate.to(by_defocus) * plain
        pairs = (
            (along, along),
            (seen, along),
            (predicted, along),
            (seen, predicted),
            (predicted, predicted),
        )
        add_products(self.sums, pairs)

    def _frequencies(self) -> tuple[Tensor, Tensor]:
        return self.disc.frequencies(self.pixel_size_angstrom, torch.float64)

    def polynomials(self) -> Tensor:
        """Return the even Zernike polynomials at the frequencies, (p, EVEN_TERMS)."""
        x, y = (one.cpu() for one in self._frequencies())
        return _polynomials(x, y)


@dataclass(frozen=True)
class EvenEstimate:
    """What the images of an optics group say of their even aberrations.

    Attributes
    ----------
    change_radian : Tensor of float64, shape (EVEN_TERMS,)
        To be added to ``even_zernike_radian``.
    covariance : Tensor of float64, shape (EVEN_TERMS, EVEN_TERMS)
        The Cramer-Rao bound at given poses and defoci, the map's filter unknown.
    """

    change_radian: Tensor
    covariance: Tensor

    @property
    def sd_radian(self) -> Tensor:
        """Of each coefficient, shape (EVEN_TERMS,)."""
        return self.covariance.diagonal().sqrt()

    def phase_sd_radian(self, frequency: float) -> float:
        """Return the largest sd of the phase on a circle of frequency in 1/A."""
        angle = torch.arange(64, dtype=torch.float64) * (math.pi / 64)
        x, y = frequency * torch.cos(angle), frequency * torch.sin(angle)
        basis = _polynomials(x, y)
        return float(((basis @ self.covariance) * basis).sum(1).max().sqrt())


def estimate_even(sums: EvenSums) -> EvenEstimate | None:
    """Return a Gauss-Newton step of the even aberrations.

    Parameters
    ----------
    sums : EvenSums
        Of all images of a group.

    Returns
    -------
    EvenEstimate or None
        None where the map shows nothing at these frequencies.
    """
    own, seen, predicted, cross, power = sums.sums.cpu()
    ring = sums.disc.ring.cpu()
    scale = scale_of_filtered(cross, power, ring)
    known = (scale > 0) & (own > 0)
    weight = (scale * own.sqrt())[known]
    if len(weight) < EVEN_TERMS:
        return None
    left = (scale * seen - scale.square() * predicted)[known] / weight
    # At frequencies far below 1 the polynomials are nearly the same few constants and
    # parabolas: a QR factorisation bears that, normal equations do not.
    turned, upper = torch.linalg.qr(-sums.polynomials()[known] * weight[:, None])
    # What the filter's share of each ring, which is fitted along, explains as well: at
    # low frequencies it is all but a change of the amplitude contrast.
    along = turned * (scale.square() * predicted)[known, None] / weight[:, None]
    of_ring = along.new_zeros(int(ring.max()) + 1, EVEN_TERMS)
    of_ring.index_add_(0, ring[known], along)
    shown = along.new_zeros(len(of_ring))
    shown.index_add_(0, ring[known], (scale.square() * power)[known])
    of_ring = of_ring / shown.clamp(min=1e-30).sqrt()[:, None]
    told = torch.eye(EVEN_TERMS).double() - of_ring.mT @ of_ring
    inverse, singular = torch.linalg.inv_ex(upper)
    middle, unknown = torch.linalg.inv_ex(told)
    covariance = inverse @ middle @ inverse.mT / 2
    if int(singular) or int(unknown) or not bool((covariance.diagonal() > 0).all()):
        return None
    return EvenEstimate(inverse @ (middle @ (turned.mT @ left)), covariance)


def _polynomials(x: Tensor, y: Tensor) -> Tensor:
    """Return even Zernike polynomials in RELION's order, shape (p, EVEN_TERMS)."""
    return torch.stack([zernike(*even_order(i), x, y) for i in range(EVEN_TERMS)], 1)
