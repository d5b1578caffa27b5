"""Encoders as inferences: one pass, and a short climb, and draws about both."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.inference.encoder_inputs import encoder_inputs, picture_radius
from cryoinfer.inference.importance import ImportanceSampling, mixed
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_network import PoseNetwork
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.records import ParticleBatch

SAME_AREA = 1e-3
"""Relative difference of image areas that a picture does not show."""

_WIDER = 1.3
"""Standard deviations of what is drawn from about a top, over those of the climb: no
weight makes up for draws that a tail lacks."""

_NAMED_SHARE = 0.5  # of the draws, about what the encoder names


def grid_of(batch: ParticleBatch, learned: ReferenceGrid) -> ReferenceGrid:
    """Return a learned grid in the images' own length.

    A difference of area that does not show must not cost a picture its last ring.
    """
    length = batch.images.shape[-1] * float(batch.optics.pixel_size_angstrom[0])
    return ReferenceGrid(learned.box, length / learned.box)


S = TypeVar("S", bound=Projector)


@dataclass(frozen=True)
class PoseEncoder:
    """Infer poses by one pass of a network.

    An :class:`cryoinfer.interfaces.Inference`.

    Attributes
    ----------
    network : PoseNetwork
    grid : ReferenceGrid
        The box of the map that it learned.
    noise_power : tuple of Tensor, each shape (rings,)
        Per optics group and ring.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is, the identity among them: modes are
        brought to the mates nearest to each other.
    """

    network: PoseNetwork
    grid: ReferenceGrid
    noise_power: tuple[torch.Tensor, ...]
    symmetry: Tensor

    @property
    def radius(self) -> int:
        """Largest Fourier radius that the network is shown, in pixels."""
        return picture_radius(self.network.config.side)

    def infer(self, batch: ParticleBatch) -> ParticlePosterior:
        """Return the posterior of every particle; all must be of one optics group.

        Raises
        ------
        InputError
            If the images cover another area than those of the training, or are not
            finite.
        """
        return self.infer_whitened(self.whitened(batch, self.radius))

    def whitened(self, batch: ParticleBatch, radius: int) -> WhitenedImages:
        """Whiten images to a radius, all of one optics group.

        Raises
        ------
        InputError
            As :meth:`infer`.
        """
        grid = grid_of(batch, self.grid)
        found, learned = grid.length_angstrom, self.grid.length_angstrom
        if abs(found / learned - 1) > SAME_AREA:
            raise InputError(
                f"the encoder learned images that are {learned:.1f} A across, found "
                f"{found:.1f} A; crop or pad the images to that size, or train on these"
            )
        noise = self.noise_power[int(batch.optics.group[0])]
        return whiten(batch, grid, radius, noise)

    def infer_whitened(self, images: WhitenedImages) -> ParticlePosterior:
        """Return the posterior of images that were whitened to any radius.

        Coefficients beyond the network's picture are not looked at.
        """
        network = self.network
        inputs = encoder_inputs(images, network.config.side)
        with torch.no_grad():
            parameters = network(inputs)
        return network.posterior(parameters).folded(self.symmetry)


@dataclass(frozen=True)
class SemiAmortized(Generic[S]):
    """Let an encoder name the modes, and climb to their tops.

    An :class:`cryoinfer.interfaces.Inference`.

    Attributes
    ----------
    encoder : PoseEncoder
    refinement : ModeRefinement
    """

    encoder: PoseEncoder
    refinement: ModeRefinement[S]

    def infer(self, batch: ParticleBatch) -> ParticlePosterior:
        """Return the posterior of every particle; all must be of one optics group."""
        return self.infer_whitened(self.whitened(batch))

    def whitened(self, batch: ParticleBatch) -> WhitenedImages:
        """Whiten images of one optics group to the last radius."""
        return self.encoder.whitened(batch, self.refinement.radii[-1])

    def infer_whitened(self, images: WhitenedImages) -> ParticlePosterior:
        """Return the posterior of images that were whitened to the last radius."""
        return self.refinement.refine(images, self.encoder.infer_whitened(images))


@dataclass(frozen=True)
class Sampled(Generic[S]):
    """Let an encoder name the modes, climb to their tops, and sample about both.

    An :class:`cryoinfer.interfaces.Inference`. The tops are where the density is, and
    what the encoder names is what is to be reached.

    Attributes
    ----------
    semi : SemiAmortized
    sampling : ImportanceSampling
        Of the same projector, prior and symmetry.
    """

    semi: SemiAmortized[S]
    sampling: ImportanceSampling

    @classmethod
    def of(cls, semi: SemiAmortized[S]) -> "Sampled[S]":
        """Return the inference that goes on from where climbs end."""
        refinement = semi.refinement
        sampling = ImportanceSampling(
            refinement.projector, refinement.prior, refinement.symmetry
        )
        return cls(semi, sampling)

    def infer(self, batch: ParticleBatch) -> ParticlePosterior:
        """Return the posterior of every particle; all must be of one optics group."""
        return self.infer_whitened(self.semi.whitened(batch))

    def infer_whitened(self, images: WhitenedImages) -> ParticlePosterior:
        """Return the posterior of images that were whitened to the last radius."""
        named = self.semi.encoder.infer_whitened(images)
        tops = self.semi.refinement.refine(images, named)
        unknowns = tops.covariance.shape[-1]
        wider = torch.full((unknowns,), _WIDER, dtype=torch.float64)
        start = mixed(tops.inflated(wider), named, _NAMED_SHARE)
        return self.sampling.of(images, start)
