"""Odd aberrations from images at known poses: what phases are left to a map.

A beam tilt, or trefoil, turns the coefficients of all images of an optics group alike,
so that two sums over particles, ``sum of conj(prediction) * image`` and ``sum of
|prediction|^2``, hold all that they say of it. With the phase ``B theta`` the
log-likelihood is ``2 Re sum exp(-i B theta) cross``. Gauss-Newton maximises it, from
low frequencies, where no phase is beyond half a turn, to high ones. The inverse of its
Fisher information ``2 B^T power B`` is the Cramer-Rao bound. Shifts of all images,
which poses that were found with a wrong tilt hold as well, are fitted along (Zivanov,
Nakane and Scheres 2020).
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.physics.aberrations import TREFOIL, coma_radian_angstrom3
from cryoinfer.physics.zernike import odd_order, zernike
from cryoinfer.records import Latents, Optics

_REACHES = (0.4, 0.55, 0.7, 0.85, 1.0)
"""Shares of the largest frequency that are fitted to in turn."""

_STEPS = 4


@dataclass(frozen=True)
class PhaseSums:
    """Sums over images of one optics group.

    Attributes
    ----------
    frequency_x, frequency_y : Tensor of float64, shape (p,)
        In 1/angstrom, sorted by their distance from 0.
    cross : Tensor of complex128, shape (p,)
    power : Tensor of float64, shape (p,)
        Both changed in place.
    optics : Optics
        Of one particle.
    """

    frequency_x: Tensor
    frequency_y: Tensor
    cross: Tensor
    power: Tensor
    optics: Optics

    @classmethod
    def empty(cls, disc: FourierDisc, optics: Optics) -> Self:
        """Return the sums of no image, on the device of the disc.

        Parameters
        ----------
        disc : FourierDisc
        optics : Optics
            Of one particle.
        """
        x, y = disc.frequencies(float(optics.pixel_size_angstrom), torch.float64)
        zero = torch.zeros_like(x)
        return cls(x, y, torch.complex(zero, zero), zero, optics)

    def add(
        self, images: WhitenedImages, projector: MapProjector, latents: Latents
    ) -> None:
        """Add images, compared with those of a map at their latents.

        Parameters
        ----------
        images : WhitenedImages
            Of b particles, with the tilt that their optics have taken out.
        projector : MapProjector
            Of their half-set's map.
        latents : Latents
            Of the same particles.
        """
        moved = images.at_defocus_offset(latents.defocus_offset_angstrom)
        predicted = moved.ctf * projector.coefficients(latents, moved)
        seen = moved.moved_back(latents.pose.shift_angstrom)
        self.cross.add_((seen * predicted.conj()).to(torch.complex128).sum(0))
        self.power.add_(predicted.abs().square().double().sum(0))

    def to_cpu(self) -> Self:
        """Return the sums on the CPU."""
        names = ("frequency_x", "frequency_y", "cross", "power")
        moved = {name: getattr(self, name).cpu() for name in names}
        return replace(self, **moved)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The sums as real numbers, which add up over processes; changed in place."""
        return torch.view_as_real(self.cross), self.power


@dataclass(frozen=True)
class TiltEstimate:
    """A beam tilt, trefoil, and how well they are known.

    Attributes
    ----------
    beam_tilt_mrad : Tensor of float64, shape (2,)
        That of the optics, and what was found beyond it.
    shift_angstrom : Tensor of float64, shape (2,)
        By which all images lie off their predictions.
    sd_mrad : Tensor of float64, shape (2,)
        The Cramer-Rao bound at the estimate, all else unknown that is found.
    trefoil_radian, trefoil_sd_radian : Tensor of float64, shape (2,) or (0,)
        Found beyond that of the optics, coefficients of ``TREFOIL``; none where it is
        not looked for.
    """

    beam_tilt_mrad: Tensor
    shift_angstrom: Tensor
    sd_mrad: Tensor
    trefoil_radian: Tensor
    trefoil_sd_radian: Tensor


def estimate_beam_tilt(sums: PhaseSums, *, trefoil: bool = False) -> TiltEstimate:
    """Return the most likely beam tilt of an optics group.

    Parameters
    ----------
    sums : PhaseSums
        Of all its particles.
    trefoil : bool
        Whether it is looked for as well.

    Raises
    ------
    ValueError
        If Cs is 0: then no tilt shows.
    """
    sums = sums.to_cpu()
    basis = _basis(sums, trefoil)
    if not bool(basis[:, :2].any()):
        raise ValueError("a beam tilt shows by spherical aberration alone, found Cs 0")
    # Columns of like size, so that the equations are well conditioned.
    size = basis.abs().amax(0)
    basis = basis / size
    radius = torch.hypot(sums.frequency_x, sums.frequency_y)
    theta = basis.new_zeros(basis.shape[1])
    for reach in _REACHES:
        inside = radius <= reach * radius.max()
        for _ in range(_STEPS):
            theta = theta + _step(sums, basis, theta, inside)
    information = 2 * basis.mT @ (sums.power[:, None] * basis)
    covariance = torch.linalg.inv(information)
    found, sd = theta / size, covariance.diagonal().sqrt() / size
    return TiltEstimate(
        sums.optics.beam_tilt_mrad[0].double() + found[:2],
        found[2:4],
        sd[:2],
        found[4:],
        sd[4:],
    )


def _step(sums: PhaseSums, basis: Tensor, theta: Tensor, inside: Tensor) -> Tensor:
    """Return a Gauss-Newton step from frequencies inside a radius."""
    own, cross = basis[inside], sums.cross[inside]
    left = cross * torch.exp(-1j * (own @ theta))
    gradient = own.mT @ left.imag
    return torch.linalg.solve(own.mT @ (sums.power[inside][:, None] * own), gradient)


def _basis(sums: PhaseSums, trefoil: bool) -> Tensor:
    """Return the phases of tilts of 1 mrad and of shifts of 1 A along x, y; (p, 4).

    With trefoil also those of its coefficients, (p, 6).
    """
    x, y = sums.frequency_x, sums.frequency_y
    one = replace(sums.optics, beam_tilt_mrad=torch.ones(1, 2, dtype=torch.float64))
    coma = coma_radian_angstrom3(one)[0] * (x * x + y * y)[:, None]
    plane = torch.stack([x, y], 1)
    columns = [coma * plane, -2 * math.pi * plane]
    if trefoil:
        both = [zernike(*odd_order(place), x, y) for place in TREFOIL]
        columns.append(torch.stack(both, 1))
    return torch.cat(columns, 1)
