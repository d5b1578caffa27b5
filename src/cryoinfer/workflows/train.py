"""From a map and the optics of particles to an encoder that knows both."""

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.amortized import SAME_AREA, PoseEncoder
from cryoinfer.inference.encoder_inputs import picture_radius
from cryoinfer.inference.outlier_score import Fit, InlierStatistics, fit
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.subspace_projector import MapsProjector, maps_projector
from cryoinfer.inference.training import Training, TrainingConfig, train
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.acquisition import AcquisitionStatistics
from cryoinfer.workflows.problem import CHUNK
from cryoinfer.workflows.refinement_inflation import inflation_of_refinement
from cryoinfer.workflows.simulated_images import templates_of
from cryoinfer.workflows.trained_encoder import TrainedEncoder

_NARROWEST_SHIFT_PIXEL = 0.25
"""Of the shifts' prior. Where particles turned out to be centred, a narrower one would
draw their shifts to the centre, and only whoever knew that it is right could say how
wide the sets are to be."""

_WIDER = 1.2  # than what was found, which is itself uncertain
_FEWEST_FITTED, _MOST_FITTED = 1000, 10_000
"""Simulated images that widths of refinements are fitted to, as many as there are
particles: by 5,000 they are known to 1 %."""

_LENT = 1000  # particles, whose CTFs and noise these have


@dataclass(frozen=True)
class EncoderConfig:
    """What may be chosen about an encoder.

    Attributes
    ----------
    network : PoseNetworkConfig
    training : TrainingConfig
    defocus_sd_angstrom : float
        Of the error of the given defoci; 0 takes them as known.
    seed : int
    """

    network: PoseNetworkConfig = field(default_factory=PoseNetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    defocus_sd_angstrom: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class TrainingData:
    """What an encoder is to learn.

    Attributes
    ----------
    density : Tensor, shape (n, n, n)
        The map, masked; the mean, where there are components.
    pixel_size_angstrom : float
    noise_power : tuple of Tensor, each shape (rings,)
        Per optics group and ring, of the particles.
    shift_sd_angstrom : float
        Spread of the particles' shifts about the centres of their boxes.
    symmetry : str
        Point group of the map.
    components : tuple of Tensor, each of shape (n, n, n)
        Of a linear subspace of maps, in which z has unit spread.
    last_radius : int, optional
        That the maps reach, by default that of the box.
    """

    density: Tensor
    pixel_size_angstrom: float
    noise_power: tuple[Tensor, ...]
    shift_sd_angstrom: float
    symmetry: str
    components: tuple[Tensor, ...] = ()
    last_radius: int | None = None

    @classmethod
    def of_run(cls, run: RunResult) -> Self:
        """Return the map of a run, and its particles' noise and shifts."""
        maps = run.reconstruction
        shift = run.latents.pose.shift_angstrom
        return cls(
            maps.density * maps.mask,
            maps.pixel_size_angstrom,
            run.noise_power,
            float(shift.square().mean().sqrt()),
            maps.symmetry,
        )


_DEFAULTS = EncoderConfig()


def train_encoder(
    particles: Particles,
    training_data: TrainingData,
    config: EncoderConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
) -> TrainedEncoder:
    """Teach an encoder the posteriors of a map.

    Parameters
    ----------
    particles : Particles
        Whose optics are learned.
    training_data : TrainingData
    config : EncoderConfig, optional
    monitor : Monitor, optional

    Returns
    -------
    TrainedEncoder

    Raises
    ------
    InputError
        If the picture is larger than the images, or these cover different areas.
    """
    begun = _Beginning.of(particles, training_data, config)
    grid, images, generator = begun.grid, begun.images, begun.generator
    done = begun.train(config, monitor)
    encoder = PoseEncoder(done.network, grid, training_data.noise_power, begun.symmetry)
    inliers = InlierStatistics.of(
        Fit.joined([_fit(encoder, images, t) for t in images.templates])
    )
    trained = TrainedEncoder(
        encoder=encoder,
        density=training_data.density,
        components=training_data.components,
        last_radius=training_data.last_radius or grid.box // 2 - 1,
        prior=images.prior,
        symmetry=training_data.symmetry,
        inliers=inliers,
        imaging=_imaging(particles, grid, generator),
        checks=done.checks,
        verdict=done.verdict,
        covariance_inflation=torch.ones(len(images.prior.precision)).double(),
    )
    alike = trained.like(particles, _LENT, generator)
    count = min(max(len(particles), _FEWEST_FITTED), _MOST_FITTED)
    covariance_inflation = inflation_of_refinement(
        trained.refinement, alike, count, generator, monitor
    )
    return replace(trained, covariance_inflation=covariance_inflation)


def help_training(
    particles: Particles, training_data: TrainingData, config: EncoderConfig
) -> None:
    """Share the steps of a training that :func:`train_encoder` leads elsewhere.

    What follows them is done by the first process alone.

    Raises
    ------
    InputError
        As :func:`train_encoder`.
    """
    _Beginning.of(particles, training_data, config).train(config, SILENT)


@dataclass(frozen=True)
class _Beginning:
    """What a training begins with, the same in every process that shares it."""

    network: PoseNetwork
    images: TrainingImages[MapsProjector]
    grid: ReferenceGrid
    symmetry: Tensor
    generator: torch.Generator

    @classmethod
    def of(
        cls, particles: Particles, training_data: TrainingData, config: EncoderConfig
    ) -> Self:
        density = training_data.density
        grid = ReferenceGrid(density.shape[-1], training_data.pixel_size_angstrom)
        require_picture(config.network.side, grid.box)
        _require_one_area(particles, grid)
        least = _NARROWEST_SHIFT_PIXEL * grid.pixel_size_angstrom
        shift_sd = max(_WIDER * training_data.shift_sd_angstrom, least)
        unit = (1.0,) * len(training_data.components)
        prior = PosePrior(shift_sd, config.defocus_sd_angstrom, unit)
        generator = torch.Generator().manual_seed(config.seed)
        radius = picture_radius(config.network.side)
        images = TrainingImages(
            maps_projector((density, *training_data.components), radius),
            templates_of(particles, grid, radius, training_data.noise_power, generator),
            prior,
        )
        with torch.random.fork_rng():
            # Layers draw their first weights from the global generator.
            torch.manual_seed(config.seed)
            network = PoseNetwork(config.network, prior)
        symmetry = symmetry_rotations(training_data.symmetry)
        return cls(network, images, grid, symmetry, generator)

    def train(self, config: EncoderConfig, monitor: Monitor) -> Training:
        return train(
            self.network,
            self.images,
            config.training,
            self.symmetry,
            self.generator,
            monitor,
        )


def _imaging(
    particles: Particles, grid: ReferenceGrid, generator: torch.Generator
) -> tuple[AcquisitionStatistics | None, ...]:
    """Return how the particles of each optics group were recorded."""
    group, found = particles.optics.group, []
    for number in range(int(group.max()) + 1):
        own = (group == number) & (particles.boxes == grid.box)
        rows = torch.nonzero(own).squeeze(1)
        found.append(
            AcquisitionStatistics.of(particles, rows, generator) if len(rows) else None
        )
    return tuple(found)


def _fit(
    encoder: PoseEncoder, source: TrainingImages[MapsProjector], real: WhitenedImages
) -> Fit:
    """Return how the map fits particles of one optics group."""
    parts = []
    for rows in torch.arange(len(real)).split(CHUNK):
        images = real.select(rows)
        mode = encoder.posterior(images).mode()
        parts.append(fit(source.projector, images, mode, source.prior))
    return Fit.joined(parts)


def require_picture(side: int, box: int) -> None:
    """Refuse a picture that cannot be halved to 4 pixels, or exceeds the box.

    Raises
    ------
    InputError
    """
    if side < 8 or side & (side - 1) or side > box:
        raise InputError(
            f"expected a picture of 8, 16, 32, .. pixels, at most the {box} of the "
            f"box, found {side}"
        )


def _require_one_area(particles: Particles, grid: ReferenceGrid) -> None:
    sizes = particles.optics.pixel_size_angstrom * particles.boxes
    off = (sizes / grid.length_angstrom - 1).abs() > SAME_AREA
    if bool(off.any()):
        group = int(particles.optics.group[off][0]) + 1
        raise InputError(
            f"expected images {grid.length_angstrom:.1f} A across, as the map is, "
            f"found {float(sizes[off][0]):.1f} A in optics group {group}: rescale the "
            "particles to one pixel size, or train without that group"
        )
