"""Unseen particles through an encoder: a posterior each, and a map of them all."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import state_of_this_version
from cryoinfer.inference.amortized import PoseEncoder, SemiAmortized
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.outlier_score import fit, is_outlier, outlier_score
from cryoinfer.inference.projector import residual
from cryoinfer.inference.whitening import WhitenedImages, is_finite
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.records import Latents, ParticleBatch
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.inferred import Inferred
from cryoinfer.workflows.iteration import insert_images
from cryoinfer.workflows.postprocess import reconstruct_halves
from cryoinfer.workflows.preparation import prepare, require_alike
from cryoinfer.workflows.problem import Problem, define_problem
from cryoinfer.workflows.resolution_schedule import find_mask
from cryoinfer.workflows.train import TrainedEncoder

INFERENCE = "inference"
"""Name of the stage whose steps are images."""

_KEEP_SECONDS = 120.0
"""Of inference after which a checkpoint is written."""


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


_DEFAULTS = InferConfig()


def infer(
    particles: Particles,
    trained: TrainedEncoder,
    config: InferConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
) -> RunResult:
    """Infer every particle once, and reconstruct from the poses found.

    The halves of the map are as independent as the encoder allows: it has learned one
    map to the radius of its picture, and with a local refinement, to the last one.
    Particles that do not show this map (:mod:`cryoinfer.inference.outlier_score`), and
    those whose images are not finite, are left out of the map.

    Parameters
    ----------
    particles : Particles
    trained : TrainedEncoder
    config : InferConfig, optional
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the particles are not like those that the encoder has learned, and cannot
        be made so.
    """
    run = _Inferring.of(particles, trained, config, monitor)
    saved = monitor.load_checkpoint()
    if saved is not None:
        with state_of_this_version():
            run.load(saved)
    begun = kept = time.monotonic()
    for _ in run.batches(monitor):
        if time.monotonic() - kept >= _KEEP_SECONDS:
            monitor.save_checkpoint(run.state())
            kept = time.monotonic()
    if time.monotonic() - begun >= _KEEP_SECONDS:
        monitor.save_checkpoint(run.state())
    monitor.stage("maps and FSC", 1)
    result = reconstruct_inferred(particles, run.found, trained, config)
    monitor.advance()
    return result


def infer_particles(
    particles: Particles, trained: TrainedEncoder, config: InferConfig, monitor: Monitor
) -> Inferred:
    """Infer every particle once, and insert those that show the map.

    No checkpoint is read or written.

    Raises
    ------
    InputError
        As :func:`infer`.
    """
    run = _Inferring.of(particles, trained, config, monitor)
    for _ in run.batches(monitor):
        pass
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
    return RunResult(
        reconstruction=reconstruct_halves(problem, (first, second), mask),
        inferred=inferred.modes(),
        random_subset=inferred.half + 1,
        noise_power=inferred.noise_power,
        iterations=(),
        entropy_nats=inferred.entropy_nats,
        outlier_score_nats=inferred.outlier_score_nats,
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
        self._inference: PoseEncoder | SemiAmortized[MapProjector] = trained.encoder
        if config.climb:
            self._inference = trained.semi_amortized()
        self._generator = torch.Generator().manual_seed(config.seed)
        self._preparations = prepare(
            problem.particles, trained, self._generator, monitor
        )
        blank = Inferred.blank(problem.half, problem.grid.box, trained.prior)
        noise = self._preparations.noise_power()
        self.found = replace(blank, noise_power=noise)
        self._taken = torch.zeros(len(blank), dtype=torch.bool)

    @classmethod
    def of(
        cls,
        particles: Particles,
        trained: TrainedEncoder,
        config: InferConfig,
        monitor: Monitor,
    ) -> Self:
        """Return the beginning of a pass over particles that the encoder can see."""
        require_alike(particles, trained)
        problem = _problem(particles, trained, config)
        return cls(problem, trained, config, monitor)

    def state(self) -> dict[str, object]:
        """Return all that the next batch depends on."""
        own = {"taken": self._taken, "generator": self._generator.get_state()}
        return own | self.found.to_state()

    def load(self, saved: Mapping[str, Any]) -> None:
        """Invert :meth:`state`."""
        found = Inferred.of_state(saved, self._problem.grid.box)
        if not len(found) == len(saved["taken"]) == len(self._taken):
            raise ValueError("the state is of other particles")
        self.found, self._taken = found, saved["taken"]
        self._generator.set_state(saved["generator"])

    def batches(self, monitor: Monitor) -> Iterator[None]:
        """Take what is left batch by batch, and yield after each."""
        left = torch.nonzero(~self._taken).squeeze(1)
        monitor.stage(INFERENCE, len(left))
        for batch in self._problem.batches(left):
            self._take(batch)
            self._taken[batch.index] = True
            monitor.advance(len(batch))
            yield

    def _take(self, batch: ParticleBatch) -> None:
        """Infer and insert a batch of one optics group, box and half."""
        batch = self._readable(batch, is_finite(batch.images))
        if not len(batch):
            return
        found, grid = self.found, self._problem.grid
        prepared = self._preparations.of(batch)
        images = prepared.whitened(batch, grid, self._generator)
        # Over the noise a finite image may be too bright for single precision.
        clear = images.coefficients.abs().square().sum(1).isfinite()
        if not bool(clear.all()):
            images = images.select(torch.nonzero(clear).squeeze(1))
        batch = self._readable(batch, clear)
        if not len(batch):
            return
        index = batch.index
        half = int(found.half[index[0]])
        found.prepared[index] = not prepared.is_none
        posterior = self._inference.infer_whitened(images)
        found.put(index, posterior)
        mode = posterior.mode()
        near = images.prefix(self._trained.encoder.radius)
        found.outlier_score_nats[index] = strange = self._novelty(near, mode).float()
        left = residual(MapProjector(self._trained.shown_volume), near, mode)
        found.log_likelihood[index] = -left.abs().square().sum(1)
        known = torch.nonzero(~is_outlier(strange)).squeeze(1)
        if len(known):
            kept, placed = images.select(known), mode[known]
            insert_images(found.sums[half], kept, placed, grid.box // 2 - 1)

    def _readable(self, batch: ParticleBatch, good: Tensor) -> ParticleBatch:
        """Return the good ones of a batch, and note the others."""
        if bool(good.all()):
            return batch
        self.found.unreadable[batch.index[~good]] = True
        return batch[good]

    def _novelty(self, near: WhitenedImages, mode: Latents) -> Tensor:
        trained = self._trained
        found = fit(trained.shown_volume, near, mode, trained.prior)
        return outlier_score(found, trained.inliers)
