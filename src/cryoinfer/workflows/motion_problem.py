"""Particles and a model that moves: what an inference of motions is given."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import torch
from torch import Tensor

from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.geometry.rotation_volume import ALL_TURNS, IN_PLANE
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    is_finite,
    whiten,
)
from cryoinfer.records import ParticleBatch
from cryoinfer.workflows.noise_and_scale import NoiseAndScale

Poses = Literal["unknown", "in-plane", "given", "searched"]
"""What is known of the poses: nothing, and they are to be searched, or an encoder is to
learn them (unknown); the view but not the angle in its plane; or where to begin."""

_SHIFT_OF_BOX = 0.05  # sd of shifts, where nobody tells
_MARCH = 1.35  # of radii of the climbs, from one to the next
_COARSE_SHARE = 0.8  # of the last radius, up to which beads stand for atoms
_CHUNK = 250

FEWEST_PARTICLES = 2
"""One has no spread along a mode."""


@dataclass(frozen=True)
class DynamicsConfig:
    """What may be chosen about an inference of motions.

    Attributes
    ----------
    poses : {"unknown", "in-plane", "given", "searched"}
    shift_sd_angstrom : float, optional
        By default 5 % of the box; 0 takes particles as centred.
    defocus_sd_angstrom : float
        Of the error of the given defoci; 0 takes them as known.
    network : PoseNetworkConfig
    training : TrainingConfig
    draws : int
        Starts of climbs from about what was found at a lower radius.
    learning_rounds : int
        In which the model at rest and its modes are learned; 0 keeps them as given.
    seed : int
    """

    poses: Poses = "searched"
    shift_sd_angstrom: float | None = None
    defocus_sd_angstrom: float = 0.0
    network: PoseNetworkConfig = field(default_factory=PoseNetworkConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=3000))
    draws: int = 0
    learning_rounds: int = 0
    seed: int = 0

    @property
    def by_encoder(self) -> bool:
        """Whether an encoder is taught the poses."""
        return self.poses in ("unknown", "in-plane")


@dataclass(frozen=True)
class Readable:
    """Images of one optics group that can be read.

    Attributes
    ----------
    index : Tensor of int64, shape (n,)
        Rows of the particles.
    images : WhitenedImages
    """

    index: Tensor
    images: WhitenedImages


@dataclass(frozen=True)
class MotionProblem:
    """Particles, a model, and what stays the same while motions are inferred.

    Attributes
    ----------
    particles : Particles
        Of one box and pixel size.
    model : MovingModel
    config : DynamicsConfig
    grid : ReferenceGrid
    prior : PosePrior
    """

    particles: Particles
    model: MovingModel
    config: DynamicsConfig
    grid: ReferenceGrid
    prior: PosePrior

    @classmethod
    def of(
        cls, particles: Particles, model: MovingModel, config: DynamicsConfig
    ) -> Self:
        """Bring particles and model together.

        Raises
        ------
        InputError
            If they cannot be used together, or there are fewer than two particles.
        """
        box, pixel_size = particles.box, particles.pixel_size_angstrom
        sizes = particles.optics.pixel_size_angstrom
        if bool((particles.boxes != box).any() or (sizes != pixel_size).any()):
            raise InputError(
                f"expected particles of one box and pixel size, found several beside "
                f"{box} pixels of {pixel_size:g} A: rescale them, or infer each kind "
                "by itself"
            )
        if box % 2:
            raise InputError(f"expected an even box, found images of {box} pixels")
        if config.poses == "given" and particles.pose is None:
            raise InputError(
                "--poses given expects particles with poses, found none: use the "
                "particles.star of a run, or leave --poses out. "
                f"{particles.pose_problem}"
            )
        require_several(len(particles))
        model.require_imaged(box, pixel_size)
        grid = ReferenceGrid(box, pixel_size)
        shift_sd = config.shift_sd_angstrom
        if shift_sd is None:
            shift_sd = _SHIFT_OF_BOX * grid.length_angstrom
        turns = IN_PLANE if config.poses == "in-plane" else ALL_TURNS
        prior = PosePrior(
            shift_sd, config.defocus_sd_angstrom, model.amplitude_sd_angstrom, turns
        )
        return cls(particles, model, config, grid, prior)

    @property
    def last_radius(self) -> int:
        """Of the images: the last below Nyquist."""
        return self.grid.box // 2 - 1

    def radii(self, first: int, last: int) -> tuple[int, ...]:
        """Return the Fourier radii of climbs, from a first one to a last."""
        steps = max(1, math.ceil(math.log(last / first) / math.log(_MARCH)))
        ratio = (last / first) ** (1 / steps)
        return tuple(sorted({round(first * ratio**k) for k in range(steps + 1)}))

    def with_model(self, model: MovingModel) -> Self:
        """Return the problem with another model and its spreads of amplitudes."""
        sd = model.amplitude_sd_angstrom
        prior = replace(self.prior, conformation_sd_angstrom=sd)
        return replace(self, model=model, prior=prior)

    def refinement(
        self, projector: MovingProjector, first: int, last: int, modes: int
    ) -> ModeRefinement[MovingProjector]:
        """Return climbs from ``modes`` modes, from a first radius to a last."""
        return ModeRefinement(
            projector,
            self.prior,
            self.radii(first, last),
            self.grid.lever_angstrom,
            symmetry_rotations("C1"),
            modes,
            self.config.draws,
        )

    @property
    def coarse_radius(self) -> int:
        """Up to which beads stand for atoms."""
        return int(_COARSE_SHARE * self.last_radius)

    def projector(self, measured: NoiseAndScale) -> MovingProjector:
        """Return the model in the units of the images."""
        gain = measured.gain
        return replace(
            self._projector,
            moving=self._projector.moving.scaled(gain),
            coarse=self._projector.coarse.scaled(gain),
        )

    @cached_property
    def _projector(self) -> MovingProjector:
        # Beads take seconds to fit, and are asked for whenever the gain changes.
        coarse = self.model.beads(self.grid.resolution_at(self.coarse_radius))
        finest = self.model.finest(2 * self.grid.pixel_size_angstrom)
        return MovingProjector(finest, self.grid, coarse, self.coarse_radius)

    def whitened(self, batch: ParticleBatch, measured: NoiseAndScale) -> WhitenedImages:
        """Whiten images of one optics group to the last radius, by sigma-A weights."""
        noise = measured.noise_power[int(batch.optics.group[0])]
        images = whiten(batch, self.grid, self.last_radius, noise)
        return images.attenuated(measured.sigma_a)

    def readable(
        self, batch: ParticleBatch, measured: NoiseAndScale
    ) -> "Readable | None":
        """Whiten those images of one optics group that can be read, if there are any.

        Those without NaN or infinite pixels, and not so bright over the noise that
        their power is beyond single precision.
        """
        batch = batch[is_finite(batch.images)]
        if not len(batch):
            return None
        images = self.whitened(batch, measured)
        clear = images.coefficients.abs().square().sum(1).isfinite()
        if not bool(clear.any()):
            return None
        kept = torch.nonzero(clear).squeeze(1)
        return Readable(batch.index[kept], images.select(kept))

    def chunks(self) -> list[Tensor]:
        """Return the rows of particles, some of one optics group at a time."""
        group = self.particles.optics.group
        members = [torch.nonzero(group == one).squeeze(1) for one in group.unique()]
        return [rows for own in members for rows in own.split(_CHUNK)]


def require_several(readable: int) -> None:
    """Refuse particles too few to have spreads of motions.

    Raises
    ------
    InputError
    """
    if readable < FEWEST_PARTICLES:
        raise InputError(
            f"motions need at least {FEWEST_PARTICLES} particles that can be used, "
            f"found {readable}: one has no spread along a mode"
        )
