"""Images as a run reads them: whitened, and those that cannot be read left out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    is_finite,
    whiten,
)
from cryoinfer.records import ParticleBatch
from cryoinfer.workflows.particle_pass import PreparedBatch


@dataclass(frozen=True)
class StrictImages:
    """Images that all have to be finite.

    An :class:`cryoinfer.workflows.particle_pass.ImageSource`.

    Attributes
    ----------
    grid : ReferenceGrid
    radius : int
        Fourier radius that images are whitened to.
    noise : tuple of Tensor
        Noise power per optics group and ring.
    """

    grid: ReferenceGrid
    radius: int
    noise: tuple[Tensor, ...]

    def prepare(self, batch: ParticleBatch) -> PreparedBatch:
        """Return all particles of a batch.

        Raises
        ------
        InputError
            If an image holds NaN or infinite pixels.
        """
        noise = self.noise[int(batch.optics.group[0])]
        return PreparedBatch(batch, whiten(batch, self.grid, self.radius, noise))


@dataclass(frozen=True)
class ReadableImages:
    """Those images that can be read.

    An :class:`cryoinfer.workflows.particle_pass.ImageSource`.

    Attributes
    ----------
    grid : ReferenceGrid
    radius : int
        Fourier radius that images are whitened to.
    noise : tuple of Tensor
        Noise power per optics group and ring.
    sigma_a : Tensor, shape (rings,), optional
        What images show of the structure, per ring of the grid
        (:class:`cryoinfer.workflows.noise_and_scale.NoiseAndScale`).
    """

    grid: ReferenceGrid
    radius: int
    noise: tuple[Tensor, ...]
    sigma_a: Tensor | None = None

    def prepare(self, batch: ParticleBatch) -> PreparedBatch | None:
        """Return the particles of a batch that can be read, if there are any."""
        return readable(batch, self.whitened)

    def whitened(self, batch: ParticleBatch) -> WhitenedImages:
        """Whiten images that can all be read."""
        noise = self.noise[int(batch.optics.group[0])]
        images = whiten(batch, self.grid, self.radius, noise)
        return images if self.sigma_a is None else images.attenuated(self.sigma_a)


def readable(
    batch: ParticleBatch, whitened: Callable[[ParticleBatch], WhitenedImages]
) -> PreparedBatch | None:
    """Return those particles of a batch that can be read, if there are any.

    Those without NaN or infinite pixels, and not so bright over the noise that their
    power is beyond single precision.

    Parameters
    ----------
    batch : ParticleBatch
    whitened : callable
        Whitens finite images.
    """
    batch = batch[is_finite(batch.images)]
    if not len(batch):
        return None
    images = whitened(batch)
    clear = images.coefficients.abs().square().sum(1).isfinite()
    if bool(clear.all()):
        return PreparedBatch(batch, images)
    kept = torch.nonzero(clear).squeeze(1)
    return PreparedBatch(batch[kept], images.select(kept)) if len(kept) else None
