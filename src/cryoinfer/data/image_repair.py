"""Images as they come, made fit: hot pixels, ramps and other units are taken out.

RELION does so when it extracts particles. An image that is as most others are stays
what it is, to the last bit: whatever is done has a threshold that no noise reaches.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.data.normalising import Background
from cryoinfer.io.conventions.table import ParticleTable

HOT = 7.0
"""Standard deviations of its image beyond which a pixel may be hot: of 10^10 pixels of
Gaussian noise, 0.03 are."""

_SUPPORT = 0.3
"""Mean of the eight neighbours over a pixel, below which it stands alone. It is 0.49
around the peak of a blob of one pixel sd; two hot pixels side by side have 0.13."""

_ROUNDS = 4  # a pixel of 1000 sd hides those of 10
_TILTED = 6.0
"""Standard errors of a slope, in white noise of the image's own variance."""

_STRAIGHT = 2.0
"""Slope over bend, each in standard errors, from which a background is a ramp: of
something at one place beside the particle both are alike."""

_STEEP = 0.15
"""Variance of a plane over that of its image, from which it is no ramp of the ice, but
the edge of a support film: without its ramp that would be taken for a particle."""

_OFFSET = 5.0
"""Standard deviations by which a mean may be off; single precision bears it."""

_OTHER_UNITS = 1.5
"""Ratio of deviations up to which an image counts as one in the units of others."""

_DAMAGED = 1e4
"""Ratio of deviations beyond which no units explain an image."""

_NOISY = 0.5
"""Deviation of the background over that of the image, below which it tells no units."""

_CIRCLE = 0.75
"""Diameter of the particle over the box, as everywhere where none is given."""

_FEWEST = 20
"""Images of a kind that tell what is usual."""

_LOOKED_AT = 200

_LOOK = 0.98
"""Of a threshold, from which an image is measured: more than single precision errs."""

_OUTSTANDING_AT_ONCE = 50  # images

_PIXELS_AT_ONCE = 2**22
"""In double precision: 32 MB."""


@dataclass(frozen=True)
class Levels:
    """Standard deviations of some images.

    Attributes
    ----------
    background, image : Tensor of float64, shape (b,)
        Of the pixels around the particle, and of all; NaN where nobody knows.
    """

    background: Tensor
    image: Tensor

    def usual(self, n: int) -> "Levels":
        """Return the medians of these, for n images."""
        return Levels(
            self.background.nanmedian().expand(n), self.image.nanmedian().expand(n)
        )


class UsualLevels:
    """Levels of the usual image of each optics group and box, measured when asked for.

    Medians of images at even steps through those of a kind: the same whatever is asked
    for first.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Levels] = {}
        self._sound = torch.zeros(0, dtype=torch.bool)

    def doubtful(self, index: Tensor, n: int) -> Tensor:
        """Return which of some images, of n in all, are not known to be sound.

        Places in ``index``: sound ones were looked at before, and left as they are.
        """
        if not len(self._sound):
            self._sound = torch.zeros(n, dtype=torch.bool)
        return torch.nonzero(~self._sound[index]).squeeze(1)

    def keep_sound(self, index: Tensor, made: "RepairedImages") -> None:
        """Remember which of some images were left as they are."""
        self._sound[index] = (made.hot == 0) & ~made.tilted & (made.factor == 1)

    def of(
        self, table: ParticleTable, index: Tensor, read: Callable[[Tensor], Tensor]
    ) -> Levels:
        """Return what is usual for images like some of a set.

        Parameters
        ----------
        table : ParticleTable
            Of the whole set.
        index : Tensor of int64, shape (b,)
            Which they are.
        read : callable
            Reads images of one box.
        """
        pairs = torch.stack([table.optics.group[index], table.box[index]], 1)
        kinds, kind = pairs.unique(dim=0, return_inverse=True)
        background, image = torch.empty(2, len(index), dtype=torch.float64)
        for number, (group, box) in enumerate(kinds.tolist()):
            if (group, box) not in self._known:
                same = (table.optics.group == group) & (table.box == box)
                rows = torch.nonzero(same).flatten()
                self._known[group, box] = _measured(rows, read)
            usual, own = self._known[group, box], kind == number
            background[own], image[own] = usual.background, usual.image
        return Levels(background, image)


def _measured(rows: Tensor, read: Callable[[Tensor], Tensor]) -> Levels:
    """Return the usual levels of a kind, of one image; NaN where there are too few."""
    if len(rows) < _FEWEST:
        return _unknown(1)
    count = min(_LOOKED_AT, len(rows))
    some = rows[torch.arange(count) * len(rows) // count]
    parts = [levels_of(repaired(read(few)).images) for few in some.split(_FEWEST)]
    background, image = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("background", "image")
    )
    return Levels(background, image).usual(1)


def _unknown(n: int) -> Levels:
    nothing = torch.full((n,), torch.nan, dtype=torch.float64)
    return Levels(nothing, nothing)


@dataclass(frozen=True)
class RepairedImages:
    """Images, and what was done to each.

    Attributes
    ----------
    images : Tensor of float32, shape (b, n, n)
        The tensor that was given, where nothing was done.
    hot : Tensor of int64, shape (b,)
        Pixels that were replaced by the mean of their neighbours.
    tilted : Tensor of bool, shape (b,)
        Whether a plane was subtracted.
    factor : Tensor of float64, shape (b,)
        By which they were divided.
    """

    images: Tensor
    hot: Tensor
    tilted: Tensor
    factor: Tensor

    @classmethod
    def untouched(cls, images: Tensor) -> "RepairedImages":
        """Return images to which nothing was done."""
        none = torch.zeros(len(images), dtype=torch.int64)
        return cls(images, none, none > 0, torch.ones(len(images)).double())

    def among(self, images: Tensor, given: Tensor, places: Tensor) -> "RepairedImages":
        """Return these among others to which nothing was done.

        Parameters
        ----------
        images : Tensor of float32, shape (b, n, n)
            All of them as they were.
        given : Tensor of float32, shape (k, n, n)
            Those that these were made of.
        places : Tensor of int64, shape (k,)
            Where they stand among all.
        """
        if len(places) == len(images):
            return self
        none = RepairedImages.untouched(images)
        if self.images is not given:
            images = images.index_copy(0, places, self.images)
        return RepairedImages(
            images,
            none.hot.index_copy(0, places, self.hot),
            none.tilted.index_copy(0, places, self.tilted),
            none.factor.index_copy(0, places, self.factor),
        )


def repaired(images: Tensor, usual: Levels | None = None) -> RepairedImages:
    """Repair images; those that hold values that are no numbers stay as they are.

    Most are as they should be: a look in single precision, with thresholds a little
    lower, leaves the others to be measured.

    Parameters
    ----------
    images : Tensor of float32, shape (b, n, n)
    usual : Levels, optional
        Of the usual image like each of these. Without them no image is scaled.
    """
    if usual is None:
        usual = _unknown(len(images))
    doubtful = torch.nonzero(_is_doubtful(images, usual)).squeeze(1)
    if not len(doubtful):
        return RepairedImages.untouched(images)
    levels = Levels(usual.background[doubtful], usual.image[doubtful])
    some = images if len(doubtful) == len(images) else images[doubtful]
    return _measured_and_repaired(some, levels).among(images, some, doubtful)


def _is_doubtful(images: Tensor, usual: Levels) -> Tensor:
    """Tell which images may have to be repaired, (b,): all that must, few others."""
    rows = images.flatten(1)
    variance, mean = torch.var_mean(rows, 1, correction=0)
    deviation = variance.sqrt()
    low, high = rows.aminmax(dim=1)
    outstanding = torch.maximum(high - mean, mean - low) > _LOOK * HOT * deviation
    far = torch.nonzero(outstanding).squeeze(1)
    for some in far.split(_OUTSTANDING_AT_ONCE) if len(far) else ():
        apart = images[some] - mean[some, None, None]
        around = _neighbours(apart).abs() / 8
        alone = _LOOK * around < _SUPPORT * apart.abs()
        alone &= apart.abs() > _LOOK * HOT * deviation[some, None, None]
        outstanding[some] = alone.flatten(1).any(1)
    plane = _Plane.of(images.shape[-1])
    coefficients = rows @ plane.fit.flatten(1).mT.to(rows)
    slope = (coefficients[:, 1:3] / plane.error[1:3].to(rows)).norm(dim=1)
    tilted = slope > _LOOK * _TILTED * deviation
    offset = coefficients[:, 0].abs() > _LOOK * _OFFSET * deviation
    ratio = deviation / usual.image.to(rows)
    unlike = (ratio > _LOOK * _OTHER_UNITS) | (ratio * _OTHER_UNITS * _LOOK < 1)
    return outstanding | tilted | offset | unlike


def _measured_and_repaired(images: Tensor, usual: Levels) -> RepairedImages:
    """Repair what is measured to need it."""
    size = max(1, _PIXELS_AT_ONCE // max(1, images.shape[-1] ** 2))
    few = images.split(size)
    levels = zip(usual.background.split(size), usual.image.split(size), strict=True)
    parts = [_repaired(one, Levels(*own)) for one, own in zip(few, levels, strict=True)]
    hot, tilted, factor = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("hot", "tilted", "factor")
    )
    if all(part.images is one for part, one in zip(parts, few, strict=True)):
        return RepairedImages(images, hot, tilted, factor)
    made = torch.cat([part.images for part in parts])
    return RepairedImages(made, hot, tilted, factor)


def levels_of(images: Tensor) -> Levels:
    """Return the levels of images (b, n, n) that are repaired."""
    pixels = images.double()
    background = _background(images.shape[-1]).statistics(images)[1]
    return Levels(background, pixels.var((-2, -1), correction=0).sqrt())


def _repaired(images: Tensor, usual: Levels) -> RepairedImages:
    hot = torch.zeros(len(images), dtype=torch.int64)
    found = images
    for i in torch.nonzero(_has_outstanding(images)).flatten().tolist():
        one, count = _without_hot(images[i].double())
        if count:
            found = images.clone() if found is images else found
            found[i], hot[i] = one.float(), count
    deviation = found.double().var((-2, -1), correction=0).sqrt()
    plane = _Plane.of(images.shape[-1])
    coefficients = plane.fitted(found)
    size = coefficients / (plane.error * deviation[:, None])
    slope, bend = size[:, 1:3].norm(dim=1), size[:, 3:].norm(dim=1)
    sloping = (slope > _TILTED) & (slope > _STRAIGHT * bend)
    # Coordinates over the box are even from -1/2 to 1/2, of variance 1/12.
    steep = coefficients[:, 1:3].square().sum(1) / 12 > _STEEP * deviation.square()
    sloping &= ~steep
    offset = coefficients[:, 0].abs() > _OFFSET * deviation
    tilted = (deviation > 0) & (sloping | offset)
    if bool(tilted.any()):
        found = images.clone() if found is images else found
        levelled = found[tilted].double() - plane.at(coefficients[tilted])
        found[tilted] = levelled.float()
    factor = _unit(levels_of(found), usual)
    other = factor != 1
    if bool(other.any()):
        found = images.clone() if found is images else found
        found[other] = (found[other].double() / factor[other, None, None]).float()
    return RepairedImages(found, hot, tilted, factor)


def _unit(levels: Levels, usual: Levels) -> Tensor:
    """Return what images are to be divided by, to have the usual background."""
    around = levels.background / usual.background
    whole = levels.image / usual.image
    more = (around > _OTHER_UNITS) & (whole > _OTHER_UNITS)
    less = (around * _OTHER_UNITS < 1) & (whole * _OTHER_UNITS < 1) & (around > 0)
    noisy = usual.background > _NOISY * usual.image
    possible = (around < _DAMAGED) & (whole < _DAMAGED)
    return torch.where((more | less) & noisy & possible, around, 1.0)


def _has_outstanding(images: Tensor) -> Tensor:
    """Tell which images have a pixel far from their mean, hot or not, shape (b,)."""
    rows = images.flatten(1)
    deviation, mean = torch.var_mean(rows.double(), 1, correction=0)
    low, high = (values.double() for values in rows.aminmax(dim=1))
    return torch.maximum(high - mean, mean - low) > HOT * deviation.sqrt()


def _without_hot(image: Tensor) -> tuple[Tensor, int]:
    """Return an image (n, n) of float64 without its hot pixels, and how many it had."""
    known = torch.ones_like(image, dtype=torch.bool)
    for _ in range(_ROUNDS):
        deviation, mean = torch.var_mean(image[known], correction=0)
        apart = image - mean
        around = _neighbours(apart) / 8
        hot = known & (apart.abs() > HOT * deviation.sqrt())
        hot &= around.abs() < _SUPPORT * apart.abs()
        if not bool(hot.any()):
            break
        known = known & ~hot
        values = torch.where(known, apart, 0.0)
        count = _neighbours(known.double()).clamp(min=1)
        image = torch.where(known, image, mean + _neighbours(values) / count)
    return image, int((~known).sum())


def _neighbours(image: Tensor) -> Tensor:
    """Return the sum of the eight neighbours of every pixel.

    Beyond the rim there is nothing.
    """
    one = image if image.dim() == 3 else image[None]
    sums = torch.nn.functional.avg_pool2d(one, 3, 1, padding=1, divisor_override=1)
    return sums.view_as(image) - image


@dataclass(frozen=True)
class _Plane:
    """Planes over images of a size, fitted to what is around the particle.

    Attributes
    ----------
    terms : Tensor of float64, shape (5, n, n)
        1, and x and y from the centre, over the box: a plane. 2xy and x² - y²: bends.
    fit : Tensor of float64, shape (5, n, n)
        What pixels count for in the coefficient of each.
    error : Tensor of float64, shape (5,)
        Standard errors of the coefficients in white noise of unit variance.
    """

    terms: Tensor
    fit: Tensor
    error: Tensor

    @classmethod
    @functools.lru_cache(maxsize=8)
    def of(cls, box: int) -> "_Plane":
        axis = (torch.arange(box, dtype=torch.float64) - box // 2) / box
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        terms = torch.stack([torch.ones_like(x), x, y, 2 * x * y, x**2 - y**2])
        used = (terms * _background(box).outside).flatten(1)
        covariance = torch.linalg.pinv(used @ used.mT, hermitian=True)
        fit = (covariance @ used).view_as(terms)
        return cls(terms, fit, covariance.diagonal().sqrt())

    def fitted(self, images: Tensor) -> Tensor:
        """Return the coefficients of images (b, n, n), float64, shape (b, 5)."""
        return images.double().flatten(1) @ self.fit.flatten(1).mT

    def at(self, coefficients: Tensor) -> Tensor:
        """Return the planes, without bends, of coefficients (b, 5), shape (b, n, n)."""
        return torch.einsum("bk,kyx->byx", coefficients[:, :3], self.terms[:3])


@functools.lru_cache(maxsize=8)
def _background(box: int) -> Background:
    return Background.of(box, _CIRCLE * box / 2)
