"""Particles made like those that an encoder has learned, as far as that is sound.

What an encoder sees is an area of fixed size at a fixed radius in Fourier space, and
noise of unit power. Another box or pixel size is resampled to that area. Where the
noise is not one that was learned, of a stack of another kind, voltage or noise level,
or an optics group that the encoder never saw, it is measured: around the particles, and
in what the map leaves of them. The CTF, voltage and defocus included, is known of every
image anyway.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.resampling import Resampling
from cryoinfer.errors import InputError
from cryoinfer.inference.amortized import SAME_AREA
from cryoinfer.inference.outlier_score import fit
from cryoinfer.inference.projector import residual
from cryoinfer.inference.whitening import (
    ROUNDING_PX,
    ReferenceGrid,
    WhitenedImages,
    is_finite,
    whiten,
)
from cryoinfer.interfaces import Monitor
from cryoinfer.physics.noise import radial_power
from cryoinfer.physics.premultiplied import background_spectrum, noise_weight
from cryoinfer.records import Latents, ParticleBatch
from cryoinfer.workflows.acquisition import AcquisitionStatistics, is_usual
from cryoinfer.workflows.image_sources import readable
from cryoinfer.workflows.particle_pass import PreparedBatch
from cryoinfer.workflows.trained_encoder import TrainedEncoder

_BACKGROUNDS = 600
"""Images a kind that the noise is measured around: it is known to 1 % a ring."""

_PILOTS = 300
"""Of them, those that are inferred to measure what the map leaves."""

_ROUNDS = 2  # of inferring the calibration_subset with the noise found

_OTHER_UNITS = 1.1
"""Ratio of noise levels up to which images have the units of those learned."""

_LEAST_CONTRAST = 1e-3  # whose logarithm is taken
_OF_PARTICLE = 0.99
"""Of the power of the map: what lies within the particle's radius."""


@dataclass(frozen=True)
class Preparation:
    """What is done to images of one optics group and box.

    Attributes
    ----------
    resampling : Resampling or None
    gap_noise : Tensor, shape (rings,)
        Of the images as they come, for what a larger area lacks.
    noise_power : Tensor, shape (rings,)
        Of the prepared images.
    amplitude : float
        Of the signal, in units of the images that were learned.
    """

    resampling: Resampling | None
    gap_noise: Tensor
    noise_power: Tensor
    amplitude: float = 1.0

    @property
    def is_none(self) -> bool:
        """Whether images are like those that were learned as they come."""
        return self.resampling is None and self.amplitude == 1

    def whitened(
        self, batch: ParticleBatch, grid: ReferenceGrid, seed: int
    ) -> WhitenedImages:
        """Return images on the encoder's grid, over the noise.

        Parameters
        ----------
        batch : ParticleBatch
            Of this optics group and box, all finite.
        grid : ReferenceGrid
        seed : int
            Of noise where images lack a part of the area: with a particle's row it
            makes that of the particle, whichever process reads it.
        """
        way = self.resampling
        optics = replace(batch.optics, scale=batch.optics.scale * self.amplitude)
        images = batch.images
        if way is not None:
            images = torch.cat(
                [
                    way.images(image[None], self.gap_noise, _generator(seed, row))
                    for image, row in zip(images, batch.index.tolist(), strict=True)
                ]
            )
            optics = optics.with_pixel_size(way.pixel_size_angstrom)
        prepared = ParticleBatch(images, optics, batch.index)
        return whiten(prepared, grid, grid.box // 2 - 1, self.noise_power)


def _generator(seed: int, row: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed << 32) + row)


@dataclass(frozen=True)
class Preparations:
    """Of all kinds of images in a set of particles.

    An :class:`cryoinfer.workflows.particle_pass.ImageSource`.

    Attributes
    ----------
    by_kind : dict of (optics group, box) to Preparation
    grid : ReferenceGrid
        Of the encoder.
    seed : int
        Of noise where images lack a part of the area.
    """

    by_kind: dict[tuple[int, int], Preparation]
    grid: ReferenceGrid
    seed: int

    def prepare(self, batch: ParticleBatch) -> PreparedBatch | None:
        """Return the particles of a batch that can be read, like those learned."""
        way = self.of(batch)
        return readable(batch, lambda good: way.whitened(good, self.grid, self.seed))

    def of(self, batch: ParticleBatch) -> Preparation:
        """Return what is done to a batch of one optics group and box."""
        return self.by_kind[int(batch.optics.group[0]), batch.images.shape[-1]]

    def noise_power(self) -> tuple[Tensor, ...]:
        """Return the spectra by optics group; of those without particles a stand-in."""
        last = max(group for group, _ in self.by_kind)
        spectra = [torch.ones(2)] * (last + 1)
        for (group, _), one in reversed(self.by_kind.items()):
            spectra[group] = one.noise_power
        return tuple(spectra)


def require_alike(particles: Particles, trained: TrainedEncoder) -> None:
    """Refuse particles whose images the encoder could not have seen.

    Raises
    ------
    InputError
        If pixels are too coarse for the encoder's picture, or images too small for
        the particle.
    """
    grid = trained.encoder.grid
    radius = trained.encoder.radius
    diameter = 2 * _particle_radius_angstrom(trained)
    for group, box, pixel_size in _kinds(particles):
        found = (
            f"optics group {group + 1}: {box} pixels of {pixel_size:.4g} A, "
            f"{box * pixel_size:.1f} A across"
        )
        if _resampling(box, pixel_size, grid).box // 2 - 1 < radius:
            coarsest = grid.length_angstrom / (2 * radius + 2)
            raise InputError(
                f"the encoder sees images to {grid.resolution_at(radius):.3g} A, which "
                f"takes pixels of {coarsest:.4g} A or less; found {found}. Extract the "
                "particles with smaller pixels, or train on these"
            )
        if box * pixel_size < diameter * (1 - SAME_AREA):
            raise InputError(
                f"the particle that the encoder learned is {diameter:.0f} A across, "
                f"which no smaller image holds; found {found}. Extract the particles "
                f"in a box of {grid.length_angstrom:.0f} A"
            )


def prepare(
    particles: Particles,
    trained: TrainedEncoder,
    seed: int,
    monitor: Monitor,
) -> Preparations:
    """Decide what is done to the images of every optics group and box.

    Parameters
    ----------
    particles : Particles
        That :func:`require_alike` lets pass.
    trained : TrainedEncoder
    seed : int
    monitor : Monitor
        Is told what differs from the images that were learned.
    """
    grid, learned = trained.encoder.grid, trained.encoder.noise_power
    generator = torch.Generator().manual_seed(seed)
    found: dict[tuple[int, int], Preparation] = {}
    unknown = []
    for kind in _kinds(particles):
        group, box, pixel_size = kind
        off = abs(box * pixel_size / grid.length_angstrom - 1)
        alike = box == grid.box and off <= SAME_AREA
        way = None
        if not alike or off * grid.box / 2 > ROUNDING_PX:  # that would cost a ring
            way = _resampling(box, pixel_size, grid)
        differences: list[str] = []
        if alike and trained.knows(group):
            rows = _rows_of(particles, group, box)
            differences = _differences(particles, rows, trained.imaging[group])
            if not differences:
                noise = learned[group]
                power = noise if way is None else way.spectrum(noise)
                found[group, box] = Preparation(way, noise, power)
                continue
        # Where no image is finite none will ask for it.
        found[group, box] = Preparation(way, torch.ones(2), torch.ones(2))
        unknown.append((kind, way, differences))
    if unknown:
        monitor.stage("noise that was not learned", len(unknown))
    for kind, way, differences in unknown:
        group, box, _ = kind
        calibration_subset = _calibration_subset(particles, group, box, generator)
        if calibration_subset is not None:
            found[group, box] = one = _measured(calibration_subset, way, trained, seed)
            _tell(monitor, kind, grid, one, differences)
        monitor.advance()
    return Preparations(found, grid, seed)


def _differences(
    particles: Particles, rows: Tensor, learned: AcquisitionStatistics | None
) -> list[str]:
    """Say in what particles of a group that was learned differ from those."""
    # A generator of their own: what is looked at must not change what is found.
    found = AcquisitionStatistics.of(particles, rows, torch.Generator().manual_seed(0))
    return [] if found is None or learned is None else found.differences(learned)


def _kinds(particles: Particles) -> list[tuple[int, int, float]]:
    """Return (optics group, box, pixel size) of all particles, each once."""
    group, box = particles.optics.group, particles.boxes
    pairs = torch.stack([group, box], 1)
    distinct, kind = pairs.unique(dim=0, return_inverse=True)
    sizes = particles.optics.pixel_size_angstrom
    return [
        (g, b, float(sizes[kind == k][0])) for k, (g, b) in enumerate(distinct.tolist())
    ]


def _resampling(
    box: int, pixel_size_angstrom: float, grid: ReferenceGrid
) -> Resampling:
    return Resampling.to_area(box, pixel_size_angstrom, grid.length_angstrom, grid.box)


def _particle_radius_angstrom(trained: TrainedEncoder) -> float:
    """Return within how far from the centre most of the map's power lies."""
    density, grid = trained.density, trained.encoder.grid
    axis = torch.arange(grid.box) - grid.box // 2
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    shell = squared.double().sqrt().round().long().flatten()
    power = torch.bincount(shell, density.double().square().flatten()).cumsum(0)
    within = int((power < _OF_PARTICLE * power[-1]).sum())
    return within * grid.pixel_size_angstrom


def _rows_of(particles: Particles, group: int, box: int) -> Tensor:
    alike = (particles.optics.group == group) & (particles.boxes == box)
    return torch.nonzero(alike).squeeze(1)


def _calibration_subset(
    particles: Particles, group: int, box: int, generator: torch.Generator
) -> ParticleBatch | None:
    """Read some images of a kind, as many as the noise is measured on.

    None, if no image at all is finite.
    """
    rows = _rows_of(particles, group, box)
    order = rows[torch.randperm(len(rows), generator=generator)]
    for chosen in order.split(_BACKGROUNDS):
        batch = particles.batch(chosen.sort().values)
        batch = batch[is_finite(batch.images)]
        if len(batch):
            return batch[is_usual(batch.images)]
    return None


def _measured(
    calibration_subset: ParticleBatch,
    way: Resampling | None,
    trained: TrainedEncoder,
    seed: int,
) -> Preparation:
    """Measure the noise of a kind, and in which units its images are.

    Around the particles there is noise, and what the CTF has spread of them: too much.
    What the map leaves at the best poses is too much as well, where the particles are
    others. The lesser is taken, ring by ring.
    """
    optics = calibration_subset.optics
    pixel_size = float(optics.pixel_size_angstrom[0])
    reach = _particle_radius_angstrom(trained) + trained.prior.shift_sd_angstrom
    around = background_spectrum(calibration_subset.images, optics, reach / pixel_size)
    if not bool((around > 0).all()):
        raise InputError(
            f"the images of optics group {int(optics.group[0]) + 1} "
            "are constant around the particles: expected noise; run `cryoinfer check`"
        )
    power = around if way is None else way.spectrum(around)
    few = _CalibrationSubset(calibration_subset[:_PILOTS], trained, seed)
    prepared = Preparation(way, around, power)
    trials = [replace(prepared, amplitude=a) for a in few.amplitudes(prepared)]
    tried = [(few.strangeness(one), one) for one in trials]
    _, best = min(tried, key=lambda pair: pair[0])
    for _ in range(_ROUNDS):
        lesser = torch.minimum(power, few.left(best))
        best = replace(best, noise_power=lesser)
    return best


@dataclass(frozen=True)
class _CalibrationSubset:
    """Some images of one kind, to try preparations on."""

    batch: ParticleBatch
    trained: TrainedEncoder
    seed: int

    def amplitudes(self, preparation: Preparation) -> tuple[float, ...]:
        """Return what the signal may be in units of the images that were learned.

        The same, or as many times as the noise is: then both were normalised. The
        noise is compared per area, in the radius of the encoder's picture.
        """
        encoder, way = self.trained.encoder, preparation.resampling
        seen = slice(1, encoder.radius + 1)
        pixel_size = float(self.batch.optics.pixel_size_angstrom[0])
        if way is not None:
            pixel_size = way.pixel_size_angstrom
        group = min(int(self.batch.optics.group[0]), len(encoder.noise_power) - 1)
        learned = encoder.noise_power[group]
        if len(learned) < seen.stop:  # no particles of this group were learned
            learned = max(encoder.noise_power, key=len)
        ratio = float((preparation.noise_power[seen] / learned[seen]).median())
        other = math.sqrt(ratio) * pixel_size / encoder.grid.pixel_size_angstrom
        same = 1 / _OTHER_UNITS < other < _OTHER_UNITS
        return (1.0,) if same else (1.0, other)

    def strangeness(self, preparation: Preparation) -> float:
        """Return how far the usual contrast is from that of these images, as a log."""
        images, mode = self._inferred(preparation)
        shown = self.trained.shown_projector
        found = fit(shown, images.prefix(shown.radius), mode, self.trained.prior)
        contrast = float(found.contrast.median()) / self.trained.inliers.contrast
        return abs(math.log(max(contrast, _LEAST_CONTRAST)))

    def left(self, preparation: Preparation) -> Tensor:
        """Return the power that the map leaves of the prepared images, by ring."""
        images, mode = self._inferred(preparation)
        left = residual(self.trained.projector, images, mode)
        counted = noise_weight(images.optics, images.ctf)
        ratio = radial_power(left, images.disc, counted)
        rings = torch.arange(len(preparation.noise_power)).clamp(max=len(ratio) - 1)
        return preparation.noise_power * ratio[rings]

    def _inferred(self, preparation: Preparation) -> tuple[WhitenedImages, Latents]:
        trained = self.trained
        images = preparation.whitened(self.batch, trained.encoder.grid, self.seed)
        way = trained.semi_amortized()
        found = way.infer(images, trained.projector, trained.prior, None)
        return images, found.mode()


def _tell(
    monitor: Monitor,
    kind: tuple[int, int, float],
    grid: ReferenceGrid,
    one: Preparation,
    differences: Sequence[str],
) -> None:
    """Say in what images differ from those that were learned, and what is done."""
    group, box, pixel_size = kind
    done = ["their noise is measured"]
    if one.resampling is not None:
        way = one.resampling
        done.insert(0, f"resampled to {way.box} of {way.pixel_size_angstrom:.4g} A")
    if one.amplitude != 1:
        done.append(f"their signal taken to be {one.amplitude:.3g} times as strong")
    learned = f"{grid.box} of {grid.pixel_size_angstrom:.4g} A"
    found = [f"{box} pixels of {pixel_size:.4g} A", *differences]
    monitor.message(
        f"Optics group {group + 1}, {', '.join(found)}, is not one "
        f"that the encoder learned ({learned}): {', '.join(done)}."
    )
