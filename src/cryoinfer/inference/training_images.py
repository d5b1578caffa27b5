"""Images to learn from: a map, or atoms that move, through the data's own optics.

Any number can be made, and of each the pose is known: learning from them is learning
the exact posterior of what is shown (forward Kullback-Leibler divergence), for images
that it, the CTFs and the noise explain.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cryoinfer.geometry.rotation_volume import ALL_TURNS, IN_PLANE
from cryoinfer.geometry.rotations import random_rotations, random_turns_in_plane
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, Pose

S = TypeVar("S", bound=Projector)


@dataclass(frozen=True)
class TrainingImages(Generic[S]):
    """A source of simulated images.

    Attributes
    ----------
    projector : Projector
        What is shown, known to the radius of the templates.
    templates : tuple of WhitenedImages
        Particles of each optics group, whose CTFs and noise are lent.
    prior : PosePrior
        What is unknown, and is drawn from it.
    """

    projector: S
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
        shown = self.projector.coefficients(latents, lent)
        clean = replace(true, coefficients=true.ctf * shown)
        shape = clean.coefficients.shape
        # Of unit power, half of it in each of the real and the imaginary part.
        noise = torch.randn(shape, generator=generator, dtype=torch.complex64)
        moved = clean.moved_back(-latents.pose.shift_angstrom)
        # With the CTF of the given defocus, which is all that a reader knows.
        return replace(lent, coefficients=moved + noise), latents

    def _latents(self, count: int, generator: torch.Generator) -> Latents:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        sd = self.prior.unknowns_sd_angstrom
        drawn = normal(count, len(sd)) * sd
        if self.prior.rotation_unknowns not in (ALL_TURNS, IN_PLANE):
            raise ValueError("images of known rotations are not to be learned from")
        if self.prior.rotation_unknowns == IN_PLANE:
            rotation = random_turns_in_plane(count, generator)
        else:
            rotation = random_rotations(count, generator)
        return Latents(Pose(rotation, drawn[:, :2]), drawn[:, 2], drawn[:, 3:])


def drawn_batches(
    source: TrainingImages[S],
    count: int,
    generator: torch.Generator,
    of_one_group: int = 100,
) -> Iterator[tuple[WhitenedImages, Latents]]:
    """Yield simulated images and their truths, in batches of one optics group each."""
    for rows in torch.arange(count).split(of_one_group):
        yield source.draw(len(rows), generator)
