"""The compiled loops against plain versions of themselves, on the machine at hand.

A processor, a compiler or a library of another version may compute otherwise than those
that the tests ran on. Here every compiled operation is run on a small problem and
compared with the same formula written out in double precision.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.oversampled import oversampled_inverse, oversampled_transform
from cryoinfer.fourier.slices import (
    FourierVolume,
    SliceAccumulator,
    extract_slices,
    insert_slices,
    kernel_falloff,
    padded_box,
)
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.coarse import GridSlices, PoseGrid
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.reconstruction.backproject import shell_sums, solve
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

_BOX, _RADIUS, _PIXEL_SIZE_ANGSTROM, _IMAGES = 32, 12, 2.0, 6

_SINGLE = 2.0**-24
"""One rounding of a number of single precision, relative."""


@dataclass(frozen=True)
class OperationCheck:
    """How far an operation is from its plain version.

    Attributes
    ----------
    name : str
    error : float
        Largest difference, over the size of the numbers that are added up.
    limit : float
        What single precision allows.
    """

    name: str
    error: float
    limit: float

    @property
    def is_good(self) -> bool:
        """Whether the two agree; not a number does not."""
        return self.error <= self.limit


@dataclass(frozen=True)
class _Problem:
    """Images of a random map, and where their particles are."""

    volume: FourierVolume
    images: WhitenedImages
    latents: Latents

    @classmethod
    def random(cls) -> "_Problem":
        generator = torch.Generator().manual_seed(0)
        density = _smooth_noise(generator)
        optics = Optics.without_ctf(_IMAGES, _PIXEL_SIZE_ANGSTROM)
        pixels = torch.randn(_IMAGES, _BOX, _BOX, generator=generator)
        batch = ParticleBatch(pixels, optics, torch.arange(_IMAGES))
        grid = ReferenceGrid(_BOX, _PIXEL_SIZE_ANGSTROM)
        images = whiten(batch, grid, _RADIUS, torch.ones(_BOX // 2))
        shift = torch.rand(_IMAGES, 2, generator=generator, dtype=torch.float64) * 4
        pose = Pose(random_rotations(_IMAGES, generator).double(), shift)
        latents = Latents.rigid(pose, torch.zeros(_IMAGES, dtype=torch.float64))
        volume = FourierVolume.from_map(density, _RADIUS, 1.5)
        return cls(volume, images, latents)

    def predicted(self, rotation: Tensor, shift: Tensor) -> Tensor:
        """Return the whitened coefficients at poses (n, 3, 3), (n, 2), in float64."""
        disc = self.images.disc
        k = torch.stack([disc.kx, disc.ky], -1).double()
        length = disc.box * self.images.pixel_size_angstrom
        phase = torch.exp(-2j * math.pi * (shift @ k.T) / length)
        return self.images.ctf.double() * phase * self.slices(rotation)

    @property
    def projector(self) -> MapProjector:
        """The map as a forward model."""
        return MapProjector(self.volume)

    def slices(self, rotation: Tensor) -> Tensor:
        """Return slices by interpolation written out, complex128, (n, p)."""
        disc, scale = self.images.disc, self.volume.padding * self.images.scale
        k = torch.stack([disc.kx, disc.ky], -1).double()
        found = _interpolated(self.volume.values, k @ rotation[:, :2] * scale)
        return torch.view_as_complex(found.contiguous())


def self_check() -> tuple[OperationCheck, ...]:
    """Compare every compiled operation with its plain version.

    Returns
    -------
    tuple of OperationCheck
        The same on every run: the numbers do not depend on chance.
    """
    problem = _Problem.random()
    checks: list[Callable[[_Problem], OperationCheck]] = [
        _check_products,
        _check_transforms,
        _check_slices,
        _check_insertion,
        _check_likelihood,
        _check_grid,
        _check_information,
        _check_shells,
        _check_map,
        _check_symmetry,
        _check_threads,
    ]
    return tuple(check(problem) for check in checks)


def _smooth_noise(generator: torch.Generator) -> Tensor:
    noise = torch.randn(1, 1, _BOX, _BOX, _BOX, generator=generator)
    for _ in range(2):
        noise = torch.nn.functional.avg_pool3d(noise, 3, 1, 1)
    return noise[0, 0]


def _interpolated(values: Tensor, point: Tensor) -> Tensor:
    """Return channels (.., c) of a half volume at points (.., 3), in float64.

    The second channel is the imaginary part, which changes its sign with the point.
    """
    centre = (values.shape[0] - 1) // 2
    mirrored = point[..., :1] < 0
    point = torch.where(mirrored, -point, point)
    low = point.detach().floor()
    part = point - low
    found = values.new_zeros((*point.shape[:-1], values.shape[-1]), dtype=torch.float64)
    for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
        weight = torch.where(corner == 1, part, 1 - part).prod(-1)
        x, y, z = (low.long() + corner).unbind(-1)
        found = found + weight[..., None] * values.double()[z + centre, y + centre, x]
    sign = torch.ones_like(found)
    sign[..., 1] = torch.where(mirrored[..., 0], -1.0, 1.0)
    return found * sign


def _largest(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest size."""
    return float((found - expected).abs().max() / expected.abs().max())


def _check_products(problem: _Problem) -> OperationCheck:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 256, 256, generator=generator)
    exact = first.double() @ second.double()
    size = first.double().abs() @ second.double().abs()
    error = float(((first @ second).double() - exact).abs().div(size).max())
    # A sum of 256 products: the bound of any order of summation.
    return OperationCheck("products of matrices", error, 256 * _SINGLE)


def _check_transforms(problem: _Problem) -> OperationCheck:
    cube = _smooth_noise(torch.Generator().manual_seed(2))
    found = oversampled_transform(cube, 2 * _BOX, _BOX - 1)
    whole = torch.nn.functional.pad(cube.double(), (_BOX // 2,) * 6)
    full = torch.fft.rfftn(torch.fft.ifftshift(whole))
    index = torch.arange(1 - _BOX, _BOX) % (2 * _BOX)
    there = _largest(found, full[index][:, index, :_BOX].to(torch.complex128))
    back = oversampled_inverse(found, 2 * _BOX, _BOX)
    again = _largest(back, _plain_inverse(found.to(torch.complex128), 2 * _BOX, _BOX))
    # Three transforms of 64 numbers, six stages each.
    return OperationCheck("Fourier transforms", max(there, again), 100 * _SINGLE)


def _plain_inverse(values: Tensor, padded: int, box: int) -> Tensor:
    """Invert a transform of frequencies -r .. r, and cut the middle out."""
    reach = values.shape[0] // 2
    index = torch.arange(-reach, reach + 1) % padded
    full = values.new_zeros(padded, padded, padded // 2 + 1)
    full[index[:, None], index, : reach + 1] = values
    whole = torch.fft.fftshift(torch.fft.irfftn(full, s=(padded,) * 3))
    middle = slice((padded - box) // 2, (padded + box) // 2)
    return whole[middle, middle, middle]


def _check_slices(problem: _Problem) -> OperationCheck:
    rotation = problem.latents.pose.rotation
    found = extract_slices(problem.volume, rotation, problem.images.disc)
    error = _largest(found, problem.slices(rotation))
    # Points are known to a rounding of the padded radius, some 20 voxels.
    return OperationCheck("slices of a volume", error, 100 * _SINGLE)


def _check_insertion(problem: _Problem) -> OperationCheck:
    rotation, images = problem.latents.pose.rotation, problem.images
    sums = SliceAccumulator.empty(_BOX, _RADIUS, 1.5)
    insert_slices(sums, rotation, images.disc, images.coefficients, images.ctf**2)
    slices = problem.slices(rotation)
    # The adjoint of slicing: the volume on the sums is the slices on the images.
    left = (slices.conj() * images.coefficients).real.sum()
    right = (problem.volume.values.double() * sums.sums[..., :2]).sum()
    size = float(slices.abs().flatten().norm() * images.coefficients.norm())
    lost = float(sums.sums[..., 2].double().sum() - images.ctf.double().square().sum())
    error = max(float((left - right).abs()) / size, abs(lost) / images.ctf.numel())
    return OperationCheck("insertion into a volume", error, 100 * _SINGLE)


def _check_likelihood(problem: _Problem) -> OperationCheck:
    poses, images = problem.latents.pose, problem.images
    found = problem.projector.log_likelihood(images, problem.latents)
    residual = images.coefficients - problem.predicted(
        poses.rotation, poses.shift_angstrom
    )
    expected = -residual.abs().square().sum(1)
    # Sums of some 200 squares in single precision.
    return OperationCheck(
        "likelihood of poses", _largest(found, expected), 200 * _SINGLE
    )


def _check_grid(problem: _Problem) -> OperationCheck:
    rotation, images = problem.latents.pose.rotation, problem.images
    shift = problem.latents.pose.shift_angstrom.float()
    grid = PoseGrid(rotation, shift)
    slices = GridSlices.of(problem.volume, grid, images.disc, images.scale)
    found = slices.log_likelihood(images)
    expected = torch.stack(
        [
            2 * (predicted.conj() * images.coefficients[:, None]).real.sum(2)
            - predicted.abs().square().sum(2)
            for predicted in (
                problem.predicted(rotation, one.expand(_IMAGES, 2).double())[None]
                for one in shift
            )
        ]
    )
    return OperationCheck(
        "likelihood on a grid", _largest(found, expected), 200 * _SINGLE
    )


def _check_information(problem: _Problem) -> OperationCheck:
    poses, prior = problem.latents.pose, PosePrior(1e6, 0.0)
    found = problem.projector.normal_equations(
        problem.images, problem.latents, prior
    ).information

    def shown(unknown: Tensor) -> Tensor:
        skew = torch.linalg.cross(
            unknown[:, :3, None].mT.expand(-1, 3, -1),
            torch.eye(3, dtype=torch.float64).expand(len(unknown), 3, 3),
        ).mT
        predicted = problem.predicted(
            poses.rotation + skew @ poses.rotation,
            poses.shift_angstrom + unknown[:, 3:],
        )
        return torch.view_as_real(predicted).flatten(1)

    at = torch.zeros(_IMAGES, 5, dtype=torch.float64)
    along = torch.eye(5, dtype=torch.float64)[:, None].expand(5, _IMAGES, 5)
    slope: Callable[..., Any] = torch.autograd.functional.jvp
    slopes = torch.stack([slope(shown, at, one)[1] for one in along], 1)
    expected = 2 * slopes @ slopes.mT
    width = expected.diagonal(dim1=1, dim2=2).sqrt()
    scale = width[:, :, None] * width[:, None]
    error = float(((found[:, :5, :5] - expected) / scale).abs().max())
    # Slopes across a cell are differences of its corners: a digit less than the sums.
    return OperationCheck("normal equations of poses", error, 2000 * _SINGLE)


def _inserted(problem: _Problem) -> SliceAccumulator:
    generator = torch.Generator().manual_seed(3)
    disc = FourierDisc.of_box(_BOX, _RADIUS)
    rotation = random_rotations(200, generator)
    sums = SliceAccumulator.empty(_BOX, _RADIUS, 1.5)
    slices = extract_slices(problem.volume, rotation, disc)
    insert_slices(sums, rotation, disc, slices, torch.ones(slices.shape))
    return sums


def _shell_of_voxels(sums: SliceAccumulator) -> Tensor:
    """Return the distance of each voxel from the origin in Fourier pixels."""
    axis = torch.arange(-sums.centre, sums.centre + 1).double()
    x = torch.arange(sums.sums.shape[2]).double()
    distance = axis[:, None, None] ** 2 + axis[:, None] ** 2 + x**2
    return distance.sqrt() / sums.padding


def _check_shells(problem: _Problem) -> OperationCheck:
    sums = _inserted(problem)
    shell = _shell_of_voxels(sums).round().long()
    weight = sums.hermitian()[1].double()
    found = shell_sums(sums).mean_weight
    inside = shell < len(found)
    total = torch.zeros(len(found), dtype=torch.float64)
    total.index_add_(0, shell[inside], weight[inside])
    expected = total / torch.bincount(shell[inside], minlength=len(found))
    # A plane adds up to some thousand voxels one by one.
    error = float(((found - expected) / expected).abs().max())
    return OperationCheck("weights of shells", error, 2000 * _SINGLE)


def _check_map(problem: _Problem) -> OperationCheck:
    sums = _inserted(problem)
    found = solve(sums, torch.full((_RADIUS + 2,), 100.0), _BOX, _BOX)
    value, weight = sums.hermitian()
    floor = shell_sums(sums).mean_weight.double() / 100
    distance = _shell_of_voxels(sums)
    low = distance.floor().long().clamp(max=len(floor) - 2)
    part = (distance - low).clamp(max=1.0)
    added = floor[low] * (1 - part) + floor[low + 1] * part
    known = torch.where(distance <= _RADIUS + 0.5, value / (weight + added), 0.0)
    padded = padded_box(_BOX, sums.padding)
    reach = min(sums.centre, padded // 2 - 1)
    middle = slice(sums.centre - reach, sums.centre + reach + 1)
    density = _plain_inverse(known[middle, middle, : reach + 1], padded, _BOX)
    expected = density * (_BOX / kernel_falloff(_BOX, padded, "cpu").double())
    # The falloff divides the corners of the box by small numbers.
    return OperationCheck("map from sums", _largest(found, expected), 200 * _SINGLE)


def _check_symmetry(problem: _Problem) -> OperationCheck:
    sums, group = _inserted(problem), symmetry_rotations("C3")
    found = symmetrise(sums, group).sums.clone()
    found[:, :, 0] *= 2
    value, weight = sums.hermitian()
    joined = torch.cat(
        [torch.view_as_real(value), torch.stack([weight, sums.own_weight()], -1)], -1
    )
    axis = torch.arange(-sums.centre, sums.centre + 1).double()
    z, y, x = torch.meshgrid(
        axis, axis, torch.arange(sums.centre + 2).double(), indexing="ij"
    )
    k = torch.stack([x, y, z], -1)
    near = k.norm(dim=-1) <= _RADIUS * sums.padding
    expected = joined[near].double()
    for mate in group[1:]:
        expected = expected + _interpolated(joined, k[near] @ mate.T.double())
    return OperationCheck(
        "symmetry of sums", _largest(found[near], expected), 100 * _SINGLE
    )


def _check_threads(problem: _Problem) -> OperationCheck:
    """Compare one thread with all, bit by bit."""
    threads, compiled = torch.get_num_threads(), numba.get_num_threads()

    def everything() -> list[Tensor]:
        sums = _inserted(problem)
        density = solve(sums, None, _BOX, _BOX)
        images, latents = problem.images, problem.latents
        prior = PosePrior(1e6, 0.0)
        return [
            sums.sums,
            density,
            problem.projector.log_likelihood(images, latents),
            problem.projector.normal_equations(images, latents, prior).information,
        ]

    try:
        many = everything()
        torch.set_num_threads(1)
        numba.set_num_threads(1)
        one = everything()
    finally:
        numba.set_num_threads(compiled)
        torch.set_num_threads(threads)
    worst = max(_largest(a, b) for a, b in zip(many, one, strict=True))
    return OperationCheck("one thread and all", worst, 0.0)
