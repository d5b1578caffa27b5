"""Refinements from where particles nearly are, or seem to be."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.mode_ranking import posterior_of_modes
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference, required
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import WhitenedImages

_SIDES_SD = (0.0, -1.5, 1.5)  # of the softest mode, that refinements begin at
_STEPS = 6  # of a refinement at one radius
_WORTH_NATS = 1.0  # that another mode is to be likelier by

P = TypeVar("P", bound=Projector, contravariant=True)


@dataclass(frozen=True)
class StartRefinement:
    """Refines one mode a particle, radius by radius.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`. At the first radius
    the softest mode is begun on either side as well: where particles move far, the
    middle is not within reach of the ends.

    Attributes
    ----------
    radii : tuple of int
        Fourier radii, from low to high.
    """

    radii: tuple[int, ...]

    def infer(
        self,
        images: WhitenedImages,
        projector: Projector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors, a mode each."""
        first, *others = self.radii
        begun = required(start).mode()
        near, longest = images.prefix(first), reach_radian(first)
        found = []
        for side in _SIDES_SD:
            aside = begun.conformation.clone()
            aside[:, 0] += side * prior.conformation_sd_angstrom[0]
            at = replace(begun, conformation=aside)
            found.append(refine_locally(projector, near, at, prior, _STEPS, longest))
        evidence = torch.stack([one.log_evidence(prior) for one in found])
        n = len(images)
        best = evidence.argmax(0) * n + torch.arange(n)
        modes = PosteriorModes.joined(found)[best]
        for radius in others:
            near, longest = images.prefix(radius), reach_radian(radius)
            at = modes.latents
            modes = refine_locally(projector, near, at, prior, _STEPS, longest)
        # One mode each, whatever its evidence.
        return posterior_of_modes(torch.arange(n), modes, modes.log_likelihood, n, 1)


@dataclass(frozen=True)
class LikelierMode(Generic[P]):
    """Keeps the modes that are known, unless those of a search are likelier.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`.

    Attributes
    ----------
    search : PoseInference
        Which begins anew.
    radius : int
        Fourier radius of the images, that both are refined at.
    """

    search: PoseInference[P]
    radius: int

    def infer(
        self,
        images: WhitenedImages,
        projector: P,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the start, its first mode refined or replaced."""
        known = required(start)
        searched = self.search.infer(images, projector, prior, None)
        longest = reach_radian(self.radius)
        modes = [
            refine_locally(projector, images, at.mode(), prior, _STEPS, longest)
            for at in (known, searched)
        ]
        before, after = (mode.log_evidence(prior) for mode in modes)
        better = after > before + _WORTH_NATS
        n = len(images)
        both = PosteriorModes.joined(modes)
        return known.with_mode(both[torch.arange(n) + better * n])
