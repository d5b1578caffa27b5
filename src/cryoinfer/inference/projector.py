"""The forward model as inference sees it: p(image | latents) on whitened images."""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Indexable, Latents


@dataclass(frozen=True)
class NormalEquations(Indexable):
    """The log-likelihood of n images about their latents, to second order.

    Unknowns are the rotation vector in the image frame (radian), the shift, the
    defocus and the conformation (angstrom).

    Attributes
    ----------
    log_likelihood : Tensor of float64, shape (n,)
        Minus the squared residual of the whitened image.
    gradient : Tensor of float64, shape (n, 6 + c)
    information : Tensor of float64, shape (n, 6 + c, 6 + c)
        Minus the second derivative, as Gauss and Newton approximate it.

    Gradient and information are zero where the prior holds an unknown.
    """

    log_likelihood: Tensor
    gradient: Tensor
    information: Tensor

    @classmethod
    def of_residuals(cls, residual: Tensor, jacobian: Tensor, free: Tensor) -> Self:
        """Return the equations of what projections leave of images.

        Parameters
        ----------
        residual : Tensor, complex, shape (n, p)
        jacobian : Tensor, complex, shape (n, 6 + c, p)
            Derivatives of the projections, CTF and shift included.
        free : Tensor of bool, shape (6 + c,)
            Which unknowns are not held.
        """
        flat = torch.view_as_real(jacobian).flatten(2)
        flat = flat * free[:, None].to(flat)
        left = torch.view_as_real(residual).flatten(1)
        return cls(
            -left.square().sum(1).double(),
            2 * (flat @ left[..., None])[..., 0].double(),
            2 * (flat @ flat.mT).double(),
        )


class ImageLikelihood(Protocol):
    """What tells how likely an image is."""

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Return minus the squared residual of each whitened image, float64, (n,)."""
        ...


class Projector(ImageLikelihood, Protocol):
    """A structure, ready to be compared with whitened images.

    The only forward model that inference knows: a map
    (:class:`cryoinfer.inference.map_projector.MapProjector`), atoms that move
    (:class:`cryoinfer.inference.moving_projector.MovingProjector`), or one of your own.
    """

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return projections before CTF and shift, complex64, (n, p).

        On the disc of the images, in units in which their CTF is to be multiplied.
        """
        ...

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> NormalEquations:
        """Return the likelihood and its derivatives at latents of n images.

        ``prior`` says which unknowns are held; it is not part of what is returned.
        """
        ...


def images_at_defocus(
    images: WhitenedImages, latents: Latents, prior: PosePrior
) -> tuple[WhitenedImages, Tensor | None]:
    """Return images with the CTF at the defocus of latents.

    And the slope of the CTF by it, per angstrom, where the prior does not hold it
    (:meth:`WhitenedImages.with_defocus_offset`).
    """
    offset = latents.defocus_offset_angstrom
    if prior.defocus_sd_angstrom <= 0:
        return images.at_defocus_offset(offset), None
    return images.with_defocus_offset(offset)


def residual(projector: Projector, images: WhitenedImages, latents: Latents) -> Tensor:
    """Return what projections leave of images that are moved to the centre, (n, p)."""
    images = images.at_defocus_offset(latents.defocus_offset_angstrom)
    projections = projector.coefficients(latents, images)
    moved = images.moved_back(latents.pose.shift_angstrom)
    return moved - images.ctf * projections
