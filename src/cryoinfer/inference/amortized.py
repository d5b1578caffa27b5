"""Encoders as inferences: one pass, or one pass and a short climb."""

from dataclasses import dataclass

import torch

from cryoinfer.errors import InputError
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.encoder_inputs import encoder_inputs, picture_radius
from cryoinfer.inference.pose_network import PoseNetwork
from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.inference.refine import (
    LocalPoses,
    PosePrior,
    covariance_of,
    gauss_newton,
)
from cryoinfer.inference.search import laplace_log_evidence
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.records import ParticleBatch

SAME_AREA = 1e-3
"""Relative difference of image areas that a picture does not show."""

_STEPS = 4  # of a climb at one radius


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
    """

    network: PoseNetwork
    grid: ReferenceGrid
    noise_power: tuple[torch.Tensor, ...]

    def infer(self, batch: ParticleBatch) -> PoseMixture:
        """Return the posterior of every particle; all must be of one optics group.

        Raises
        ------
        InputError
            If the images cover another area than those of the training, or are not
            finite.
        """
        side = self.network.config.side
        group = int(batch.optics.group[0])
        found = batch.images.shape[-1] * float(batch.optics.pixel_size_angstrom[0])
        learned = self.grid.length_angstrom
        if abs(found / learned - 1) > SAME_AREA:
            raise InputError(
                f"the encoder learned images that are {learned:.1f} A across, found "
                f"{found:.1f} A; crop or pad the images to that size, or train on these"
            )
        # Of the images' own length: a difference that does not show costs no ring.
        own = ReferenceGrid(self.grid.box, found / self.grid.box)
        noise = self.noise_power[group]
        return self.infer_whitened(whiten(batch, own, picture_radius(side), noise))

    def infer_whitened(self, images: WhitenedImages) -> PoseMixture:
        """Return the posterior of whitened images."""
        network = self.network
        inputs = encoder_inputs(images, network.config.side)
        device = inputs.picture.device.type
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16):
            parameters = network(inputs)
        return network.posterior(parameters)


@dataclass(frozen=True)
class SemiAmortized:
    """Let an encoder name the modes, and climb to their tops.

    An :class:`cryoinfer.interfaces.Inference`. A radius at a time, so that every
    climb starts within reach of the next.

    Attributes
    ----------
    encoder : PoseEncoder
    volume : FourierVolume
        Of the map, to the largest radius.
    prior : PosePrior
    radii : tuple of int
        Fourier radii of the climbs, from low to high.
    modes : int
        Of the encoder, that are climbed at the first radius; the likeliest goes on.
    """

    encoder: PoseEncoder
    volume: FourierVolume
    prior: PosePrior
    radii: tuple[int, ...]
    modes: int = 2

    def infer(self, batch: ParticleBatch) -> PoseMixture:
        """Return the posterior of every particle; all must be of one optics group."""
        named = self.encoder.infer(batch)
        noise = self.encoder.noise_power[int(batch.optics.group[0])]
        images = whiten(batch, self.encoder.grid, self.radii[-1], noise)
        poses = self._likeliest(images.prefix(self.radii[0]), named)
        for radius in self.radii[1:]:
            poses = self._climbed(images.prefix(radius), poses, radius)
        ones = torch.ones(len(poses), 1, dtype=torch.float64)
        return PoseMixture.of_modes(
            poses.rotation[:, None],
            poses.shift_angstrom[:, None],
            poses.defocus_offset_angstrom[:, None],
            ones,
            covariance_of(poses.information)[:, None],
        )

    def _likeliest(self, images: WhitenedImages, named: PoseMixture) -> LocalPoses:
        n, count = len(named), min(self.modes, named.weight.shape[1])
        starts = LocalPoses.at(
            named.rotation[:, :count].flatten(0, 1),
            named.shift_angstrom[:, :count].flatten(0, 1),
            named.defocus_offset_angstrom[:, :count].flatten(),
        )
        repeated = images.select(torch.arange(n).repeat_interleave(count))
        tops = self._climbed(repeated, starts, self.radii[0])
        evidence = laplace_log_evidence(tops, self.prior).view(n, count)
        return tops.select(torch.arange(n) * count + evidence.argmax(1))

    def _climbed(
        self, images: WhitenedImages, poses: LocalPoses, radius: int
    ) -> LocalPoses:
        longest = 2 / radius
        return gauss_newton(self.volume, images, poses, self.prior, _STEPS, longest)
