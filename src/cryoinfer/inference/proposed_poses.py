"""Widths for poses that were proposed without any, as by cryoPoseNet's encoder."""

from dataclasses import dataclass

import torch

from cryoinfer.geometry.rotation_volume import VARIANCE_OF_ANY_TURN
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import required
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import WhitenedImages


@dataclass(frozen=True)
class ProposedPoses:
    """Gives poses the widths that an image has about them; a :class:`PoseInference`.

    Those of Laplace's approximation, by the normal equations where the pose is. They
    say how sharply the image tells it from its neighbours, and nothing of how far it is
    from the best one. No turn is less known than one of random rotations: a map that
    shows nothing leaves nothing known.
    """

    def infer(
        self,
        images: WhitenedImages,
        projector: Projector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the start with widths about its first mode."""
        proposed = required(start)
        at = proposed.mode()
        found = projector.normal_equations(images, at, prior)
        of_any_turn = torch.zeros_like(prior.precision)
        of_any_turn[:3] = (prior.precision[:3] >= 0) / VARIANCE_OF_ANY_TURN
        known = prior.information + torch.diag(of_any_turn)
        information = found.information + known.to(found.information)
        return proposed.with_mode(PosteriorModes(at, information, found.log_likelihood))
