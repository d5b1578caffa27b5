"""Unseen particles through an encoder: a posterior each, and a map of them all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.slices import SliceAccumulator
from cryoinfer.inference.amortized import PoseEncoder, SemiAmortized
from cryoinfer.inference.novelty import fit, is_novel, novelty
from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.inference.refine import LocalPoses, PosePrior
from cryoinfer.inference.subjects import MapSubject
from cryoinfer.inference.whitening import WhitenedImages, is_finite
from cryoinfer.interfaces import Monitor
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.records import Latents, ParticleBatch, Pose
from cryoinfer.workflows.finish import reconstruct_halves
from cryoinfer.workflows.marching import PADDING, find_mask
from cryoinfer.workflows.passes import MODES, insert_images, residual
from cryoinfer.workflows.preparation import prepare, require_alike
from cryoinfer.workflows.problem import Problem, define_problem
from cryoinfer.workflows.result import RunResult
from cryoinfer.workflows.train import TrainedEncoder

_VARIANCE_OF_ANY_TURN = (math.pi**2 / 3 + 2) / 3
"""About one axis, in radian squared, of the rotation vectors of random rotations."""


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """What may be chosen.

    Attributes
    ----------
    climb : bool
        Whether Gauss-Newton takes the encoder's poses to the top of their posteriors.
    symmetry : str, optional
        Of the map that is made; by default that of the map that was learned.
    particle_diameter_angstrom : float, optional
        Of the sphere that the mask lies in; by default three quarters of the box.
    seed : int
        Of the halves, where the particles name none.
    """

    climb: bool = True
    symmetry: str | None = None
    particle_diameter_angstrom: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Inferred:
    """Posteriors of n particles, and the sums of slices of those that show the map.

    Attributes
    ----------
    half : Tensor of int64, shape (n,)
        0 or 1.
    rotation, shift_angstrom, weight : Tensor, (n, m, 3, 3), (n, m, 2), (n, m)
        The best modes, best first.
    defocus_offset_angstrom : Tensor, shape (n,)
    covariance : Tensor, shape (n, 6, 6)
        Of the best mode.
    entropy_nats, log_likelihood : Tensor, shape (n,)
        Minus infinity is the likelihood of an image that is not finite.
    novelty_nats : Tensor, shape (n,)
        See :func:`cryoinfer.inference.novelty.novelty`; infinite where the image is not
        finite.
    unreadable : Tensor of bool, shape (n,)
        Which images hold NaN or infinite pixels.
    prepared : Tensor of bool, shape (n,)
        Which were resampled, or taken to be of another strength, to be like those that
        the encoder has learned.
    noise_power : tuple of Tensor, each shape (rings,)
        Per optics group.
    sums : tuple of two SliceAccumulator
        Of each half.
    """

    half: Tensor
    rotation: Tensor
    shift_angstrom: Tensor
    weight: Tensor
    defocus_offset_angstrom: Tensor
    covariance: Tensor
    entropy_nats: Tensor
    log_likelihood: Tensor
    novelty_nats: Tensor
    unreadable: Tensor
    prepared: Tensor
    noise_power: tuple[Tensor, ...]
    sums: tuple[SliceAccumulator, SliceAccumulator]

    def __len__(self) -> int:
        return len(self.half)

    @classmethod
    def blank(cls, half: Tensor, box: int, prior: PosePrior) -> Self:
        """Return what is known of particles before, or without, looking at an image.

        Any rotation, and of the rest the prior: no mode has any weight.
        """
        n = len(half)
        variance = [_VARIANCE_OF_ANY_TURN] * 3 + [prior.shift_sd_angstrom**2] * 2
        variance.append(prior.defocus_sd_angstrom**2)
        covariance = torch.diag(torch.tensor(variance, dtype=torch.float64))
        nothing = PoseMixture(
            torch.eye(3, dtype=torch.float64).expand(1, 1, 3, 3),
            torch.zeros(1, 1, 2, dtype=torch.float64),
            torch.zeros(1, 1, dtype=torch.float64),
            torch.zeros(1, 1, dtype=torch.float64),
            covariance.expand(1, 1, 6, 6),
            torch.ones(1, dtype=torch.float64),
            covariance.diagonal()[3:].clamp(min=1e-30),
            torch.zeros(1, 1, 0, dtype=torch.float64),
        )
        zeros = torch.zeros(n, dtype=torch.float64)
        first, second = (
            SliceAccumulator.empty(box, box // 2 - 1, PADDING) for _ in range(2)
        )
        return cls(
            half,
            torch.eye(3, dtype=torch.float64).repeat(n, MODES, 1, 1),
            torch.zeros(n, MODES, 2, dtype=torch.float64),
            torch.zeros(n, MODES, dtype=torch.float64),
            zeros,
            covariance.repeat(n, 1, 1),
            nothing.entropy().repeat(n),
            zeros - torch.inf,
            zeros + torch.inf,
            torch.zeros(n, dtype=torch.bool),
            torch.zeros(n, dtype=torch.bool),
            (),
            (first, second),
        )

    def put(self, index: Tensor, posterior: PoseMixture) -> None:
        """Overwrite the posteriors of some particles."""
        count = min(MODES, posterior.weight.shape[1])
        self.rotation[index, :count] = posterior.rotation[:, :count]
        self.shift_angstrom[index, :count] = posterior.shift_angstrom[:, :count]
        self.weight[index, :count] = posterior.weight[:, :count]
        self.entropy_nats[index] = posterior.entropy()
        self.defocus_offset_angstrom[index] = posterior.defocus_offset_angstrom[:, 0]
        self.covariance[index] = posterior.covariance[:, 0]

    def add(self, later: "Inferred") -> "Inferred":
        """Return these particles and later ones, with the noise of these.

        The sums are added in place.
        """
        for own, other in zip(self.sums, later.sums, strict=True):
            own.sums.add_(other.sums)
        joined = {
            name: torch.cat([getattr(self, name), getattr(later, name)])
            for name in _PER_PARTICLE
        }
        return type(self)(**joined, noise_power=self.noise_power, sums=self.sums)

    def to_state(self) -> dict[str, object]:
        """Return all of it in tensors, for a checkpoint."""
        return {name: getattr(self, name) for name in _PER_PARTICLE} | {
            "noise_power": list(self.noise_power),
            "sums": [one.sums for one in self.sums],
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], box: int) -> Self:
        """Return what a checkpoint holds.

        Raises
        ------
        InputError
            If it is of maps of another box.
        """
        first, second = (
            SliceAccumulator.empty(box, box // 2 - 1, PADDING) for _ in range(2)
        )
        one, other = state["sums"]
        if one.shape != first.sums.shape:
            raise InputError(
                f"the state is of maps of another box than the encoder's {box}: begin "
                "anew with --overwrite"
            )
        return cls(
            **{name: state[name] for name in _PER_PARTICLE},
            noise_power=tuple(state["noise_power"]),
            sums=(replace(first, sums=one), replace(second, sums=other)),
        )


_PER_PARTICLE = (
    *("half", "rotation", "shift_angstrom", "weight", "defocus_offset_angstrom"),
    *("covariance", "entropy_nats", "log_likelihood", "novelty_nats", "unreadable"),
    "prepared",
)


def infer(
    particles: Particles, trained: TrainedEncoder, config: InferConfig, monitor: Monitor
) -> RunResult:
    """Infer every particle once, and reconstruct from the poses found.

    The halves of the map are as independent as the encoder allows: it has learned one
    map to the radius of its picture, and with a climb, to the last one. Particles that
    do not show this map (:mod:`cryoinfer.inference.novelty`), and those whose images
    are not finite, are left out of the map.

    Parameters
    ----------
    particles : Particles
    trained : TrainedEncoder
    config : InferConfig
    monitor : Monitor

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the particles are not like those that the encoder has learned, and cannot
        be made so.
    """
    inferred = infer_particles(particles, trained, config, monitor)
    monitor.stage("maps and FSC", 1)
    result = reconstruct_inferred(particles, inferred, trained, config)
    monitor.advance()
    return result


def infer_particles(
    particles: Particles, trained: TrainedEncoder, config: InferConfig, monitor: Monitor
) -> Inferred:
    """Infer every particle once, and insert those that show the map.

    Raises
    ------
    InputError
        As :func:`infer`.
    """
    require_alike(particles, trained)
    problem = _problem(particles, trained, config)
    run = _Inferring(problem, trained, config, monitor)
    monitor.stage("inference", len(particles))
    for batch in problem.batches(torch.arange(len(particles))):
        run.take(batch)
        monitor.advance(len(batch))
    return run.found


def reconstruct_inferred(
    particles: Particles,
    inferred: Inferred,
    trained: TrainedEncoder,
    config: InferConfig,
) -> RunResult:
    """Divide the sums of inferred particles, and return all that is known of them."""
    problem = _problem(particles, trained, config)
    box = problem.grid.box
    first, second = (
        symmetrise(sums, problem.symmetry_rotation) for sums in inferred.sums
    )
    halves = [solve(sums, None, box, box) for sums in (first, second)]
    mask = find_mask(problem, halves[0] + halves[1], box // 8)
    rotation, shift = inferred.rotation, inferred.shift_angstrom
    return RunResult(
        reconstruction=reconstruct_halves(problem, (first, second), mask),
        latents=Latents(
            Pose(rotation[:, 0], shift[:, 0]), inferred.defocus_offset_angstrom
        ),
        covariance=inferred.covariance,
        log_likelihood=inferred.log_likelihood,
        mode_pose=Pose(rotation, shift),
        mode_weight=inferred.weight,
        random_subset=inferred.half + 1,
        noise_power=inferred.noise_power,
        iterations=(),
        entropy_nats=inferred.entropy_nats,
        novelty_nats=inferred.novelty_nats,
        unreadable=inferred.unreadable,
        prepared=inferred.prepared,
    )


def _problem(
    particles: Particles, trained: TrainedEncoder, config: InferConfig
) -> Problem:
    """Return the particles on the grid of the encoder, whatever theirs is."""
    problem = define_problem(
        particles,
        config.symmetry or trained.symmetry,
        particle_diameter_angstrom=config.particle_diameter_angstrom,
        max_shift_angstrom=None,
        defocus_sd_angstrom=trained.prior.defocus_sd_angstrom,
        generator=torch.Generator().manual_seed(config.seed),
    )
    grid = trained.encoder.grid
    radius = problem.particle_radius_angstrom
    if config.particle_diameter_angstrom is None:  # a share of the box
        radius *= grid.length_angstrom / problem.grid.length_angstrom
    return replace(problem, grid=grid, particle_radius_angstrom=radius)


class _Inferring:
    """The growing results of one pass over all particles."""

    def __init__(
        self,
        problem: Problem,
        trained: TrainedEncoder,
        config: InferConfig,
        monitor: Monitor,
    ) -> None:
        self._problem, self._trained = problem, trained
        self._inference: PoseEncoder | SemiAmortized[MapSubject] = trained.encoder
        if config.climb:
            self._inference = trained.semi_amortized()
        self._generator = torch.Generator().manual_seed(config.seed)
        self._preparations = prepare(
            problem.particles, trained, self._generator, monitor
        )
        blank = Inferred.blank(problem.half, problem.grid.box, trained.prior)
        noise = self._preparations.noise_power()
        self.found = replace(blank, noise_power=noise)

    def take(self, batch: ParticleBatch) -> None:
        """Infer and insert a batch of one optics group, box and half."""
        good = is_finite(batch.images)
        if not bool(good.all()):
            self.found.unreadable[batch.index[~good]] = True
            batch = batch[good]
        if not len(batch):
            return
        found, index, grid = self.found, batch.index, self._problem.grid
        half = int(found.half[index[0]])
        prepared = self._preparations.of(batch)
        found.prepared[index] = not prepared.is_none
        images = prepared.whitened(batch, grid, self._generator)
        posterior = self._inference.infer_whitened(images)
        found.put(index, posterior)
        mode = posterior.mode()
        poses = LocalPoses.of(mode)
        near = images.prefix(self._trained.encoder.radius)
        found.novelty_nats[index] = strange = self._novelty(near, mode)
        left = residual(self._trained.shown_volume, near, poses)
        found.log_likelihood[index] = -left.abs().square().sum(1).double()
        known = torch.nonzero(~is_novel(strange)).squeeze(1)
        if len(known):
            kept, placed = images.select(known), poses.select(known)
            insert_images(found.sums[half], kept, placed, grid.box // 2 - 1)

    def _novelty(self, near: WhitenedImages, mode: Latents) -> Tensor:
        trained = self._trained
        found = fit(trained.shown_volume, near, mode, trained.prior)
        return novelty(found, trained.usual)
