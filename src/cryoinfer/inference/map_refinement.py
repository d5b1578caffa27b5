"""The fused local refinement of a map's poses, compiled (CPU), and its sums.

The residual is linear in the slice and the slice has analytic derivatives, so a few
steps reach the mode, and the normal equations there are the inverse covariance of the
Laplace posterior.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference import refinement_kernel
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.prior import PosePrior, departure_from_prior
from cryoinfer.inference.projector import NormalEquations, images_at_defocus
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.physics.ctf import electron_wavelength_angstrom
from cryoinfer.records import Latents, Pose

_DEFOCUS_UNIT_ANGSTROM = 100.0
"""Unit of the defocus in the normal equations, which makes them well scaled."""

_NEGLIGIBLE_NATS = 0.1
"""Gain of a step that is taken without another look at the image: half a standard
deviation, where the posterior is Gaussian, and as little as the rounding of two sums
of thousands of squares can tell apart."""

_FIRST_DAMPING = 1e-4

_UPPER_TRIANGLE = tuple(itertools.combinations_with_replacement(range(6), 2))


def equations_compiled(
    volume: FourierVolume, images: WhitenedImages, latents: Latents, prior: PosePrior
) -> NormalEquations:
    """Return the likelihood and its derivatives at latents of n images."""
    # A refinement of no steps.
    stay = _Pace.first(len(latents), 0)
    return _run(volume, images, latents.double(), prior, stay)[1]


def refine_compiled(
    volume: FourierVolume,
    images: WhitenedImages,
    start: Latents,
    prior: PosePrior,
    steps: int,
    max_rotation_radian: float,
) -> PosteriorModes:
    """Refine the latents of every image to the nearest mode of its posterior.

    As :func:`cryoinfer.inference.local_refinement.refine_locally`. A step that promises
    less than a tenth of a nat is taken on trust and is the last. The CTF is linear in
    the defocus within a step.
    """
    pace = _Pace.first(len(start), steps, max_rotation_radian)
    if prior.defocus_sd_angstrom <= 0:
        return _refined(volume, images, start.double(), prior, pace)
    at, single = start.double(), replace(pace, steps=1)
    for _ in range(steps):
        at = _refined(volume, images, at, prior, single).latents
    return _refined(volume, images, at, prior, replace(pace, steps=0))


@dataclass(frozen=True)
class _Pace:
    """How many steps, how long at most, and how damped, which steps change in place."""

    steps: int
    max_rotation_radian: float
    damping: Tensor

    @classmethod
    def first(cls, n: int, steps: int, max_rotation_radian: float = 0.0) -> Self:
        damping = torch.full((n,), _FIRST_DAMPING, dtype=torch.float64)
        return cls(steps, max_rotation_radian, damping)


def _refined(
    volume: FourierVolume,
    images: WhitenedImages,
    at: Latents,
    prior: PosePrior,
    pace: _Pace,
) -> PosteriorModes:
    latents, found = _run(volume, images, at, prior, pace)
    information = found.information + prior.information
    return PosteriorModes(latents, information, found.log_likelihood)


def _run(
    volume: FourierVolume,
    images: WhitenedImages,
    at: Latents,
    prior: PosePrior,
    pace: _Pace,
) -> tuple[Latents, NormalEquations]:
    """Run the compiled loop, with a CTF that is linear in the defocus.

    Returns where it has come, and the normal equations there.
    """
    images, slope = images_at_defocus(images, at, prior)
    longest_defocus = math.inf
    if slope is None:
        slope = images.ctf.new_empty((len(at), 0))
    else:
        slope = slope * _DEFOCUS_UNIT_ANGSTROM
        longest_defocus = _linear_reach_angstrom(images) / _DEFOCUS_UNIT_ANGSTROM
    # Units of the kernel over angstrom.
    unit = torch.ones(6, dtype=torch.float64)
    unit[3:5] = 1 / images.pixel_size_angstrom
    unit[5] = 1 / _DEFOCUS_UNIT_ANGSTROM
    precision = prior.precision
    precision = torch.where(precision > 0, precision / unit**2, precision)
    rotation = at.pose.rotation.clone(memory_format=torch.contiguous_format)
    origin = (departure_from_prior(at)[:, :6] * unit).contiguous()
    moved = torch.zeros_like(origin)
    packed = torch.empty(len(at), refinement_kernel.PACKED, dtype=torch.float64)
    limits = torch.tensor(
        [pace.max_rotation_radian, longest_defocus, _NEGLIGIBLE_NATS],
        dtype=torch.float64,
    )
    refinement_kernel.refine(
        volume.values.numpy(),
        volume.centre,
        volume.padding * images.scale,
        images.disc.kx.numpy(),
        images.disc.ky.numpy(),
        torch.view_as_real(images.coefficients.contiguous()).numpy(),
        images.ctf.contiguous().numpy(),
        slope.numpy(),
        images.disc.box,
        precision.numpy(),
        origin.numpy(),
        pace.steps,
        limits.numpy(),
        pace.damping.numpy(),
        rotation.numpy(),
        moved.numpy(),
        packed.numpy(),
    )
    final = (origin + moved) / unit
    found = Latents(Pose(rotation, final[:, 3:5]), final[:, 5], at.conformation)
    return found, _unpacked(packed, precision < 0, unit)


def _unpacked(packed: Tensor, held: Tensor, unit: Tensor) -> NormalEquations:
    """Return the kernel's sums in radian and angstrom, zero where an unknown is held.

    Parameters
    ----------
    packed : Tensor of float64, shape (n, 28)
        See :mod:`cryoinfer.inference.refinement_kernel`.
    held : Tensor of bool, shape (6,)
    unit : Tensor of float64, shape (6,)
        Of the kernel, over angstrom.
    """
    matrix = packed.new_empty(len(packed), 6, 6)
    for entry, (row, column) in enumerate(_UPPER_TRIANGLE):
        matrix[:, row, column] = matrix[:, column, row] = packed[:, entry]
    matrix[:, held] = matrix[:, :, held] = 0.0
    gradient = torch.where(held, 0.0, packed[:, 21:27])
    # The log-likelihood is minus a sum of squares, without the usual half.
    return NormalEquations(
        -packed[:, 27], 2 * gradient * unit, 2 * matrix * unit[:, None] * unit
    )


def _linear_reach_angstrom(images: WhitenedImages) -> float:
    """Return the defocus that turns the phase by one radian at the edge of the disc."""
    wavelength = float(electron_wavelength_angstrom(images.optics.voltage_kv[0]))
    length = images.disc.box * images.pixel_size_angstrom
    edge = float(torch.hypot(images.disc.kx, images.disc.ky).max()) / length
    return 1 / (math.pi * wavelength * edge**2)
