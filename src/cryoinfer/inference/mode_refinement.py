"""Local refinement of several modes of a posterior side by side, radius by radius."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.mode_ranking import (
    contenders,
    distinct_modes,
    posterior_of_modes,
)
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import WhitenedImages

_STEPS = 4  # of a refinement at one radius

_WIDER_DRAWS = 2.0
"""Standard deviations of what draws are from, over those at the radius before: the
posterior has modes beyond the width of the one that was found."""

P = TypeVar("P", bound=Projector, contravariant=True)


@dataclass(frozen=True)
class ModeRefinement(Generic[P]):
    """Refines the modes that another inference proposes.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`; with an encoder as
    the proposal, inference is semi-amortized (Kim et al., ICML 2018). It goes a radius
    at a time, so that every refinement starts within reach of the next. Modes that are
    held for possible are refined side by side, until the image itself rules them out:
    what is left is weighed by Laplace's approximation.

    Attributes
    ----------
    proposal : PoseInference
        Of modes; what else it knows of them is not looked at.
    radii : tuple of int
        Fourier radii, from low to high.
    lever_angstrom : float
        Of rotations: they move nothing farther than what is that far off.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the structure as it is, the identity among them.
    modes : int
        That are refined at the first radius.
    draws : int
        From about what was found at a radius, that are refined beside it at the next:
        where an image says little, one mode at a low radius is many at a higher.
    seed : int
        Of the draws.
    """

    proposal: PoseInference[P]
    radii: tuple[int, ...]
    lever_angstrom: float
    symmetry: Tensor
    modes: int = 2
    draws: int = 0
    seed: int = 0

    def infer(
        self,
        images: WhitenedImages,
        projector: P,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors: Laplace's approximation about the refined modes."""
        proposed = self.proposal.infer(images, projector, prior, start)
        return self.refine(images, projector, prior, proposed)

    def refine(
        self,
        images: WhitenedImages,
        projector: P,
        prior: PosePrior,
        proposed: ParticlePosterior,
    ) -> ParticlePosterior:
        """Refine the modes of a posterior of the same images.

        Returns
        -------
        ParticlePosterior
            ``modes`` each, best first; those that were given up have no weight.
        """
        n, count = proposed.weight.shape[0], min(self.modes, proposed.weight.shape[1])
        alike = self.symmetry, self.lever_angstrom
        apart = reach_radian(self.radii[0])
        owner, chosen = distinct_modes(proposed, count, apart, *alike)
        found = PosteriorModes.unknown(proposed.modes[owner, chosen])
        for radius in self.radii:
            near = images.prefix(radius).select(owner)
            found = refine_locally(
                projector,
                near,
                found.latents,
                prior,
                _STEPS,
                reach_radian(radius),
            )
            evidence = found.log_evidence(prior)
            kept = contenders(owner, found.latents, evidence, 0.5 / radius, *alike)
            owner, found, evidence = owner[kept], found[kept], evidence[kept]
            if self.draws and radius != self.radii[-1]:
                places = int(torch.bincount(owner).max())
                so_far = posterior_of_modes(owner, found, evidence, n, places)
                found = PosteriorModes.joined([found, *self._drawn(so_far)])
                owner = torch.cat([owner, torch.arange(n).repeat(self.draws)])
                count = places + self.draws
        return posterior_of_modes(owner, found, evidence, n, count)

    def _drawn(self, so_far: ParticlePosterior) -> list[PosteriorModes]:
        """Return draws from posteriors, all images' first draws first."""
        wide = replace(so_far, covariance=so_far.covariance * _WIDER_DRAWS**2)
        drawn = wide.sample(self.draws, torch.Generator().manual_seed(self.seed))
        return [PosteriorModes.unknown(drawn[k]) for k in range(self.draws)]
