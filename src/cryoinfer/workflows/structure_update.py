"""The M-step: a structure from sums over the particles, each half-set's its own.

:class:`StructureUpdate` is what the loop asks of a structure; :class:`MapUpdate` makes
it a map. A structure of several maps, or one of your own, is another class with the
same methods (docs/extending.md).
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_mean
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.evaluation.rigid_search import resampled
from cryoinfer.fourier.slices import (
    DEFAULT_PADDING,
    FourierVolume,
    SliceAccumulator,
    insert_slices,
)
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.reconstruction.backproject import signal_to_noise, solve
from cryoinfer.reconstruction.mask import soft_mask, soft_sphere
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.records import Latents
from cryoinfer.workflows.particle_pass import InferredBatch
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.residual_noise import own_share

_SOFT_EDGE = 2.0  # voxels of the sphere

_LESS_PADDING = 1.5
_LARGEST_WELL_PADDED = 192
"""Fourier radius up to which there is memory for the larger padding: two volumes and
two sums of a box of 512 would be 27 GB, and are 11 GB. The error of interpolation is
twice as large, 4 % of an amplitude at a quarter of the box from the centre; at such
radii images have far more noise than that."""

THRESHOLD = 0.143

P_co = TypeVar("P_co", covariant=True)
A = TypeVar("A")


@dataclass(frozen=True)
class UpdatedStructure:
    """The references for the next iteration, and how far the halves agree.

    Attributes
    ----------
    maps : tuple of two Tensor, shape (..., m, m, m)
        Of the half-sets, filtered and masked.
    mask : Tensor, shape (m, m, m)
    fsc : Tensor of float32, shape (shells,)
        Of the half-maps, masked, to the Fourier radius of the sums.
    overfitting : Tensor of float32, shape (m // 2 + 1,)
        By shell, the power of the noise over that of the residual: a reference has
        learnt a little of the noise of every image that is in it.
    """

    maps: tuple[Tensor, Tensor]
    mask: Tensor
    fsc: Tensor
    overfitting: Tensor


def padding_at(radius: int) -> float:
    """Return the padding of volumes and sums that reach to a Fourier radius."""
    return DEFAULT_PADDING if radius <= _LARGEST_WELL_PADDED else _LESS_PADDING


def reference_volume(density: Tensor, radius: int) -> FourierVolume:
    """Return the transform of a map to a Fourier radius, padded as there is memory."""
    return FourierVolume.from_map(density, radius, padding_at(radius))


class StructureUpdate(Protocol[P_co, A]):
    """Makes the structure of the next iteration; P projects it, A are its sums."""

    def projector(self, maps: Tensor, radius: int) -> P_co:
        """Return the forward model of one half-set's structure.

        Parameters
        ----------
        maps : Tensor, shape (..., m, m, m)
            On the CPU.
        radius : int
            Fourier radius that the maps hold.
        """
        ...

    def empty(self, radius: int) -> A:
        """Return sums of both half-sets to a Fourier radius, of no particle yet.

        An :class:`cryoinfer.workflows.particle_pass.Accumulator`.
        """
        ...

    def solve(self, sums: A, agreement_radius: int) -> UpdatedStructure:
        """Return the next structure of each half-set.

        Parameters
        ----------
        sums : Accumulator
            Of all particles.
        agreement_radius : int
            Fourier radius to which the halves agreed before.
        """
        ...


@dataclass(frozen=True)
class HalfMapSums:
    """Sums of slices of both half-sets; an :class:`Accumulator`.

    Attributes
    ----------
    first, second : SliceAccumulator
    """

    first: SliceAccumulator
    second: SliceAccumulator

    @classmethod
    def empty(
        cls, box: int, radius: int, device: torch.device | str = "cpu"
    ) -> "HalfMapSums":
        """Return the sums of no particle, on the device of the images to come."""
        first, second = (
            SliceAccumulator.empty(box, radius, padding_at(radius), device)
            for _ in range(2)
        )
        return cls(first, second)

    def add(self, one: InferredBatch[object]) -> None:
        """Insert images at the best modes of their posteriors."""
        sums = self.second if one.half else self.first
        insert_images(sums, one.images, one.placed.mode())

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The sums."""
        return self.first.sums, self.second.sums

    def symmetrised(
        self, symmetry_rotation: Tensor
    ) -> tuple[SliceAccumulator, SliceAccumulator]:
        """Return the sums of all mates of the particles, on the CPU.

        There maps are made of them, once for all particles.
        """
        first, second = (
            symmetrise(one.to("cpu"), symmetry_rotation)
            for one in (self.first, self.second)
        )
        return first, second


def insert_images(
    sums: SliceAccumulator,
    images: WhitenedImages,
    latents: Latents,
    share: Tensor | None = None,
) -> None:
    """Add images at their poses to sums, up to the Fourier radius of these.

    Parameters
    ----------
    sums : SliceAccumulator
    images : WhitenedImages
        Of n particles.
    latents : Latents
    share : Tensor, shape (n,), optional
        What each counts for; by default 1.
    """
    if not len(images):
        return
    offset, pose = latents.defocus_offset_angstrom, latents.pose
    moved = images.prefix(sums.radius).at_defocus_offset(offset)
    values = moved.moved_back(pose.shift_angstrom)
    torch.view_as_real(values).mul_(moved.ctf[..., None])
    weight = moved.ctf.square()
    if share is not None:
        values = (values * share[:, None]).to(values.dtype)
        weight = weight * share[:, None].to(weight)
    insert_slices(sums, pose.rotation, moved.disc, values, weight, moved.scale)


@dataclass(frozen=True)
class MapUpdate:
    """Makes one map of each half: the closed-form Wiener solution, masked.

    A :class:`StructureUpdate`.

    Attributes
    ----------
    problem : Problem
    """

    problem: Problem

    def projector(self, maps: Tensor, radius: int) -> MapProjector:
        """Return the slices of a map, on the device."""
        there = maps.to(self.problem.device)
        return MapProjector(reference_volume(there, radius))

    def empty(self, radius: int) -> HalfMapSums:
        """Return the sums of no particle."""
        problem = self.problem
        return HalfMapSums.empty(problem.grid.box, radius, problem.device)

    def solve(self, sums: HalfMapSums, agreement_radius: int) -> UpdatedStructure:
        """Return the next map of each half-set."""
        problem, reach = self.problem, sums.first.radius
        box, map_box = problem.grid.box, problem.map_box(reach)
        both = sums.symmetrised(problem.symmetry_rotation)
        halves = [solve(s, None, box, map_box) for s in both]
        mask = find_mask(problem, halves[0] + halves[1], agreement_radius)
        fsc = fourier_shell_correlation(halves[0] * mask, halves[1] * mask).float()
        shells = min(reach, map_box // 2 - 1)
        snr = signal_to_noise(fsc[: shells + 1], joined=False)
        first, second = (solve(s, snr, box, map_box) * mask for s in both)
        # Of what an image adds to the sums the mask leaves the share of its volume.
        own = own_share(problem, both[0], len(fsc)) * reproducible_mean(mask)
        overfitting = 1 + 2 * fsc.clamp(min=0.0) * own
        return UpdatedStructure((first, second), mask, fsc[: shells + 1], overfitting)


def particle_sphere(problem: Problem, map_box: int) -> Tensor:
    """Return the soft sphere that the particle lies in, on the grid of a map."""
    voxel = problem.grid.length_angstrom / map_box
    radius = problem.particle_radius_angstrom / voxel
    return soft_sphere(map_box, radius, _SOFT_EDGE)


def find_mask(problem: Problem, density: Tensor, radius: int) -> Tensor:
    """Return the particle's soft mask on the grid of a map: the user's, or one found.

    What is found lies within the sphere. Where the halves agree to no radius at all, 0,
    it is of the lowest one.
    """
    map_box = density.shape[-1]
    if problem.mask is not None and map_box == problem.grid.box:
        return problem.mask.to(density)
    if problem.mask is not None:
        # Without what coarse voxels cannot hold; that overshoots at the edge.
        return resampled(problem.mask, map_box).clamp(0.0, 1.0).to(density)
    voxel = problem.grid.length_angstrom / map_box
    sphere = particle_sphere(problem, map_box)
    resolution = problem.grid.resolution_at(max(radius, 1))
    low_pass = max(1.5 * resolution, problem.grid.length_angstrom / 12)
    return sphere * soft_mask(density * sphere, voxel, low_pass)
