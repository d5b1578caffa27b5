"""The last degrees: Gauss-Newton on rotation, shift and defocus of every particle.

The residual is linear in the slice and the slice has analytic derivatives, so a
few steps reach the mode, and the normal equations there are the inverse covariance
of the Laplace posterior.
"""

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference import climb_kernel
from cryoinfer.inference.posteriors import ALL_TURNS
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


@dataclass(frozen=True)
class PosePrior:
    """Gaussian beliefs about a particle before its image is seen.

    Attributes
    ----------
    shift_sd_angstrom : float
        About the origin; 0 holds the shifts at their start.
    defocus_sd_angstrom : float
        About the given defocus; 0 holds it.
    conformation_sd_angstrom : tuple of float
        Of each amplitude, about the structure at rest.
    turns : int
        How many directions of rotation are unknown: 3 for all, 1 where the view is
        known but for the angle in its plane, 0 where the rotation is.
    """

    shift_sd_angstrom: float
    defocus_sd_angstrom: float
    conformation_sd_angstrom: tuple[float, ...] = ()
    turns: int = ALL_TURNS

    @property
    def unknowns_sd_angstrom(self) -> Tensor:
        """Of shift x, shift y, defocus and each amplitude, float64, shape (3 + c,)."""
        shift, defocus = self.shift_sd_angstrom, self.defocus_sd_angstrom
        values = [shift, shift, defocus, *self.conformation_sd_angstrom]
        return torch.tensor(values, dtype=torch.float64)

    @property
    def precision(self) -> Tensor:
        """Half the inverse variances of rotation and the rest, shape (6 + c,).

        Those of an unknown that is held are -1, those of a free rotation 0.
        """
        turn = torch.full((3,), -1.0, dtype=torch.float64)
        turn[3 - self.turns :] = 0.0
        sd = self.unknowns_sd_angstrom
        others = torch.where(sd > 0, 0.5 / sd.clamp(min=1e-300) ** 2, -1.0)
        return torch.cat([turn, others])

    def loss(self, poses: "LocalPoses") -> Tensor:
        """Return minus the log density of the prior, without its constant, (n,)."""
        return (poses.departure() ** 2 * self.precision.clamp(min=0)).sum(1)


@dataclass(frozen=True)
class LocalPoses:
    """Modes of the posteriors of n particles, and how sharp they are.

    Attributes
    ----------
    rotation : Tensor of float64, shape (n, 3, 3)
    shift_angstrom : Tensor of float64, shape (n, 2)
    defocus_offset_angstrom : Tensor of float64, shape (n,)
    information : Tensor of float64, shape (n, 6 + c, 6 + c)
        Inverse covariance of (rotation vector in the image frame in radian, shift,
        defocus and conformation in angstrom); zero where an unknown is held.
    log_likelihood : Tensor of float64, shape (n,)
        Minus the squared residual of the whitened image.
    conformation : Tensor of float64, shape (n, c)
        In angstrom; of a rigid structure c is 0.
    """

    rotation: Tensor
    shift_angstrom: Tensor
    defocus_offset_angstrom: Tensor
    information: Tensor
    log_likelihood: Tensor
    conformation: Tensor

    @classmethod
    def at(
        cls,
        rotation: Tensor,
        shift_angstrom: Tensor,
        defocus: Tensor,
        conformation: Tensor | None = None,
    ) -> "LocalPoses":
        """Return poses of which nothing is known yet."""
        n = len(rotation)
        if conformation is None:
            conformation = torch.zeros(n, 0)
        d = 6 + conformation.shape[-1]
        return cls(
            rotation.double(),
            shift_angstrom.double(),
            defocus.double(),
            torch.zeros(n, d, d, dtype=torch.float64),
            torch.full((n,), -torch.inf, dtype=torch.float64),
            conformation.double(),
        )

    @classmethod
    def of(cls, latents: Latents) -> "LocalPoses":
        """Return latents of length n as poses of which nothing is known yet."""
        pose, defocus = latents.pose, latents.defocus_offset_angstrom
        return cls.at(pose.rotation, pose.shift_angstrom, defocus, latents.conformation)

    @property
    def latents(self) -> Latents:
        """The poses as latents, with a conformation of any length."""
        pose = Pose(self.rotation, self.shift_angstrom)
        return Latents(pose, self.defocus_offset_angstrom, self.conformation)

    @classmethod
    def joined(cls, parts: "list[LocalPoses]") -> "LocalPoses":
        """Return the poses of several in one."""
        names = vars(parts[0])
        return cls(
            **{name: torch.cat([getattr(one, name) for one in parts]) for name in names}
        )

    def __len__(self) -> int:
        return self.rotation.shape[0]

    def select(self, index: Tensor) -> "LocalPoses":
        """Return some of the poses."""
        return LocalPoses(**{name: value[index] for name, value in vars(self).items()})

    def departure(self) -> Tensor:
        """Return how far the unknowns are from the prior's centre, (n, 6 + c).

        In angstrom, zero for the rotation.
        """
        turn = torch.zeros(len(self), 3, dtype=torch.float64)
        defocus = self.defocus_offset_angstrom[:, None]
        others = [self.shift_angstrom, defocus, self.conformation]
        return torch.cat([turn, *others], dim=1)

    def covariance(self) -> Tensor:
        """Return the inverse of the information, zero where an unknown is held."""
        return covariance_of(self.information)


def covariance_of(information: Tensor) -> Tensor:
    """Invert information matrices, shape (..., d, d), whose held unknowns are zero."""
    held = information.diagonal(dim1=-2, dim2=-1) == 0
    inverse = torch.linalg.inv(information + torch.diag_embed(held.double()))
    return inverse * (~held[..., None] & ~held[..., None, :])


def gauss_newton(
    volume: FourierVolume,
    images: WhitenedImages,
    start: LocalPoses,
    prior: PosePrior,
    steps: int,
    max_turn_radian: float,
) -> LocalPoses:
    """Climb to the mode of each particle's posterior.

    A Levenberg-Marquardt step is kept only where it raises the posterior; one that
    promises less than a tenth of a nat is taken on trust and is the last.

    Parameters
    ----------
    volume : FourierVolume
    images : WhitenedImages
        Of n particles, within the volume's radius.
    start : LocalPoses
        Of the same particles.
    prior : PosePrior
    steps : int
        Most trial steps.
    max_turn_radian : float
        Longest rotation of one step.

    Returns
    -------
    LocalPoses
    """
    pace = _Pace.first(len(start), steps, max_turn_radian)
    if prior.defocus_sd_angstrom <= 0:
        return _climb(volume, images, start, prior, pace)
    poses, single = start, replace(pace, steps=1)
    for _ in range(steps):
        poses = _climb(volume, images, poses, prior, single)
    return _climb(volume, images, poses, prior, replace(pace, steps=0))


def information(
    volume: FourierVolume, images: WhitenedImages, poses: LocalPoses, prior: PosePrior
) -> Tensor:
    """Return the information at given poses, as ``LocalPoses.information``."""
    return _climb(volume, images, poses, prior, _Pace.first(len(poses), 0)).information


@dataclass(frozen=True)
class _Pace:
    """How many steps, how long at most, and how damped, which steps change in place."""

    steps: int
    max_turn_radian: float
    damping: Tensor

    @classmethod
    def first(cls, n: int, steps: int, max_turn_radian: float = 0.0) -> "_Pace":
        damping = torch.full((n,), _FIRST_DAMPING, dtype=torch.float64)
        return cls(steps, max_turn_radian, damping)


def _climb(
    volume: FourierVolume,
    images: WhitenedImages,
    poses: LocalPoses,
    prior: PosePrior,
    pace: _Pace,
) -> LocalPoses:
    """Run the compiled loop, with a CTF that is linear in the defocus."""
    slope = images.ctf.new_empty((len(poses), 0))
    longest_defocus = math.inf
    if prior.defocus_sd_angstrom > 0:
        images, slope = images.with_defocus_offset(poses.defocus_offset_angstrom)
        slope = slope * _DEFOCUS_UNIT_ANGSTROM
        longest_defocus = _linear_reach_angstrom(images) / _DEFOCUS_UNIT_ANGSTROM
    # Units of the kernel over angstrom.
    unit = torch.ones(6, dtype=torch.float64)
    unit[3:5] = 1 / images.pixel_size_angstrom
    unit[5] = 1 / _DEFOCUS_UNIT_ANGSTROM
    precision = prior.precision
    precision = torch.where(precision > 0, precision / unit**2, precision)
    rotation = poses.rotation.clone(memory_format=torch.contiguous_format)
    origin = (poses.departure() * unit).contiguous()
    moved = torch.zeros_like(origin)
    packed = torch.empty(len(poses), climb_kernel.PACKED, dtype=torch.float64)
    limits = torch.tensor(
        [pace.max_turn_radian, longest_defocus, _NEGLIGIBLE_NATS], dtype=torch.float64
    )
    climb_kernel.climb(
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
    matrix = torch.empty(len(poses), 6, 6, dtype=torch.float64)
    for entry, (row, column) in enumerate(_UPPER_TRIANGLE):
        matrix[:, row, column] = matrix[:, column, row] = packed[:, entry]
    held = precision < 0
    matrix[:, held] = matrix[:, :, held] = 0.0
    matrix = matrix + torch.diag(precision.clamp(min=0.0))
    final = (origin + moved) / unit
    return LocalPoses(
        rotation,
        final[:, 3:5],
        final[:, 5],
        2 * matrix * unit[:, None] * unit,
        -packed[:, 27],
        poses.conformation,
    )


def _linear_reach_angstrom(images: WhitenedImages) -> float:
    """Return the defocus that turns the phase by one radian at the edge of the disc."""
    wavelength = float(electron_wavelength_angstrom(images.optics.voltage_kv[0]))
    length = images.disc.box * images.pixel_size_angstrom
    edge = float(torch.hypot(images.disc.kx, images.disc.ky).max()) / length
    return 1 / (math.pi * wavelength * edge**2)
