"""The E-step: what turns images into posteriors, given a structure.

Searches, local refinements, encoders and their combinations all have one method,
:meth:`PoseInference.infer`; a class of your own with that method can be used by the
workflows (docs/extending.md).
"""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import WhitenedImages

P = TypeVar("P", contravariant=True)


class PoseInference(Protocol[P]):
    """Finds the posteriors of particles for a structure of some kind."""

    def infer(
        self,
        images: WhitenedImages,
        projector: P,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors of n particles.

        Parameters
        ----------
        images : WhitenedImages
            Of n particles of one optics group, within the projector's radius.
        projector : Projector
        prior : PosePrior
        start : ParticlePosterior or None
            What is known of the same particles from before.

        Returns
        -------
        ParticlePosterior
            Best modes first.
        """
        ...


def required(start: ParticlePosterior | None) -> ParticlePosterior:
    """Return the start of an inference that cannot do without one.

    Raises
    ------
    ValueError
        If there is none.
    """
    if start is None:
        raise ValueError("expected poses to start from, found none")
    return start


@dataclass(frozen=True)
class GivenPoses:
    """Takes the poses that are known; a :class:`PoseInference`."""

    def infer(
        self,
        images: WhitenedImages,
        projector: object,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the start; images are not looked at."""
        return required(start)


@dataclass(frozen=True)
class LocalRefinement:
    """Refines the best mode that is known; a :class:`PoseInference`.

    Attributes
    ----------
    steps : int
        Most trial steps of Levenberg and Marquardt.
    max_rotation_radian : float
        Longest rotation of one step.
    """

    steps: int
    max_rotation_radian: float

    def infer(
        self,
        images: WhitenedImages,
        projector: Projector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the start with its first mode refined to the nearest maximum."""
        known = required(start)
        found = refine_locally(
            projector,
            images,
            known.mode(),
            prior,
            self.steps,
            self.max_rotation_radian,
        )
        return known.with_mode(found)


@dataclass(frozen=True)
class InflatedCovariance(Generic[P]):
    """Makes posteriors wider by known factors; a :class:`PoseInference`.

    Attributes
    ----------
    inference : PoseInference
        Whose posteriors are too narrow.
    inflation : Tensor of float64, shape (6 + c,)
        What standard deviations are multiplied by
        (:mod:`cryoinfer.inference.covariance_inflation`).
    """

    inference: PoseInference[P]
    inflation: Tensor

    def infer(
        self,
        images: WhitenedImages,
        projector: P,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors with other widths."""
        found = self.inference.infer(images, projector, prior, start)
        return found.inflated(self.inflation)
