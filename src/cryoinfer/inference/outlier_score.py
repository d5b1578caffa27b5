"""How little an image is like one of the map, once its pose is known.

Noise, ice, carbon and other molecules all get a pose. What gives them away is how the
map fits there: by how much its slice has to be scaled (the contrast, 1 if the image
shows the map, near 0 if it shows nothing), and how much power that leaves (1 if it is
noise alone). Both have a known error, so that together they make a p-value, whose
negative logarithm is the outlier score.

The test is made at a low radius. What tells molecules apart has its signal there, and
neither the map's own errors nor those of the noise spectrum have grown large.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from cryoinfer.arithmetic import robust_deviation
from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Indexable, Latents

FALSE_ALARMS = 0.01
"""Share of the images of the map that are flagged where each is judged alone."""

USUAL_THRESHOLD_NATS = -math.log(FALSE_ALARMS)

FALSE_DISCOVERIES = 0.05
"""Share of the flagged images that show the map, where a whole set is judged."""

_STEPS = 4  # of the local refinement
_ROUNDS = 4  # of telling outliers apart
_LEAST_WEIGHT = 1e-6  # so that an empty slice still leaves power that can be told
_TINY = 1e-12


@dataclass(frozen=True)
class Fit(Indexable):
    """How the map fits n images at their poses.

    Attributes
    ----------
    contrast : Tensor of float64, shape (n,)
        Least squares factor of the map's slice.
    contrast_sd : Tensor of float64, shape (n,)
        Its error from the noise.
    power : Tensor of float64, shape (n,)
        Weighted mean power that the scaled slice leaves, over that of noise.
    power_sd : Tensor of float64, shape (n,)
        Its error from the noise.
    """

    contrast: Tensor
    contrast_sd: Tensor
    power: Tensor
    power_sd: Tensor

    def of_contrast(self, known: Tensor) -> Self:
        """Return the fit to images whose CTFs had been multiplied by contrasts.

        Parameters
        ----------
        known : Tensor of float64, shape (n,)
            Those contrasts; the fit is then that to the images as they are.
        """
        return replace(
            self,
            contrast=self.contrast * known,
            contrast_sd=self.contrast_sd * known,
        )


@dataclass(frozen=True)
class InlierStatistics:
    """How the map fits particles that it was made of.

    The defaults are those of images simulated from the map. Real particles differ in
    contrast, by ice and dose, and the noise is not exactly what was estimated.

    Attributes
    ----------
    contrast, power : float
        Means.
    contrast_spread : float
        Standard deviation beyond the error from the noise.
    power_spread : float
        The same, relative to the mean.
    """

    contrast: float = 1.0
    contrast_spread: float = 0.0
    power: float = 1.0
    power_spread: float = 0.0

    @classmethod
    def of(cls, found: Fit) -> Self:
        """Return what is usual among particles, most of which show the map.

        By medians and median absolute deviations, which a few others do not move far.

        Parameters
        ----------
        found : Fit
            Best of 1,000 particles or more: the spread of 300 is known to 7 %.
        """
        contrast, contrast_spread = _location_and_spread(
            found.contrast, found.contrast_sd
        )
        power = float(found.power.median())
        _, power_spread = _location_and_spread(found.power / power, found.power_sd)
        return cls(contrast, contrast_spread, power, power_spread)


class _RadialProjector(Projector, Protocol):
    @property
    def radius(self) -> int:
        """Largest Fourier radius of its maps."""
        ...


def fit(
    projector: _RadialProjector,
    images: WhitenedImages,
    near: Latents,
    prior: PosePrior,
) -> Fit:
    """Refine the latents of an inference, and fit the map's slices there.

    A few steps make it indifferent how sharp the inference was, and at
    which radius; at a high signal, the error of an encoder's pose is enough to make an
    outlier.

    Parameters
    ----------
    projector : MapProjector or SubspaceProjector
        Of the map, or of the maps of conformations.
    images : WhitenedImages
        Of n images, within the projector's radius.
    near : Latents
        Of the same images: the best mode of each posterior.
    prior : PosePrior

    Returns
    -------
    Fit
        The pose fits some of the noise too: it lowers the power by half a coefficient
        for each of its numbers.
    """
    longest = reach_radian(projector.radius)
    found = refine_locally(projector, images, near, prior, _STEPS, longest)
    return fit_at(projector, images, found.latents)


def fit_at(projector: Projector, images: WhitenedImages, latents: Latents) -> Fit:
    """Fit the map's slices at given latents to whitened images.

    Power is weighted by ``P / (1 + P)``, with P the power of the slice in its ring
    through the CTF, over that of the noise: the weight in the likelihood ratio of
    another molecule of this spectrum against none.

    Parameters
    ----------
    projector : Projector
    images : WhitenedImages
        Of n images, within the projector's radius.
    latents : Latents
        Of the same images.

    Returns
    -------
    Fit
    """
    images = images.at_defocus_offset(latents.defocus_offset_angstrom)
    slices = projector.coefficients(latents, images)
    seen = images.moved_back(latents.pose.shift_angstrom)
    expected = images.ctf * slices
    own = expected.abs().square()
    information = own.sum(1).clamp(min=_TINY)
    along = torch.view_as_real(expected) * torch.view_as_real(seen)
    contrast = along.sum((1, 2)) / information
    left = (seen - contrast[:, None] * expected).abs().square()
    snr = _ring_power(slices, images.disc.ring) * images.ctf.square()
    weight = (snr / (1 + snr)).clamp(min=_LEAST_WEIGHT)
    # The contrast has fitted half a coefficient of the noise.
    total = weight.sum(1) - 0.5 * (weight * own).sum(1) / information
    return Fit(
        contrast.double(),
        # Half of the noise's unit power is along the slice's phase.
        (2 * information).rsqrt().double(),
        ((weight * left).sum(1) / total).double(),
        # The power of a coefficient of complex Gaussian noise has variance 1.
        (weight.square().sum(1).sqrt() / total).double(),
    )


def outlier_score(found: Fit, inliers: InlierStatistics) -> Tensor:
    """Return minus the log p-value of every image under "it shows the map", nats.

    The squares of two standard scores, of contrast and of power, are added: of images
    of the map that sum is chi-squared with two degrees of freedom, and half of it is
    minus the log of the chance of a larger one. Both ends count: images too clean or
    too strong are as odd as the empty ones. The power, a sum of weighted squares, is
    made Gaussian by its cube root (Wilson and Hilferty, PNAS 17, 684, 1931).

    Parameters
    ----------
    found : Fit
        Of n images.
    inliers : InlierStatistics

    Returns
    -------
    Tensor of float64, shape (n,)
        Exponential with mean 1 for images of the map.
    """
    by_contrast = (found.contrast - inliers.contrast) / torch.sqrt(
        found.contrast_sd**2 + inliers.contrast_spread**2
    )
    sd = torch.sqrt(found.power_sd**2 + inliers.power_spread**2)
    root = (found.power / inliers.power) ** (1 / 3)
    by_power = (root - 1 + sd**2 / 9) * 3 / sd
    return 0.5 * (by_contrast**2 + by_power**2)


def is_outlier(
    outlier_score_nats: Tensor, threshold_nats: float = USUAL_THRESHOLD_NATS
) -> Tensor:
    """Flag images whose score is above a threshold.

    So is what overflowed on the way, and is not a number.

    Parameters
    ----------
    outlier_score_nats : Tensor, shape (n,)
    threshold_nats : float, optional
        By default that which ``FALSE_ALARMS`` of the images of the map exceed.
    """
    return ~(outlier_score_nats <= threshold_nats)


@dataclass(frozen=True)
class JudgedTogether:
    """What is unlike the map in a set, most of which shows it.

    Attributes
    ----------
    usual : InlierStatistics
        Of those that are not outliers.
    outlier_score_nats : Tensor of float64, shape (n,)
    outlier : Tensor of bool, shape (n,)
    """

    usual: InlierStatistics
    outlier_score_nats: Tensor
    outlier: Tensor


def judge_together(found: Fit) -> JudgedTogether:
    """Tell the outliers of a set, and what is usual of the others.

    In rounds, each of which measures what is usual without the outliers of the one
    before: with a fifth of junk, particles look more uneven than they are.

    Parameters
    ----------
    found : Fit
        Of all images of a set.
    """
    outlier = torch.zeros(len(found.contrast), dtype=torch.bool)
    for _ in range(_ROUNDS):
        usual = InlierStatistics.of(found[~outlier])
        score = outlier_score(found, usual)
        outlier = is_outlier(score, discovery_threshold(score))
    return JudgedTogether(usual, score, outlier)


def discovery_threshold(outlier_score_nats: Tensor) -> float:
    """Return the threshold above which nearly all images are outliers, in nats.

    By Benjamini and Hochberg (J. R. Statist. Soc. B 57, 289, 1995): of images above it
    a share of ``FALSE_DISCOVERIES`` at most is expected to show the map. So where there
    is no junk, next to nothing is flagged. Never lower than the usual threshold.

    Parameters
    ----------
    outlier_score_nats : Tensor, shape (n,)
        Of all images of a set.
    """
    score = outlier_score_nats.nan_to_num(nan=torch.inf).double().sort().values
    n = len(score)
    above = torch.arange(n, 0, -1)
    by_chance = n * torch.exp(-score)
    enough = by_chance <= FALSE_DISCOVERIES * above
    if not bool(enough.any()):
        return max(USUAL_THRESHOLD_NATS, math.log(n / FALSE_DISCOVERIES))
    lowest = float(score[enough][0])
    # The image itself is flagged: a score above the threshold is what flags it.
    return max(USUAL_THRESHOLD_NATS, math.nextafter(lowest, 0.0))


def _location_and_spread(values: Tensor, known_sd: Tensor) -> tuple[float, float]:
    """Return the median, and the spread that known errors do not explain."""
    unexplained = robust_deviation(values) ** 2 - known_sd.square().median()
    return float(values.median()), math.sqrt(max(0.0, float(unexplained)))


def _ring_power(slices: Tensor, ring: Tensor) -> Tensor:
    """Return the mean power in the ring of every coefficient, shape (n, p)."""
    count = torch.bincount(ring)
    sums = slices.real.new_zeros(len(slices), len(count))
    sums.index_add_(1, ring, slices.abs().square())
    return (sums / count.clamp(min=1))[:, ring]
