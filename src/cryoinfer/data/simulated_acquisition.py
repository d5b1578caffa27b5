"""How simulated particles are seen: views, shifts, defoci and noise."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import roma
import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_sum
from cryoinfer.geometry.rotations import random_rotations, random_turns_in_plane
from cryoinfer.physics.detector import CountingDetector
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.records import Optics, Pose

Views = Literal["uniform", "preferred", "one"]
"""What directions particles are seen from."""

_PREFERRED_CONE_RADIAN = math.radians(30)


def draw_poses(
    n: int, views: Views, max_shift_angstrom: float, generator: torch.Generator
) -> Pose:
    """Draw the poses of n particles, float64.

    Parameters
    ----------
    n : int
    views : "uniform", "preferred" or "one"
        Preferred: half of the particles are seen from within 30 degrees of +z. One:
        all are seen along z, turned in the plane by any angle.
    max_shift_angstrom : float
        Shifts are uniform up to it in x and in y.
    generator : torch.Generator
    """
    rotation = random_rotations(n, generator)
    if views == "one":
        rotation = random_turns_in_plane(n, generator)
    if views == "preferred":
        near = torch.rand(n, generator=generator) < 0.5
        rotation[near] = _rotations_near_z(int(near.sum()), generator)
    uniform = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return Pose(rotation, (2 * uniform - 1) * max_shift_angstrom)


def _rotations_near_z(n: int, generator: torch.Generator) -> Tensor:
    """Draw rotations whose view, uniform in its cone, is near the reference's +z.

    The view is the third row of the rotation: what is turned onto the optical axis.
    """
    uniform = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    azimuth, in_plane = (2 * torch.pi * uniform[:, :2]).unbind(-1)
    least = math.cos(_PREFERRED_CONE_RADIAN)
    tilt = torch.acos(least + (1 - least) * uniform[:, 2])
    angles = torch.stack((azimuth, tilt, in_plane), dim=-1)
    return roma.euler_to_rotmat("ZYZ", angles).mT


CONTRAST = "cryoinferContrast"
"""Column of what the signal of a particle is multiplied by."""

_LEAST_CONTRAST = 0.1


def draw_contrast(n: int, sd: float, seed: int) -> Tensor:
    """Draw what the signals of n particles are multiplied by, float32, shape (n,).

    Normal about 1, never below 0.1: ice differs in thickness.

    Parameters
    ----------
    n : int
    sd : float
    seed : int
        Of a generator of their own: poses and noise are those of equal particles.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = 1 + sd * torch.randn(n, generator=generator)
    return drawn.clamp(min=_LEAST_CONTRAST)


def draw_optics(
    n: int,
    groups: int,
    pixel_size_angstrom: float,
    defocus_range_angstrom: tuple[float, float] | None,
    generator: torch.Generator,
) -> Optics:
    """Draw the optics of n particles, dealt to their groups in turn.

    Parameters
    ----------
    n, groups : int
        The first group is at 300 kV; each further one has a pixel larger by a tenth,
        and every second one 200 kV.
    pixel_size_angstrom : float
        Of the first group.
    defocus_range_angstrom : tuple of two floats, or None
        Defoci are uniform in it; None for no CTF.
    generator : torch.Generator
    """
    group = torch.arange(n) % groups
    bare = Optics.without_ctf(n, pixel_size_angstrom)
    pixel_size = pixel_size_angstrom * (1 + 0.1 * group.double())
    optics = replace(bare, group=group, pixel_size_angstrom=pixel_size)
    if defocus_range_angstrom is None:
        return optics
    low, high = defocus_range_angstrom
    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    defocus = low + (high - low) * uniform
    return replace(
        optics,
        voltage_kv=300.0 - 100.0 * (group % 2).double(),
        cs_mm=torch.full_like(defocus, 2.7),
        amplitude_contrast=torch.full_like(defocus, 0.1),
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
    )


def with_defocus_error(optics: Optics, error_angstrom: float, seed: int) -> Optics:
    """Return optics as a file gives them, whose defoci are estimates.

    Parameters
    ----------
    optics : Optics
    error_angstrom : float
        Defoci are off by up to it, uniformly.
    seed : int
        Of the simulation.
    """
    if error_angstrom == 0:
        return optics
    generator = torch.Generator().manual_seed(seed + 1)
    uniform = torch.rand(len(optics), generator=generator, dtype=torch.float64)
    error = (2 * uniform - 1) * error_angstrom
    return replace(
        optics,
        defocus_u_angstrom=optics.defocus_u_angstrom + error,
        defocus_v_angstrom=optics.defocus_v_angstrom + error,
    )


def noise_of_variance(
    noise: Literal["white", "coloured"], box: int, variance: float
) -> GaussianNoise:
    """Return noise whose pixels have the given variance.

    Coloured noise falls tenfold from low to high frequency.
    """
    ring = torch.arange(box // 2 + 1, dtype=torch.float32)
    shape = torch.ones_like(ring)
    if noise == "coloured":
        shape = 0.1 + 1 / (1 + (ring / (box / 16)) ** 2)
    return GaussianNoise(shape * (variance / GaussianNoise(shape).pixel_variance(box)))


@dataclass(frozen=True)
class ImagePower:
    """Variances over all pixels of images.

    Attributes
    ----------
    signal : float
        Of images without noise, as the detector blurs them.
    noise : float
        Of a counting detector; 0 without one.
    """

    signal: float
    noise: float


def measure_power(
    signals: Iterable[tuple[Tensor, Optics]], detector: CountingDetector | None
) -> ImagePower:
    """Return the variances of images, of which there is at least one.

    Parameters
    ----------
    signals : iterable of Tensor, shape (n, box, box), and Optics, of length n
        Images without noise, in parts.
    detector : CountingDetector, optional
    """
    count, images, total, squares, noise = 0, 0, 0.0, 0.0, 0.0
    for signal, optics in signals:
        seen = signal.double()
        if detector is not None:
            noise += float(reproducible_sum(detector.noise_variance(seen, optics)))
            seen = detector.blurred(seen)
        count += seen.numel()
        images += len(seen)
        total += float(reproducible_sum(seen))
        squares += float(reproducible_sum(seen.square()))
    return ImagePower(squares / count - (total / count) ** 2, noise / images)
