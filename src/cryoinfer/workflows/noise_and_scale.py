"""How images show an atomic model: their noise, how strongly, and what it leaves.

Images come in units of their own. Before any pose is known, the power that the model
would have over all views is compared with the power above that of the pixels around the
particles; when poses are known, images with what the model shows of them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    is_finite,
    whiten,
)
from cryoinfer.physics.noise import radial_power
from cryoinfer.physics.premultiplied import background_spectrum, noise_weight
from cryoinfer.records import Latents, ParticleBatch

_LOOKED_AT = 600  # particles of a group
_SECOND_LOOK = 300
_WIDEST_PARTICLE = 0.42  # radius over the box; noise is looked for beyond it
_BRIGHT = 1e4  # of the typical power of a group's images
_FADE_RINGS = 2  # to either side, that a ring is averaged with
_FADE_SD = 0.3  # of what images show of a model, before any is seen
_LEAST_FADE, _MOST_FADE = 0.05, 2.0
_TOLD_RINGS = 0.5  # of the rings, that what is unexplained is summed over


@dataclass(frozen=True)
class NoiseAndScale:
    """How the images of each optics group show the model.

    Attributes
    ----------
    noise_power : tuple of Tensor, each shape (rings,)
    gain : float
        Of the images, over those of the model in 1/angstrom.
    sigma_a : Tensor, shape (rings,)
        What images show of the model beyond the gain, ring by ring: less than 1 where
        a wrong model has detail that is not theirs (sigma-A of crystallography).
    unexplained : float or None
        Power above the noise around the particles that the model does not explain,
        over all of it, to half of Nyquist; None before poses are known.
    background : tuple of Tensor, each shape (rings,)
        Power of the pixels around the particles.
    rows : tuple of Tensor
        Particles of each group that were looked at, without unreadable ones.
    unexplained_sd : float or None
        Standard error of ``unexplained``, by the scatter of images; that of the noise
        around the particles comes on top.
    """

    noise_power: tuple[Tensor, ...]
    gain: float
    sigma_a: Tensor
    unexplained: float | None
    background: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    unexplained_sd: float | None = None

    def told(self) -> str:
        """Say what was found."""
        if self.unexplained is None:
            return f"The images are {self.gain:.3g} times those of the model."
        return (
            f"At the poses found the images are {self.gain:.3g} times those of the "
            f"model, which explains {1 - self.unexplained:.0%} "
            f"(sd {self.unexplained_sd or 0.0:.0%}) of their signal."
        )

    def calibration_subset(self, particles: Particles) -> Iterator[ParticleBatch]:
        """Yield some particles of each group."""
        for rows in self.rows:
            if len(rows):
                yield particles.batch(rows[:_SECOND_LOOK])


def initial_estimate(
    particles: Particles,
    model: MovingModel,
    grid: ReferenceGrid,
    prior: PosePrior,
    generator: torch.Generator,
) -> NoiseAndScale:
    """Return noise and gain before any pose is known.

    Raises
    ------
    InputError
        If images are constant, not finite, or show no signal above their noise.
    """
    radius = grid.box // 2 - 1
    reach_angstrom = model.reach_angstrom + prior.shift_sd_angstrom
    projector = MovingProjector(model.moving, grid, model.moving, 0)
    noise, rows, top, bottom = [], [], 0.0, 0.0
    groups = particles.optics.group
    for group in range(int(groups.max()) + 1):
        members = torch.nonzero(groups == group).squeeze(1)
        chosen = members[torch.randperm(len(members), generator=generator)]
        chosen = chosen[:_LOOKED_AT].sort().values
        if not len(chosen):
            rows.append(chosen)
            noise.append(torch.ones(grid.box // 2 + 1))
            continue
        box = int(particles.boxes[chosen[0]])
        pixel_size = float(particles.optics.pixel_size_angstrom[chosen[0]])
        reach = min(reach_angstrom / pixel_size, _WIDEST_PARTICLE * box)
        batch = particles.batch(chosen)
        good = is_finite(batch.images) & _is_usual(batch.images)
        batch = batch[good]
        rows.append(chosen[good])
        if not len(batch):
            raise InputError(
                f"all {len(chosen)} images of optics group {group + 1} that were "
                "looked at hold NaN or infinite pixels: run `cryoinfer check`"
            )
        around = background_spectrum(batch.images, batch.optics, reach)
        if not bool((around > 0).all()):
            raise InputError(
                f"the images of optics group {group + 1} are constant around the "
                "particles: expected noise; run `cryoinfer check`"
            )
        noise.append(around.float())
        images = whiten(batch, grid, radius, noise[-1])
        source = TrainingImages(projector, (images,), prior)
        _, latents = source.draw(len(images), generator)
        shown = projector.coefficients(latents, images) * images.ctf
        # The noise is of unit power: what is above one is signal.
        counted = noise_weight(images.optics, images.ctf)
        above = radial_power(images.coefficients, images.disc, counted) - 1
        expected = radial_power(shown, images.disc, counted)
        count = torch.bincount(images.disc.ring, minlength=len(above)) * len(images)
        top += float((count * above * expected).sum())
        bottom += float((count * expected.square()).sum())
    if not (0 < bottom < math.inf and 0 < top < math.inf):
        raise InputError(
            "the images have no more power than the pixels around the particles: "
            "expected particles that show the structure. Check the sign of their "
            "contrast, their box and their pixel size"
        )
    gain = math.sqrt(top / bottom)
    sigma_a = torch.ones(grid.box // 2 + 1)
    return NoiseAndScale(tuple(noise), gain, sigma_a, None, tuple(noise), tuple(rows))


def _is_usual(images: Tensor) -> Tensor:
    """Return which images are not too bright to tell the noise of others, shape (n,).

    One of them would be all of a mean.
    """
    power = images.double().square().mean((1, 2))
    return power <= _BRIGHT * power[power.isfinite()].nanmedian()


@dataclass(frozen=True)
class Projected:
    """Images of one optics group, centred, and what the model shows of them.

    Attributes
    ----------
    images : WhitenedImages
        By the noise that was believed before.
    shown : Tensor of complex64, shape (n, p)
    """

    images: WhitenedImages
    shown: Tensor

    @property
    def group(self) -> int:
        """The optics group."""
        return int(self.images.optics.group[0])

    @cached_property
    def counted(self) -> Tensor | None:
        """How much each coefficient counts in powers; None where all count alike."""
        return noise_weight(self.images.optics, self.images.ctf)


def projected(
    projector: MovingProjector, images: WhitenedImages, at: Latents
) -> Projected:
    """Return images of one optics group with what a model at latents shows of them."""
    images = images.at_defocus_offset(at.defocus_offset_angstrom)
    shown = projector.coefficients(at, images) * images.ctf
    moved = images.moved_back(at.pose.shift_angstrom)
    return Projected(replace(images, coefficients=moved), shown)


def residual_estimate(
    calibration_subset: Iterable[Projected], before: NoiseAndScale
) -> NoiseAndScale:
    """Return noise and gain from images and what the model shows of them.

    Parameters
    ----------
    calibration_subset : iterable of Projected
        Several of one group count as one; a group without any keeps its noise.
    before : NoiseAndScale

    Returns
    -------
    NoiseAndScale
    """
    noise = list(before.noise_power)
    along = torch.zeros(len(before.sigma_a), dtype=torch.float64)
    own = torch.zeros_like(along)
    found = list(calibration_subset)
    for one in found:
        images, shown = one.images, one.shown
        ring = images.reference_ring(len(along))
        seen = torch.view_as_real(images.coefficients)
        product = (seen * torch.view_as_real(shown)).double().sum((0, 2))
        along.index_add_(0, ring, product)
        own.index_add_(0, ring, shown.abs().square().double().sum(0))
    factor = max(float(along.sum()) / max(float(own.sum()), 1e-300), 1e-3)
    sigma_a = _sigma_a(along / factor, own)
    left_of, whole_of = [along.new_zeros(0)], [along.new_zeros(0)]
    by_group: dict[int, list[Projected]] = {}
    for one in found:
        by_group.setdefault(one.group, []).append(one)
    for group, parts in by_group.items():
        left = _power_left(parts, factor * sigma_a)
        rings = len(left)
        around = before.background[group][:rings] / before.noise_power[group][:rings]
        told = around[: int(_TOLD_RINGS * rings)]
        left_of += [_above(one, factor * sigma_a, told) for one in parts]
        whole_of += [_above(one, 0 * sigma_a, told) for one in parts]
        ratio = torch.cat([left, left[-1:].expand(len(noise[group]) - rings)])
        noise[group] = noise[group] * ratio.float()
    unexplained, error = _ratio(torch.cat(left_of), torch.cat(whole_of))
    return replace(
        before,
        noise_power=tuple(noise),
        gain=before.gain * factor,
        sigma_a=before.sigma_a * sigma_a,
        unexplained=min(max(unexplained, 0.0), 1.0),
        unexplained_sd=error,
    )


def _above(one: Projected, share: Tensor, around: Tensor) -> Tensor:
    """Return what shares of the model leave of each image above the noise, (n,).

    Parameters
    ----------
    one : Projected
    share : Tensor, shape (rings,)
    around : Tensor, shape (told,)
        Power of the noise in the rings that are summed over.
    """
    ring = one.images.disc.ring.long()
    share = share[one.images.reference_ring(len(share))]
    left = one.images.coefficients - share * one.shown
    inner = ring < len(around)
    above = left[:, inner].abs().square().double() - around.double()[ring[inner]]
    return (above if one.counted is None else above * one.counted[:, inner]).sum(1)


def _ratio(part: Tensor, whole: Tensor) -> tuple[float, float]:
    """Return the ratio of two sums over images, and its standard error."""
    total = float(whole.sum())
    if total <= 0:
        return 1.0, 1.0
    ratio = float(part.sum()) / total
    error = float((part - ratio * whole).square().sum().sqrt()) / total
    return ratio, min(error, 1.0)


def _power_left(parts: Sequence[Projected], share: Tensor) -> Tensor:
    """Return the power that shares of the model leave of one group's images, by ring.

    Parameters
    ----------
    parts : sequence of Projected
        To one radius.
    share : Tensor, shape (rings,)
        Of what the model shows, ring by ring.
    """
    sums = []
    for one in parts:
        disc = one.images.disc
        ring = one.images.reference_ring(len(share))
        left = one.images.coefficients - share[ring] * one.shown
        sums.append(radial_power(left, disc, one.counted) * len(one.images))
    return torch.stack(sums).sum(0) / sum(len(one.images) for one in parts)


def _sigma_a(along: Tensor, own: Tensor) -> Tensor:
    """Return by how much each ring shows less than all do, shape (rings,).

    Parameters
    ----------
    along, own : Tensor of float64, shape (rings,)
        Products of images and model, in units of the gain, and squares of the model:
        their ratio is known to ``1 / sqrt(2 own)``.
    """
    near = torch.ones(1, 1, 2 * _FADE_RINGS + 1, dtype=torch.float64)

    def summed(values: Tensor) -> Tensor:
        return torch.nn.functional.conv1d(
            values[None, None], near, padding=_FADE_RINGS
        )[0, 0]

    doubt = 0.5 / _FADE_SD**2
    ratio = (summed(along) + doubt) / (summed(own) + doubt)
    return ratio.clamp(_LEAST_FADE, _MOST_FADE).float()
