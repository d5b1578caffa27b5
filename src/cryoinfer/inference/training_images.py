"""Images to learn from: a map seen from anywhere, through the data's own optics.

Any number can be made, and of each the pose is known: learning from them is learning
the exact posterior of the map (forward Kullback-Leibler divergence), for images that
the map, the CTFs and the noise explain.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.refine import PosePrior
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, Pose


@dataclass(frozen=True)
class TrainingImages:
    """A source of simulated images.

    Attributes
    ----------
    volume : FourierVolume
        The map, known to the radius of the templates.
    templates : tuple of WhitenedImages
        Particles of each optics group, whose CTFs and noise are lent.
    prior : PosePrior
        What shifts and defoci are drawn from.
    """

    volume: FourierVolume
    templates: tuple[WhitenedImages, ...]
    prior: PosePrior

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[WhitenedImages, Latents]:
        """Return images of one group, likelier the more templates it has."""
        sizes = torch.tensor([float(len(one)) for one in self.templates])
        group = int(torch.multinomial(sizes, 1, generator=generator))
        template = self.templates[group]
        rows = torch.randint(len(template), (count,), generator=generator)
        latents = self._latents(count, generator)
        lent = template.select(rows)
        true = lent
        if self.prior.defocus_sd_angstrom > 0:
            true, _ = lent.with_defocus_offset(latents.defocus_offset_angstrom)
        rotation = latents.pose.rotation
        slices = extract_slices(self.volume, rotation, lent.disc, lent.scale)
        clean = replace(true, coefficients=true.ctf * slices)
        shape = clean.coefficients.shape
        # Of unit power, half of it in each of the real and the imaginary part.
        noise = torch.randn(shape, generator=generator, dtype=torch.complex64)
        moved = clean.moved_back(-latents.pose.shift_angstrom)
        # With the CTF of the given defocus, which is all that a reader knows.
        return replace(lent, coefficients=moved + noise), latents

    def _latents(self, count: int, generator: torch.Generator) -> Latents:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        shift = normal(count, 2) * self.prior.shift_sd_angstrom
        offset = normal(count) * self.prior.defocus_sd_angstrom
        return Latents(Pose(random_rotations(count, generator), shift), offset)
