"""What images show, as inference needs it: simulated, and climbed towards."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.inference.refine import LocalPoses, PosePrior, gauss_newton
from cryoinfer.inference.search import log_likelihood
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents


class Scored(Protocol):
    """What tells how likely an image is."""

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Return minus the squared residual of each whitened image, float64, (n,)."""
        ...


class Subject(Scored, Protocol):
    """A map, or atoms that move."""

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return what images of n latents show before CTF and shift, (n, p).

        On the disc of the images, in units in which their CTF is to be multiplied.
        """
        ...

    def climb(
        self,
        images: WhitenedImages,
        start: LocalPoses,
        prior: PosePrior,
        steps: int,
        max_turn_radian: float,
    ) -> LocalPoses:
        """Climb to the mode of each image's posterior, as :func:`gauss_newton` does."""
        ...


@dataclass(frozen=True)
class MapSubject:
    """A map, which does not move.

    A :class:`Subject`.

    Attributes
    ----------
    volume : FourierVolume
    """

    volume: FourierVolume

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return slices of the map."""
        rotation = latents.pose.rotation
        return extract_slices(self.volume, rotation, images.disc, images.scale)

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Compare by the compiled loop of maps, at the defoci of the latents."""
        images = images.at_defocus_offset(latents.defocus_offset_angstrom)
        return log_likelihood(self.volume, images, latents.pose)

    def climb(
        self,
        images: WhitenedImages,
        start: LocalPoses,
        prior: PosePrior,
        steps: int,
        max_turn_radian: float,
    ) -> LocalPoses:
        """Climb by the compiled loop of maps."""
        return gauss_newton(self.volume, images, start, prior, steps, max_turn_radian)
