"""What a workflow returns."""

from dataclasses import dataclass

from torch import Tensor

from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.records import Latents
from cryoinfer.results.refined_optics import RefinedOptics


@dataclass(frozen=True)
class Iteration:
    """One pass over all particles.

    Attributes
    ----------
    name : str
        What was searched.
    seconds : float
    radius_px : float
        Fourier radius that the poses were inferred at.
    resolution_angstrom : float
        Where the correlation of the half-maps falls below 0.143.
    gain_nats : float
        Mean over particles: by how much the map at their poses explains the whitened
        images better than no map does, up to the radius. What is left out at a low
        radius counts as unexplained, so that passes of all radii can be compared.
    pose_change_degrees : float
        Median rotation since the pass before.
    """

    name: str
    seconds: float
    radius_px: float
    resolution_angstrom: float
    gain_nats: float
    pose_change_degrees: float


_SURE_DEVIATIONS = 4.0
"""Of the mean, that evidence must lie above chance by."""

_LEAST_NATS = 0.1
"""An image, that is evidence of anything. With less, no image says where it was seen
from; and so much may come of a noise level that is off by some percent."""

_SINGLE_VIEW = 0.8
"""Share of what a map explains that one projection of it explains: beyond it the images
are those of one view."""

_MOST_ASTRAY = 0.5
"""Share of images that may fit a map better from elsewhere: beyond it, their poses are
not those of the map."""


@dataclass(frozen=True)
class Evidence:
    """How well images are explained by a map of particles that they are not among.

    See :mod:`cryoinfer.workflows.evidence`.

    Attributes
    ----------
    images : int
        That were asked.
    gain_nats : float
        Mean log evidence of the other half's map over that of no map.
    over_noise_nats : float
        Over that of maps of noise with the same spectrum and mask.
    error_nats : float
        Standard error of the mean.
    common_nats : float
        What may come of what the halves have in common.
    astray_share : float, optional
        Share of images that fit the map better from elsewhere than from near the poses
        that they have, where these were not searched for in the map and that was asked.
    single_view_share : float, optional
        How much of what the map explains of them one projection of it explains, where
        their views leave much of Fourier space unmeasured.
    """

    images: int
    gain_nats: float
    over_noise_nats: float
    error_nats: float
    common_nats: float
    astray_share: float | None = None
    single_view_share: float | None = None

    @property
    def excess_nats(self) -> float:
        """What images gain beyond no map, and beyond maps of noise."""
        return min(self.gain_nats, self.over_noise_nats)

    @property
    def needed_nats(self) -> float:
        """What they must gain for a structure to be there."""
        return _LEAST_NATS + self.common_nats + _SURE_DEVIATIONS * self.error_nats

    @property
    def is_seen(self) -> bool:
        """Whether the images show the map, from wherever."""
        return self.excess_nats > self.needed_nats

    @property
    def is_structure(self) -> bool:
        """Whether the images show the map, and most of them from where they are."""
        astray = (self.astray_share or 0.0) > _MOST_ASTRAY
        return self.is_seen and not astray and not self.is_single_view

    @property
    def is_single_view(self) -> bool:
        """Whether the images are those of one view, which make no map in space."""
        return (self.single_view_share or 0.0) > _SINGLE_VIEW


@dataclass(frozen=True)
class Reconstruction:
    """Maps and how far they can be trusted.

    Attributes
    ----------
    density : Tensor, shape (n, n, n)
        From all particles, Wiener-filtered by the halves' correlation.
    half1, half2 : Tensor, shape (n, n, n)
        From each half, unfiltered and unmasked.
    mask : Tensor, shape (n, n, n)
        Soft, in [0, 1].
    fsc : Tensor, shape (n // 2 + 1,)
        Of the masked halves, corrected for the mask by phase randomisation.
    fsc_masked, fsc_randomised, fsc_unmasked : Tensor, shape (n // 2 + 1,)
    pixel_size_angstrom : float
    resolution_angstrom : float
        First crossing of 0.143 by ``fsc``.
    symmetry : str
    evidence : Evidence, optional
        Whether the images show a structure at all, where that was asked.
    shared_resolution_angstrom : float, optional
        To which the halves would agree if all that they had were the map that both
        began with: its radius and one shell, which the mask smears it into. None where
        each began with a map of its own.
    """

    density: Tensor
    half1: Tensor
    half2: Tensor
    mask: Tensor
    fsc: Tensor
    fsc_masked: Tensor
    fsc_randomised: Tensor
    fsc_unmasked: Tensor
    pixel_size_angstrom: float
    resolution_angstrom: float
    symmetry: str
    evidence: Evidence | None = None
    shared_resolution_angstrom: float | None = None


@dataclass(frozen=True)
class RunResult:
    """Maps and the posterior of every particle.

    Attributes
    ----------
    reconstruction : Reconstruction
    inferred : ParticlePosterior
        The best modes of every posterior, as files keep them: they share the covariance
        of the first, as a search refines the others at a lower radius only. Where the
        weights add up to less than 1, the rest is elsewhere; of an image that could not
        be read no mode has any. Of an encoder in single precision.
    random_subset : Tensor of int64, shape (n,)
        Half-set, 1 or 2.
    noise_power : tuple of Tensor, each shape (rings,)
        Per optics group and ring, of the orthonormal transform.
    iterations : tuple of Iteration
    entropy_nats : Tensor, shape (n,), optional
        Of the whole posteriors, where they have more parts than these modes.
    outlier_score_nats : Tensor, shape (n,), optional
        How little each image is like one of the map, where that was tested; infinite
        for an image that is not finite.
    outlier : Tensor of bool, shape (n,), optional
        Which particles were left out of the map as unlike it, where a whole set was
        judged together; where each image was judged alone, its score tells.
    contrast : Tensor of float64, shape (n,), optional
        What the map's projection is multiplied by in each image, 1 in the median.
    unreadable : Tensor of bool, shape (n,), optional
        Which images hold NaN or infinite pixels, where there are outlier scores.
    prepared : Tensor of bool, shape (n,), optional
        Which were made like those that an encoder had learned: noise and map are not
        in their units.
    refined_optics : RefinedOptics, optional
        Where optics were refined.
    """

    reconstruction: Reconstruction
    inferred: ParticlePosterior
    random_subset: Tensor
    noise_power: tuple[Tensor, ...]
    iterations: tuple[Iteration, ...]
    entropy_nats: Tensor | None = None
    outlier_score_nats: Tensor | None = None
    outlier: Tensor | None = None
    contrast: Tensor | None = None
    unreadable: Tensor | None = None
    prepared: Tensor | None = None
    refined_optics: RefinedOptics | None = None

    @property
    def latents(self) -> Latents:
        """The most probable mode of every particle, length n."""
        return self.inferred.mode()

    @property
    def posterior(self) -> ParticlePosterior:
        """The posterior of every particle, in float64.

        Weights of the modes add up to one: what an encoder held for possible beside
        them is left out. Of an image that could not be read there is one mode, as wide
        as the prior.
        """
        return self.inferred.normalised()

    def left_out(self) -> Tensor | None:
        """Return which particles are unlike the map, (n,); None where not tested."""
        from cryoinfer.inference.outlier_score import is_outlier

        if self.outlier is not None or self.outlier_score_nats is None:
            return self.outlier
        return is_outlier(self.outlier_score_nats)

    def entropy(self) -> Tensor:
        """Return the entropy of every posterior in nats, shape (n,)."""
        if self.entropy_nats is not None:
            return self.entropy_nats
        return self.posterior.entropy()
