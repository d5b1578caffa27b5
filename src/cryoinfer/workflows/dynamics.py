"""From an atomic model and particles to the motion of every particle."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.amortized import (
    PoseEncoder,
    SemiAmortized,
    mixture_of_tops,
)
from cryoinfer.inference.encoder_inputs import picture_radius
from cryoinfer.inference.moving_subject import MovingSubject
from cryoinfer.inference.polish import Polish
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.posteriors import ALL_TURNS, IN_PLANE, PoseMixture
from cryoinfer.inference.refine import LocalPoses, PosePrior
from cryoinfer.inference.training import Training, TrainingConfig, train
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    is_finite,
    whiten,
)
from cryoinfer.interfaces import Monitor
from cryoinfer.records import ParticleBatch
from cryoinfer.workflows.dynamics_result import Dynamics, Motions
from cryoinfer.workflows.moving_noise import Imaged, first_look, second_look
from cryoinfer.workflows.parts import Parts
from cryoinfer.workflows.train import OF_ONE_GROUP, climb_radii, templates_of
from cryoinfer.workflows.trial import CLIMBED, ENCODER, Trial

Poses = Literal["unknown", "in-plane", "given"]
"""What is known of the poses: nothing, the view but not the angle in its plane, or
where to begin."""

_SHIFT_OF_BOX = 0.05  # sd of shifts, where nobody tells
_MODES = 4  # of the encoder, that are climbed
_MARCH = 1.35  # of radii of the climbs, from one to the next
_COARSE_SHARE = 0.8  # of the last radius, up to which beads stand for atoms
_GIVEN_RADIUS = 12  # of the first climb from given poses, in pixels
_POLISHED_UNKNOWNS = 3
_CHUNK = 250
_KEPT_EVERY = 8  # chunks
_FEWEST_TRIED, _MOST_TRIED = 100, 500
_TRAINING, _PARTICLES = "encoder", "particles"


@dataclass(frozen=True)
class DynamicsConfig:
    """What may be chosen about an inference of motions.

    Attributes
    ----------
    poses : {"unknown", "in-plane", "given"}
    shift_sd_angstrom : float, optional
        By default 5 % of the box; 0 takes particles as centred.
    defocus_sd_angstrom : float
        Of the error of the given defoci; 0 takes them as known.
    network : PoseNetworkConfig
    training : TrainingConfig
    draws : int
        Starts of climbs from about what was found at a lower radius.
    seed : int
    """

    poses: Poses = "unknown"
    shift_sd_angstrom: float | None = None
    defocus_sd_angstrom: float = 0.0
    network: PoseNetworkConfig = field(default_factory=PoseNetworkConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=3000))
    draws: int = 0
    seed: int = 0


def infer_dynamics(
    particles: Particles, model: MovingModel, config: DynamicsConfig, monitor: Monitor
) -> Dynamics:
    """Infer amplitudes of modes, pose, shift and defocus of every particle.

    Parameters
    ----------
    particles : Particles
        Of one box and pixel size.
    model : MovingModel
    config : DynamicsConfig
    monitor : Monitor
        Its checkpoint, if it has one, is continued.

    Returns
    -------
    Dynamics

    Raises
    ------
    InputError
        If particles and structure cannot be used together.
    """
    parts = Parts(monitor)
    way = _Way.of(particles, model, config)
    generator = torch.Generator().manual_seed(config.seed)
    imaged = first_look(particles, model, way.grid, way.prior, generator)
    monitor.message(imaged.told())
    begun, verdict = way.begun(imaged, parts)
    if verdict:
        monitor.message(f"The training of the encoder: {verdict}")
    imaged = second_look(way.pilots(imaged, begun(imaged)), imaged)
    monitor.message(imaged.told())
    inference = begun(imaged)
    trials = way.trials(inference, imaged, monitor)
    motions = way.inferred(inference, imaged, parts)
    finder = MotionInference(way, inference, imaged)
    return Dynamics(motions, way.prior, imaged, trials, verdict, finder)


@dataclass(frozen=True)
class _Way:
    """Particles, a model, and how the one is inferred by the other."""

    particles: Particles
    model: MovingModel
    config: DynamicsConfig
    grid: ReferenceGrid
    prior: PosePrior

    @classmethod
    def of(
        cls, particles: Particles, model: MovingModel, config: DynamicsConfig
    ) -> "_Way":
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
                "particles.star of a run, or leave --poses out"
            )
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

    def radii(self, first: int) -> tuple[int, ...]:
        """Return the Fourier radii of climbs, from a first one to the last."""
        last = self.grid.box // 2 - 1
        steps = max(1, math.ceil(math.log(last / first) / math.log(_MARCH)))
        ratio = (last / first) ** (1 / steps)
        return tuple(sorted({round(first * ratio**k) for k in range(steps + 1)}))

    @property
    def coarse_radius(self) -> int:
        """Up to which beads stand for atoms."""
        return int(_COARSE_SHARE * (self.grid.box // 2 - 1))

    def subject(self, imaged: Imaged) -> MovingSubject:
        """Return the model in the units of the images."""
        gain = imaged.gain
        return replace(
            self._subject,
            moving=self._subject.moving.scaled(gain),
            coarse=self._subject.coarse.scaled(gain),
        )

    @cached_property
    def _subject(self) -> MovingSubject:
        # Beads take seconds to fit, and are asked for whenever the gain changes.
        coarse = self.model.beads(self.grid.resolution_at(self.coarse_radius))
        finest = self.model.finest(2 * self.grid.pixel_size_angstrom)
        return MovingSubject(finest, self.grid, coarse, self.coarse_radius)

    def begun(
        self, imaged: Imaged, parts: Parts
    ) -> tuple[Callable[[Imaged], "_Given | SemiAmortized[MovingSubject]"], str]:
        """Return what makes an inference of a noise and a gain, and a verdict."""
        if self.config.poses == "given":
            return lambda now: _Given(self, self.subject(now)), ""
        encoder, training = self.trained(imaged, parts)
        return lambda now: self.climbing(encoder, training, now), training.verdict

    def trained(self, imaged: Imaged, parts: Parts) -> tuple[PoseEncoder, Training]:
        """Teach an encoder, and return it with how it learned."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed)
        radius = picture_radius(config.network.side)
        images = TrainingImages(
            self.subject(imaged),
            templates_of(
                self.particles, self.grid, radius, imaged.noise_power, generator
            ),
            self.prior,
        )
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = PoseNetwork(config.network, self.prior)
        alone = torch.eye(3, dtype=torch.float64)[None]
        done = train(
            network, images, config.training, alone, generator, parts.monitor(_TRAINING)
        )
        encoder = PoseEncoder(done.network, self.grid, imaged.noise_power, alone)
        return encoder, done

    def climbing(
        self, encoder: PoseEncoder, training: Training, imaged: Imaged
    ) -> SemiAmortized[MovingSubject]:
        """Return the climbs from what an encoder names, as far off as it errs."""
        last = self.grid.box // 2 - 1
        degrees = training.checks[-1].median_degrees
        first = climb_radii(degrees, encoder.radius, last)[0]
        return SemiAmortized(
            replace(encoder, noise_power=imaged.noise_power),
            self.subject(imaged),
            self.prior,
            self.radii(first),
            modes=_MODES,
            draws=self.config.draws,
        )

    def whitened(self, batch: ParticleBatch, imaged: Imaged) -> WhitenedImages:
        """Whiten images of one optics group to the last radius."""
        noise = imaged.noise_power[int(batch.optics.group[0])]
        return whiten(batch, self.grid, self.grid.box // 2 - 1, noise)

    def posterior(
        self, inference: "_Given | SemiAmortized[MovingSubject]", images: WhitenedImages
    ) -> PoseMixture:
        """Return posteriors, with their own moments where unknowns are few."""
        found = inference.infer_whitened(images)
        if int((self.prior.precision >= 0).sum()) > _POLISHED_UNKNOWNS:
            return found
        return Polish(inference.subject, self.prior).of(images, found)

    def chunks(self) -> list[Tensor]:
        """Return the rows of particles, some of one optics group at a time."""
        group = self.particles.optics.group
        members = [torch.nonzero(group == one).squeeze(1) for one in group.unique()]
        return [rows for own in members for rows in own.split(_CHUNK)]

    def pilots(
        self, imaged: Imaged, inference: "_Given | SemiAmortized[MovingSubject]"
    ) -> Iterator[tuple[int, WhitenedImages, Tensor]]:
        """Yield group, images and what the model shows of them, of some particles."""
        for group, batch in imaged.pilots(self.particles):
            images = self.whitened(batch, imaged)
            if isinstance(inference, _Given):
                inference = inference.at(batch.index)
            mode = inference.infer_whitened(images).mode()
            offset = mode.defocus_offset_angstrom
            if bool((offset != 0).any()):
                images, _ = images.with_defocus_offset(offset)
            shown = inference.subject.coefficients(mode, images) * images.ctf
            centred = replace(images, coefficients=shown)
            yield group, images, centred.moved_back(-mode.pose.shift_angstrom)

    def trials(
        self,
        inference: "_Given | SemiAmortized[MovingSubject]",
        imaged: Imaged,
        monitor: Monitor,
    ) -> dict[str, Trial]:
        """Try posteriors on simulated images, unless poses are given."""
        if isinstance(inference, _Given):
            return {}
        generator = torch.Generator().manual_seed(self.config.seed + 1)
        # As many as there are particles: a trial is not to take longer than they do.
        tried = min(max(len(self.particles), _FEWEST_TRIED), _MOST_TRIED)
        lent = templates_of(
            self.particles,
            self.grid,
            self.grid.box // 2 - 1,
            imaged.noise_power,
            generator,
            tried,
        )
        source = TrainingImages(inference.subject, lent, self.prior)
        drawn = [
            source.draw(OF_ONE_GROUP, generator) for _ in range(tried // OF_ONE_GROUP)
        ]
        monitor.stage("calibration", len(drawn))
        encoded, climbed = [], []
        for images, _ in drawn:
            encoded.append(inference.encoder.infer_whitened(images))
            climbed.append(self.posterior(inference, images))
            monitor.advance()
        truths = [truth for _, truth in drawn]
        found = {}
        for name, posteriors in ((ENCODER, encoded), (CLIMBED, climbed)):
            draws = torch.Generator().manual_seed(self.config.seed + 2)
            found[name] = Trial.of(
                posteriors, truths, inference.encoder.symmetry, draws
            )
        return found

    def inferred(
        self,
        inference: "_Given | SemiAmortized[MovingSubject]",
        imaged: Imaged,
        parts: Parts,
    ) -> Motions:
        """Infer all particles; an interrupted pass goes on."""
        monitor = parts.monitor(_PARTICLES)
        chunks = self.chunks()
        found = Motions.blank(len(self.particles), len(self.model.modes))
        done = 0
        saved: Any = monitor.load_checkpoint()
        if saved is not None:
            found, done = Motions(**saved["motions"]), saved["done"]
        monitor.stage("inference", len(self.particles))
        monitor.advance(sum(len(rows) for rows in chunks[:done]))
        for number, rows in enumerate(chunks[done:], done + 1):
            batch = self.particles.batch(rows)
            good = is_finite(batch.images)
            if bool(good.any()):
                batch = batch[good]
                if isinstance(inference, _Given):
                    inference = inference.at(batch.index)
                images = self.whitened(batch, imaged)
                posterior = self.posterior(inference, images)
                value = inference.subject.log_likelihood(images, posterior.mode())
                # Of each chunk its own, so that a resumed run draws the same.
                generator = torch.Generator().manual_seed(self.config.seed + number)
                found.put(batch.index, posterior, value, generator)
            monitor.advance(len(rows))
            if number % _KEPT_EVERY == 0:
                monitor.save_checkpoint({"motions": dict(vars(found)), "done": number})
        return found


@dataclass(frozen=True)
class MotionInference:
    """The inference of a run, for one batch of one optics group after the other.

    A :class:`cryoinfer.interfaces.Inference`.
    """

    _way: _Way
    _inference: "_Given | SemiAmortized[MovingSubject]"
    _imaged: Imaged

    def infer(self, batch: ParticleBatch) -> PoseMixture:
        """Return the posterior of every particle."""
        inference = self._inference
        if isinstance(inference, _Given):
            inference = inference.at(batch.index)
        images = self._way.whitened(batch, self._imaged)
        return self._way.posterior(inference, images)


@dataclass(frozen=True)
class _Given:
    """Climbs from given poses: an inference of the particles in ``rows``."""

    way: _Way
    subject: MovingSubject
    rows: Tensor | None = None

    def at(self, rows: Tensor) -> "_Given":
        """Return the inference of other particles."""
        return replace(self, rows=rows)

    def infer_whitened(self, images: WhitenedImages) -> PoseMixture:
        """Return the posteriors of the images of those particles."""
        way, rows = self.way, self.rows
        pose = way.particles.pose
        assert pose is not None
        assert rows is not None
        n = len(rows)
        zero = torch.zeros(n, len(way.model.modes), dtype=torch.float64)
        poses = LocalPoses.at(
            pose.rotation[rows], pose.shift_angstrom[rows], torch.zeros(n), zero
        )
        for radius in way.radii(min(_GIVEN_RADIUS, way.grid.box // 2 - 1)):
            near = images.prefix(radius)
            poses = self.subject.climb(near, poses, way.prior, 6, 2 / radius)
        # One mode each, whatever its evidence.
        return mixture_of_tops(torch.arange(n), poses, poses.log_likelihood, n, 1)
