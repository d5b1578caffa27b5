"""An encoder as an inference: one pass of a network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.inference.encoder_inputs import encoder_inputs, picture_radius
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_network import PoseNetwork
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.records import ParticleBatch

SAME_AREA = 1e-3
"""Relative difference of image areas that a picture does not show."""


def grid_of(batch: ParticleBatch, learned: ReferenceGrid) -> ReferenceGrid:
    """Return a learned grid in the images' own length, where these are of its area.

    A difference of area that does not show must not cost a picture its last ring.
    """
    length = batch.images.shape[-1] * float(batch.optics.pixel_size_angstrom[0])
    if abs(length / learned.length_angstrom - 1) > SAME_AREA:
        return learned
    return ReferenceGrid(learned.box, length / learned.box)


@dataclass(frozen=True)
class PoseEncoder:
    """Infer poses by one pass of a network.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`.

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

    def infer(
        self,
        images: WhitenedImages,
        projector: Projector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return :meth:`posterior`: a network has learned projector and prior."""
        return self.posterior(images)

    def whitened(self, batch: ParticleBatch, radius: int) -> WhitenedImages:
        """Whiten images to a radius, all of one optics group.

        Raises
        ------
        InputError
            If the images cover another area than those of the training, or are not
            finite.
        """
        grid, learned = grid_of(batch, self.grid), self.grid.length_angstrom
        found = batch.images.shape[-1] * float(batch.optics.pixel_size_angstrom[0])
        if abs(found / learned - 1) > SAME_AREA:
            raise InputError(
                f"the encoder learned images that are {learned:.1f} A across, found "
                f"{found:.1f} A; crop or pad the images to that size, or train on these"
            )
        noise = self.noise_power[int(batch.optics.group[0])]
        return whiten(batch, grid, radius, noise)

    def posterior(self, images: WhitenedImages) -> ParticlePosterior:
        """Return the posterior of images that were whitened to any radius.

        Coefficients beyond the network's picture are not looked at.
        """
        network = self.network
        inputs = encoder_inputs(images, network.config.side)
        with torch.no_grad():
            parameters = network(inputs)
        return network.posterior(parameters).folded(self.symmetry)
