"""A map as a forward model: slices, their likelihood, and the fused refinement."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.inference.compiled_refinement import map_loop, refine_compiled
from cryoinfer.inference.local_refinement import refine_by_normal_equations
from cryoinfer.inference.map_equations import map_normal_equations
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.pose_scores import score_poses
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.operations import Operation
from cryoinfer.records import Latents


@dataclass(frozen=True)
class MapProjector:
    """A map, which has no conformations.

    A :class:`cryoinfer.inference.projector.Projector`.

    Attributes
    ----------
    volume : FourierVolume
    """

    volume: FourierVolume

    @property
    def device(self) -> torch.device:
        """Where the map is."""
        return self.volume.device

    @property
    def radius(self) -> int:
        """Largest Fourier radius of the map."""
        return self.volume.radius

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return slices of the map."""
        rotation = latents.pose.rotation
        return extract_slices(self.volume, rotation, images.disc, images.scale)

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Return minus the squared residual of each image at its latents, (n,).

        Returns
        -------
        Tensor of float64, shape (n,)
            Summed in single precision: to a millionth of the images' power.
        """
        images = images.at_defocus_offset(latents.defocus_offset_angstrom)
        rotation, shift = latents.pose.rotation, latents.pose.shift_angstrom
        scores = self.scores(images, rotation[:, None], shift[:, None])[:, 0, 0]
        power = torch.view_as_real(images.coefficients).square().sum((1, 2))
        return scores.double() - power.double()

    def scores(
        self, images: WhitenedImages, rotation: Tensor, shift_angstrom: Tensor
    ) -> Tensor:
        """Return the log-likelihood of rotations by shifts.

        Without the constant of the image.

        Parameters
        ----------
        images : WhitenedImages
            Of n images, within the map's radius.
        rotation : Tensor, shape (n, m, 3, 3)
        shift_angstrom : Tensor, shape (n, s, 2)

        Returns
        -------
        Tensor of float32, shape (n, m, s)
        """
        return score_poses(self.volume, images, rotation, shift_angstrom)

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> NormalEquations:
        """Return the likelihood and its derivatives at latents of n images."""
        return map_normal_equations(self.volume, images, latents, prior)

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
    projector: MapProjector,
    images: WhitenedImages,
    start: Latents,
    prior: PosePrior,
    steps: int,
    max_rotation_radian: float,
) -> PosteriorModes:
    loop = map_loop(projector.volume)
    return refine_compiled(loop, images, start, prior, steps, max_rotation_radian)


_refine = Operation(
    "local refinement of poses", refine_by_normal_equations, cpu=_refine_compiled
)
