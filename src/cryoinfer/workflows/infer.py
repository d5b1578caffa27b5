"""Unseen particles through an encoder: a posterior each, and a map of them all."""

from dataclasses import dataclass, replace

import torch

from cryoinfer.data.particles import Particles
from cryoinfer.inference.outlier_score import fit, is_outlier, outlier_score
from cryoinfer.inference.projector import residual
from cryoinfer.inference.subspace_projector import MapsProjector
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.final_maps import reconstruct_sums
from cryoinfer.workflows.inferred import (
    Inferred,
    InferredParticles,
    single_precision,
)
from cryoinfer.workflows.iteration import unknown_posterior
from cryoinfer.workflows.particle_pass import InferredBatch, ParticlePass, run_pass
from cryoinfer.workflows.preparation import Preparations, prepare, require_alike
from cryoinfer.workflows.problem import Problem, define_problem
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.structure_update import HalfMapSums
from cryoinfer.workflows.trained_encoder import TrainedEncoder
from cryoinfer.world import ALONE, World

INFERENCE = "inference"
"""Name of the stage whose steps are images."""


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """What may be chosen.

    Attributes
    ----------
    local_refinement : bool
        Whether the encoder's poses are refined locally.
    symmetry : str, optional
        Of the map that is made; by default that of the map that was learned.
    particle_diameter_angstrom : float, optional
        Of the sphere that the mask lies in; by default three quarters of the box.
    seed : int
        Of the halves, where the particles name none.
    """

    local_refinement: bool = True
    symmetry: str | None = None
    particle_diameter_angstrom: float | None = None
    seed: int = 0


_DEFAULTS = InferConfig()


def infer(
    particles: Particles,
    trained: TrainedEncoder,
    config: InferConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
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
    world : World
        The processes that share the particles, each of which calls this.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the particles are not like those that the encoder has learned, and cannot
        be made so.
    """
    monitor = SharedMonitor(monitor, world)
    inferred = infer_particles(particles, trained, config, monitor, world, monitor)
    monitor.stage("maps and FSC", 1)
    result = reconstruct_inferred(particles, inferred, trained, config)
    monitor.advance()
    return result


def infer_particles(
    particles: Particles,
    trained: TrainedEncoder,
    config: InferConfig,
    monitor: Monitor,
    world: World = ALONE,
    checkpoints: Monitor | None = None,
) -> Inferred:
    """Infer every particle once, and insert those that show the map.

    Parameters
    ----------
    particles : Particles
    trained : TrainedEncoder
    config : InferConfig
    monitor : Monitor
    world : World
    checkpoints : Monitor, optional
        Keeps what is found; without it nothing is kept or continued.

    Raises
    ------
    InputError
        As :func:`infer`.
    """
    require_alike(particles, trained)
    problem = _problem(particles, trained, config).shared_by(world)
    preparations = prepare(particles, trained, config.seed, monitor)
    sums = HalfMapSums.empty(problem.grid.box, problem.grid.box // 2 - 1)
    step = ParticlePass(
        INFERENCE,
        preparations,
        (trained.projector, trained.projector),
        trained.prior,
        trained.semi_amortized() if config.local_refinement else trained.encoder,
        lambda one: _record(trained, preparations, one),
        (sums,),
        used=lambda record: ~is_outlier(record.outlier_score_nats),
    )
    unseen = InferredParticles.unseen(len(particles), trained.prior)
    known = unknown_posterior(len(particles))
    found = run_pass(problem, step, known, unseen, monitor, checkpoints)
    return Inferred(found, problem.half, preparations.noise_power(), sums)


def _record(
    trained: TrainedEncoder,
    preparations: Preparations,
    one: InferredBatch[MapsProjector],
) -> InferredParticles:
    """Return what is kept of a batch: posteriors, and whether they show the map."""
    near, mode = one.images.prefix(trained.encoder.radius), one.posterior.mode()
    fitted = fit(trained.shown_projector, near, mode, trained.prior)
    left = residual(trained.shown_projector, near, mode)
    posterior = replace(
        one.posterior, log_likelihood=-left.abs().square().sum(1).double()
    )
    no = torch.zeros(len(mode), dtype=torch.bool)
    return InferredParticles(
        single_precision(posterior),
        posterior.entropy().float(),
        outlier_score(fitted, trained.inliers).float(),
        no,
        no | (not preparations.of(one.batch).is_none),
    )


def reconstruct_inferred(
    particles: Particles,
    inferred: Inferred,
    trained: TrainedEncoder,
    config: InferConfig,
) -> RunResult:
    """Divide the sums of inferred particles, and return all that is known of them."""
    problem = _problem(particles, trained, config)
    sums = inferred.sums.symmetrised(problem.symmetry_rotation)
    found = inferred.particles
    return RunResult(
        reconstruction=reconstruct_sums(problem, sums),
        inferred=found.posterior,
        random_subset=inferred.half + 1,
        noise_power=inferred.noise_power,
        iterations=(),
        entropy_nats=found.entropy_nats,
        outlier_score_nats=found.outlier_score_nats,
        unreadable=found.unreadable,
        prepared=found.prepared,
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
