"""Atoms that move as a forward model: no map, no interpolation, exact slopes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations, images_at_defocus
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.physics.structures.slopes import (
    DiscView,
    coefficients,
    coefficients_and_slopes,
)
from cryoinfer.records import Latents


@dataclass(frozen=True)
class MovingProjector:
    """Atoms or beads that move along modes.

    A :class:`cryoinfer.inference.projector.Projector`.

    Attributes
    ----------
    moving : MovingAtoms
        In single precision.
    grid : ReferenceGrid
        In whose units the images were whitened.
    coarse : MovingAtoms
        What stands for the atoms at low radii: beads, say.
    coarse_radius : int
        The largest Fourier radius of the grid at which it does.
    """

    moving: MovingAtoms
    grid: ReferenceGrid
    coarse: MovingAtoms
    coarse_radius: int

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return exact coefficients of the atoms in their conformations."""
        pose = latents.pose
        centred = replace(pose, shift_angstrom=torch.zeros_like(pose.shift_angstrom))
        return self._values(images, replace(latents, pose=centred))

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Return minus the squared residual of each whitened image, float64, (n,)."""
        images = images.at_defocus_offset(latents.defocus_offset_angstrom)
        shown = self._values(images, latents)
        residual = images.coefficients - images.ctf * shown
        return -torch.view_as_real(residual).square().sum((1, 2)).double()

    def _values(self, images: WhitenedImages, latents: Latents) -> Tensor:
        return coefficients(self._moving(images), latents, self._view(images))

    def _moving(self, images: WhitenedImages) -> MovingAtoms:
        """Return the atoms, or what stands for them at the radius of images."""
        reach = float(images.disc.kx.max()) * images.scale
        return self.coarse if reach <= self.coarse_radius else self.moving

    def _view(self, images: WhitenedImages) -> DiscView:
        unit = 1 / (self.grid.box * self.grid.pixel_size_angstrom**2)
        return DiscView(images.disc, images.pixel_size_angstrom, unit)

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> NormalEquations:
        """Return the likelihood and its derivatives at latents of n images."""
        free = prior.precision >= 0
        images, ctf_slope = images_at_defocus(images, latents, prior)
        tilts = bool(free[0])
        view = self._view(images)
        shown, slopes = coefficients_and_slopes(
            self._moving(images), latents, view, tilts
        )
        ctf = images.ctf[:, None]
        jacobian = torch.cat(
            [
                slopes[:, :5] * ctf,
                torch.zeros_like(slopes[:, :1])
                if ctf_slope is None
                else (ctf_slope * shown)[:, None],
                slopes[:, 5:] * ctf,
            ],
            dim=1,
        )
        residual = images.coefficients - images.ctf * shown
        return NormalEquations.of_residuals(residual, jacobian, free)
