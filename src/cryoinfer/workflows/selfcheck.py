"""The compiled loops against plain versions of themselves, on the machine at hand.

A processor, a compiler or a library of another version may compute otherwise than those
that the tests ran on. Here every compiled operation is run on a small problem and
compared with its plain version in double precision.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numba
import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    inverse_real_fourier_transform_3d,
    real_fourier_transform_3d,
)
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.oversampled import oversampled_inverse, oversampled_transform
from cryoinfer.fourier.slices import (
    FourierVolume,
    SliceAccumulator,
    extract_slices,
    insert_slices,
)
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.coarse import GridSlices, PoseGrid
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.operations import plain_only
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
    """Images of a random map, where their particles are, and sums of slices.

    Attributes
    ----------
    volume : FourierVolume
    images : WhitenedImages
    latents : Latents
    sums : SliceAccumulator
        Of slices of the volume at 200 rotations.
    """

    volume: FourierVolume
    images: WhitenedImages
    latents: Latents
    sums: SliceAccumulator

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
        return cls(volume, images, latents, _inserted(volume))

    @property
    def projector(self) -> MapProjector:
        """The map as a forward model."""
        return MapProjector(self.volume)

    def in_double(self) -> "_Problem":
        """Return the problem in double precision."""
        coefficients = self.images.coefficients.to(torch.complex128)
        ctf = self.images.ctf.double()
        return replace(
            self,
            volume=replace(self.volume, values=self.volume.values.double()),
            images=replace(self.images, coefficients=coefficients, ctf=ctf),
            sums=replace(self.sums, sums=self.sums.sums.double()),
        )


def _inserted(volume: FourierVolume) -> SliceAccumulator:
    generator = torch.Generator().manual_seed(3)
    disc = FourierDisc.of_box(_BOX, _RADIUS)
    rotation = random_rotations(200, generator)
    sums = SliceAccumulator.empty(_BOX, _RADIUS, 1.5)
    slices = extract_slices(volume, rotation, disc)
    insert_slices(sums, rotation, disc, slices, torch.ones(slices.shape))
    return sums


@dataclass(frozen=True)
class _Comparison:
    """An operation, and how far it may be from its plain version.

    Attributes
    ----------
    name : str
    run : callable
    roundings : int
        How many of single precision the largest number may be off by.
    each : bool
        Whether every number is compared with itself, not with the largest.
    """

    name: str
    run: Callable[[_Problem], Tensor]
    roundings: int
    each: bool = False

    def check(self, problem: _Problem) -> OperationCheck:
        found = self.run(problem)
        with plain_only():
            expected = self.run(problem.in_double())
        size = expected.abs() if self.each else expected.abs().max()
        error = float(((found - expected).abs() / size).max())
        return OperationCheck(self.name, error, self.roundings * _SINGLE)


def self_check() -> tuple[OperationCheck, ...]:
    """Compare every compiled operation with its plain version.

    Returns
    -------
    tuple of OperationCheck
        The same on every run: the numbers do not depend on chance.
    """
    problem = _Problem.random()
    return (
        _check_products(),
        _check_transforms(),
        *(comparison.check(problem) for comparison in _COMPARISONS),
        _check_threads(problem),
    )


def _smooth_noise(generator: torch.Generator) -> Tensor:
    noise = torch.randn(1, 1, _BOX, _BOX, _BOX, generator=generator)
    for _ in range(2):
        noise = torch.nn.functional.avg_pool3d(noise, 3, 1, 1)
    return noise[0, 0]


def _largest(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest size."""
    return float((found - expected).abs().max() / expected.abs().max())


def _check_products() -> OperationCheck:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 256, 256, generator=generator)
    exact = first.double() @ second.double()
    size = first.double().abs() @ second.double().abs()
    error = float(((first @ second).double() - exact).abs().div(size).max())
    # A sum of 256 products: the bound of any order of summation.
    return OperationCheck("products of matrices", error, 256 * _SINGLE)


def _check_transforms() -> OperationCheck:
    cube = _smooth_noise(torch.Generator().manual_seed(2))
    found = oversampled_transform(cube, 2 * _BOX, _BOX - 1)
    whole = torch.nn.functional.pad(cube.double(), (_BOX // 2,) * 6)
    full = real_fourier_transform_3d(torch.fft.ifftshift(whole))
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
    whole = torch.fft.fftshift(inverse_real_fourier_transform_3d(full, padded))
    middle = slice((padded - box) // 2, (padded + box) // 2)
    return whole[middle, middle, middle]


def _slices(problem: _Problem) -> Tensor:
    images = problem.images
    return extract_slices(problem.volume, problem.latents.pose.rotation, images.disc)


def _insertion(problem: _Problem) -> Tensor:
    images, empty = problem.images, torch.zeros_like(problem.sums.sums)
    sums = replace(problem.sums, sums=empty)
    weights = images.ctf.square()
    rotation = problem.latents.pose.rotation
    insert_slices(sums, rotation, images.disc, images.coefficients, weights)
    return sums.sums


def _shifts(problem: _Problem) -> Tensor:
    return problem.images.moved_back(problem.latents.pose.shift_angstrom)


def _likelihood(problem: _Problem) -> Tensor:
    return problem.projector.log_likelihood(problem.images, problem.latents)


def _grid(problem: _Problem) -> Tensor:
    images, pose = problem.images, problem.latents.pose
    grid = PoseGrid(pose.rotation, pose.shift_angstrom.float())
    slices = GridSlices.of(problem.volume, grid, images.disc, images.scale)
    return slices.log_likelihood(images)


def _information(problem: _Problem) -> Tensor:
    images, prior = problem.images, PosePrior(1e6, 0.0)
    found = problem.projector.normal_equations(images, problem.latents, prior)
    # Unknowns have units: a shift by the lever moves as much as a turn by a radian.
    lever = ReferenceGrid(_BOX, _PIXEL_SIZE_ANGSTROM).lever_angstrom
    unit = torch.tensor([1.0, 1.0, 1.0, lever, lever], dtype=torch.float64)
    return found.information[:, :5, :5] * unit[:, None] * unit


def _weights(problem: _Problem) -> Tensor:
    return shell_sums(problem.sums).mean_weight


def _map(problem: _Problem) -> Tensor:
    return solve(problem.sums, torch.full((_RADIUS + 2,), 100.0), _BOX, _BOX)


def _symmetry(problem: _Problem) -> Tensor:
    return symmetrise(problem.sums, symmetry_rotations("C3")).sums


_COMPARISONS = (
    # Points are known to a rounding of the padded radius, some 20 voxels.
    _Comparison("slices of a volume", _slices, 100),
    _Comparison("insertion into a volume", _insertion, 100),
    # A phase of a few radian, and the products.
    _Comparison("shifts of images", _shifts, 20),
    # Sums of some 200 squares in single precision.
    _Comparison("likelihood of poses", _likelihood, 200),
    _Comparison("likelihood on a grid", _grid, 200),
    # Slopes across a cell are differences of its corners: a digit less than the sums.
    _Comparison("normal equations of poses", _information, 2000),
    # A plane adds up to some thousand voxels one by one.
    _Comparison("weights of shells", _weights, 2000, each=True),
    # The falloff divides the corners of the box by small numbers.
    _Comparison("map from sums", _map, 200),
    _Comparison("symmetry of sums", _symmetry, 100),
)


def _check_threads(problem: _Problem) -> OperationCheck:
    """Compare one thread with all, bit by bit."""
    threads, compiled = torch.get_num_threads(), numba.get_num_threads()

    def everything() -> list[Tensor]:
        sums = _inserted(problem.volume)
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
