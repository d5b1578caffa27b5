"""The fused local refinement of poses in a map or a subspace of maps, compiled (CPU).

The residual is linear in the slice and the slice has analytic derivatives, so a few
steps reach the mode, and the normal equations there are the inverse covariance of the
Laplace posterior.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference import refinement_kernel, subspace_kernel
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

_LONGEST_STEP_SD = 1.0
"""Of z, in one step, over its prior's sd."""


@dataclass(frozen=True)
class _Course:
    """Where the refinements of n images begin, and how far they go.

    In the units of the kernels: radian, pixels, _DEFOCUS_UNIT_ANGSTROM, and those of z.
    There are d unknowns.

    Attributes
    ----------
    slope : Tensor of float32, shape (n, p) or (n, 0)
        Of the CTF by the defocus; without entries that is held.
    precision : Tensor of float64, shape (d,)
        Half of the prior's inverse variance; negative where an unknown is held.
    start : Tensor of float64, shape (n, d)
        From the prior's centre.
    steps : int
    limits : Tensor of float64, shape (4,)
        Longest rotation and defocus of a step, the negligible gain, longest z.
    damping : Tensor of float64, shape (n,)
        Changed in place, as are those below.
    rotation : Tensor of float64, shape (n, 3, 3)
    moved : Tensor of float64, shape (n, d)
        How far they have come.
    """

    slope: Tensor
    precision: Tensor
    start: Tensor
    steps: int
    limits: Tensor
    damping: Tensor
    rotation: Tensor
    moved: Tensor


Loop = Callable[[WhitenedImages, _Course], Tensor]
"""Runs a kernel; returns products of derivatives and residual, (n, d + 1, d + 1).

Of the upper triangle; the last row and column are those of the residual.
"""


def map_loop(volume: FourierVolume) -> Loop:
    """Return the compiled refinement of poses in a map."""

    def run(images: WhitenedImages, course: _Course) -> Tensor:
        packed = torch.empty(len(images), refinement_kernel.PACKED, dtype=torch.float64)
        _call(refinement_kernel.refine, volume, volume.values, images, course, packed)
        products = packed.new_zeros(len(images), 7, 7)
        rows, columns = torch.triu_indices(6, 6)
        products[:, rows, columns] = packed[:, :21]
        products[:, :, 6] = packed[:, 21:]
        return products

    return run


def subspace_loop(mean: FourierVolume, components: tuple[FourierVolume, ...]) -> Loop:
    """Return the compiled refinement of pose and z in a linear subspace of maps."""
    values = torch.stack([mean.values, *(one.values for one in components)])

    def run(images: WhitenedImages, course: _Course) -> Tensor:
        count = len(course.precision) + 1
        products = torch.empty(len(images), count, count, dtype=torch.float64)
        _call(subspace_kernel.refine, mean, values, images, course, products)
        return products

    return run


def _call(
    kernel: Callable[..., None],
    volume: FourierVolume,
    values: Tensor,
    images: WhitenedImages,
    course: _Course,
    out: Tensor,
) -> None:
    kernel(
        values.numpy(),
        volume.centre,
        volume.padding * images.scale,
        images.disc.kx.numpy(),
        images.disc.ky.numpy(),
        torch.view_as_real(images.coefficients.contiguous()).numpy(),
        images.ctf.contiguous().numpy(),
        course.slope.contiguous().numpy(),
        images.disc.box,
        course.precision.numpy(),
        course.start.numpy(),
        course.steps,
        course.limits.numpy(),
        course.damping.numpy(),
        course.rotation.numpy(),
        course.moved.numpy(),
        out.numpy(),
    )


def equations_compiled(
    loop: Loop, images: WhitenedImages, latents: Latents, prior: PosePrior
) -> NormalEquations:
    """Return the likelihood and its derivatives at latents of n images."""
    # A refinement of no steps.
    stay = _Pace.first(len(latents), 0)
    return _run(loop, images, latents.double(), prior, stay)[1]


def refine_compiled(
    loop: Loop,
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
        return _refined(loop, images, start.double(), prior, pace)
    at, single = start.double(), replace(pace, steps=1)
    for _ in range(steps):
        at = _refined(loop, images, at, prior, single).latents
    return _refined(loop, images, at, prior, replace(pace, steps=0))


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
    loop: Loop, images: WhitenedImages, at: Latents, prior: PosePrior, pace: _Pace
) -> PosteriorModes:
    latents, found = _run(loop, images, at, prior, pace)
    information = found.information + prior.information
    return PosteriorModes(latents, information, found.log_likelihood)


def _run(
    loop: Loop, images: WhitenedImages, at: Latents, prior: PosePrior, pace: _Pace
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
    # Units of the kernel over angstrom, and over those of z.
    precision = prior.precision
    d = len(precision)
    unit = torch.ones(d, dtype=torch.float64)
    unit[3:5] = 1 / images.pixel_size_angstrom
    unit[5] = 1 / _DEFOCUS_UNIT_ANGSTROM
    precision = torch.where(precision > 0, precision / unit**2, precision)
    origin = (departure_from_prior(at)[:, :d] * unit).contiguous()
    longest_z = _LONGEST_STEP_SD * max(prior.conformation_sd_angstrom, default=0.0)
    limits = [pace.max_rotation_radian, longest_defocus, _NEGLIGIBLE_NATS, longest_z]
    course = _Course(
        slope,
        precision,
        origin,
        pace.steps,
        torch.tensor(limits, dtype=torch.float64),
        pace.damping,
        at.pose.rotation.clone(memory_format=torch.contiguous_format),
        torch.zeros_like(origin),
    )
    products = loop(images, course)
    final = (origin + course.moved) / unit
    found = Latents(
        Pose(course.rotation, final[:, 3:5]),
        final[:, 5],
        # A map knows of no conformation: it stays.
        final[:, 6:] if d > 6 else at.conformation,
    )
    return found, _equations(products, precision < 0, unit)


def _equations(products: Tensor, held: Tensor, unit: Tensor) -> NormalEquations:
    """Return a kernel's sums in radian and angstrom, zero where an unknown is held.

    Parameters
    ----------
    products : Tensor of float64, shape (n, d + 1, d + 1)
        See :data:`Loop`.
    held : Tensor of bool, shape (d,)
    unit : Tensor of float64, shape (d,)
        Of the kernel, over angstrom.
    """
    d = len(unit)
    upper = products[:, :d, :d].triu()
    free = unit * ~held
    # The log-likelihood is minus a sum of squares, without the usual half.
    return NormalEquations(
        -products[:, d, d],
        2 * products[:, :d, d] * free,
        2 * (upper + upper.triu(1).mT) * free[:, None] * free,
    )


def _linear_reach_angstrom(images: WhitenedImages) -> float:
    """Return the defocus that turns the phase by one radian at the edge of the disc."""
    wavelength = float(electron_wavelength_angstrom(images.optics.voltage_kv[0]))
    length = images.disc.box * images.pixel_size_angstrom
    edge = float(torch.hypot(images.disc.kx, images.disc.ky).max()) / length
    return 1 / (math.pi * wavelength * edge**2)
