"""A mean map and principal volumes as a forward model: maps linear in a latent z."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.fourier.slices import (
    DEFAULT_PADDING,
    FourierVolume,
    extract_slices,
)
from cryoinfer.inference.compiled_refinement import refine_compiled, subspace_loop
from cryoinfer.inference.local_refinement import refine_by_normal_equations
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations
from cryoinfer.inference.subspace_equations import (
    shares,
    subspace_normal_equations,
)
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.operations import Operation
from cryoinfer.records import Latents


@dataclass(frozen=True)
class SubspaceProjector:
    """Projections of ``mean + sum_k z_k component_k``.

    A :class:`cryoinfer.inference.projector.Projector`; z is the conformation of a
    particle.

    Attributes
    ----------
    mean : FourierVolume
    components : tuple of FourierVolume
        q of them, to the radius of the mean.
    """

    mean: FourierVolume
    components: tuple[FourierVolume, ...]

    @classmethod
    def of_maps(
        cls, maps: Sequence[Tensor], radius: int, padding: float = DEFAULT_PADDING
    ) -> Self:
        """Return the forward model of a mean map and components, to a radius."""
        mean, *components = (
            FourierVolume.from_map(one, radius, padding) for one in maps
        )
        return cls(mean, tuple(components))

    @property
    def device(self) -> torch.device:
        """Where the maps are."""
        return self.mean.device

    @property
    def radius(self) -> int:
        """Largest Fourier radius of the maps."""
        return self.mean.radius

    def at(self, conformation: Tensor) -> MapProjector:
        """Return the map of one conformation (q,) as a forward model."""
        values = self.mean.values.clone()
        for share, one in zip(conformation.tolist(), self.components, strict=True):
            values += share * one.values
        return MapProjector(replace(self.mean, values=values))

    def slices(self, rotation: Tensor, images: WhitenedImages) -> Tensor:
        """Return slices of the mean and every component, complex64, (n, 1 + q, p)."""
        volumes = (self.mean, *self.components)
        disc, scale = images.disc, images.scale
        each = [extract_slices(one, rotation, disc, scale) for one in volumes]
        return torch.stack(each, 1)

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return the slices of each particle's own map."""
        slices = self.slices(latents.pose.rotation, images)
        return (shares(latents)[..., None].to(slices) * slices).sum(1)

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Return minus the squared residual of each whitened image, float64, (n,)."""
        images = images.at_defocus_offset(latents.defocus_offset_angstrom)
        moved = images.moved_back(latents.pose.shift_angstrom)
        left = moved - images.ctf * self.coefficients(latents, images)
        return -torch.view_as_real(left).square().sum((1, 2)).double()

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> NormalEquations:
        """Return the likelihood and its derivatives at latents of n images."""
        return subspace_normal_equations(
            self.mean, self.components, images, latents, prior
        )

    def refine_locally(
        self,
        images: WhitenedImages,
        start: Latents,
        prior: PosePrior,
        steps: int,
        max_rotation_radian: float,
    ) -> PosteriorModes:
        """Refine by a compiled loop where the device has one, or step by step."""
        return _refine(self, images, start, prior, steps, max_rotation_radian)


def _refine_compiled(
    projector: SubspaceProjector,
    images: WhitenedImages,
    start: Latents,
    prior: PosePrior,
    steps: int,
    max_rotation_radian: float,
) -> PosteriorModes:
    loop = subspace_loop(projector.mean, projector.components)
    return refine_compiled(loop, images, start, prior, steps, max_rotation_radian)


_refine = Operation(
    "local refinement in a subspace", refine_by_normal_equations, cpu=_refine_compiled
)

MapsProjector = MapProjector | SubspaceProjector


def maps_projector(
    maps: Sequence[Tensor], radius: int, padding: float = DEFAULT_PADDING
) -> MapsProjector:
    """Return the forward model of one map, or of a mean map and components.

    Parameters
    ----------
    maps : sequence of Tensor, each of shape (n, n, n)
        One of them has the compiled refinement of a map.
    radius : int
    padding : float, optional
    """
    if len(maps) == 1:
        return MapProjector(FourierVolume.from_map(maps[0], radius, padding))
    return SubspaceProjector.of_maps(maps, radius, padding)
