"""A subspace of some particles, an encoder that learns it, and one pass over all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from cryoinfer.data.particles import Particles
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.heterogeneity import HeldOutGain, Heterogeneity
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.amortize import require_teachable
from cryoinfer.workflows.conformation_result import conformation_result, on_voxels
from cryoinfer.workflows.encoder_calibration import calibrate_encoder
from cryoinfer.workflows.infer import InferConfig, infer
from cryoinfer.workflows.learned_subspace import LearnedSubspace
from cryoinfer.workflows.preparation import prepare
from cryoinfer.workflows.problem import define_problem
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.subspace_evidence import gain_of_unseen, judging_rows
from cryoinfer.workflows.subspace_learning import SubspaceLearning
from cryoinfer.workflows.train import EncoderConfig, TrainingData, train_encoder
from cryoinfer.workflows.trained_encoder import TrainedEncoder
from cryoinfer.world import ALONE, World

_TAUGHT_PART, _ENCODER_PART, _ALL_PART = "taught maps", "encoder", "all particles"


@dataclass(frozen=True)
class AmortizedConformations:
    """Pose and z of all particles, and what they were inferred with.

    Attributes
    ----------
    found : Heterogeneity
        In the subspace of the learning particles.
    trained : TrainedEncoder
    trials : mapping of str to CalibrationTrial
        Of posteriors on simulated images.
    """

    found: Heterogeneity
    trained: TrainedEncoder
    trials: Mapping[str, CalibrationTrial]


def amortize_conformations(
    learning: SubspaceLearning, encoder: EncoderConfig, local_refinement: bool
) -> AmortizedConformations:
    """Learn a subspace from some particles, teach an encoder, and infer all with it.

    Parameters
    ----------
    learning : SubspaceLearning
        Of particles of one area of image, in angstrom, with poses unknown. A run is
        continued in whichever part its checkpoint was left. Subspace and encoder are
        learned by all processes together; the encoder is on the CPU.
    encoder : EncoderConfig
    local_refinement : bool
        Whether poses and z are refined from what the encoder proposes.

    Raises
    ------
    InputError
        If the particles, or what was chosen, cannot be used.
    NothingFoundError
        If they show no structure.
    """
    # The images that teach an encoder are all equally strong.
    config = replace(learning.config, contrast=False)
    learning = replace(learning, config=config)
    particles = learning.problem.particles
    require_teachable(particles, encoder)
    world, monitor = learning.problem.world, learning.monitor
    parts, learned = learning.parts, learning.learned()
    taught = parts.monitor(_ENCODER_PART)
    some = learning.particles
    training_data = _training_data(learning, learned)
    trained = world.of_first(train_encoder(some, training_data, encoder, taught))
    monitor.message(f"The training of the encoder: {trained.verdict}")
    trials = calibrate_encoder(trained, some, config.seed + 1, taught)
    halves = particles.with_results(random_subset=learning.problem.half + 1)
    how = InferConfig(
        local_refinement=local_refinement,
        particle_diameter_angstrom=config.particle_diameter_angstrom,
        seed=config.seed,
    )
    run = infer(halves, trained, how, parts.monitor(_ALL_PART), world)
    radius = trained.last_radius
    found = conformation_result(particles, run, trained.maps, radius, learned.gain)
    return AmortizedConformations(found, trained, trials)


def _training_data(
    learning: SubspaceLearning, learned: LearnedSubspace
) -> TrainingData:
    """Return what an encoder learns: the finest maps of the learning particles."""
    kept = learning.parts.kept(_TAUGHT_PART)
    if kept is None:
        problem = learning.problem.of_rows(learning.rows)
        state = learning.last(problem, learned)
        assert state.subspace is not None
        kept = {"maps": state.subspace.maps}
        learning.parts.keep(_TAUGHT_PART, kept)
    grid = learning.problem.grid
    mean, *components = (on_voxels(one, grid.box) for one in kept["maps"])
    return TrainingData(
        mean,
        grid.pixel_size_angstrom,
        learned.noise,
        learned.shift_sd_angstrom,
        "C1",
        tuple(components),
        learning.map_radius,
    )


def infer_conformations(
    particles: Particles,
    trained: TrainedEncoder,
    config: InferConfig,
    monitor: Monitor,
    world: World = ALONE,
) -> Heterogeneity:
    """Infer pose and z of particles that an encoder of a subspace has not seen.

    What components are worth is asked of these particles.

    Parameters
    ----------
    particles : Particles
    trained : TrainedEncoder
        That has learned components.
    config : InferConfig
    monitor : Monitor
    world : World
        The processes that share the particles, each of which calls this.

    Raises
    ------
    InputError
        As :func:`cryoinfer.workflows.infer.infer`.
    """
    run = infer(particles, trained, config, monitor, world)
    gain = _gain(particles, trained, run, config.seed, SharedMonitor(monitor, world))
    radius = trained.last_radius
    return conformation_result(particles, run, trained.maps, radius, gain)


def _gain(
    particles: Particles,
    trained: TrainedEncoder,
    run: RunResult,
    seed: int,
    monitor: SharedMonitor,
) -> HeldOutGain:
    """Return what components are worth to some of the particles that show the maps."""
    assert run.outlier_score_nats is not None
    generator = torch.Generator().manual_seed(seed)
    rows = judging_rows(run.outlier_score_nats, generator)
    if not len(rows):
        return HeldOutGain.of_nothing(len(trained.components))
    some = particles.select(rows)
    projector = trained.shown_projector
    assert isinstance(projector, SubspaceProjector)
    problem = replace(
        define_problem(some, "C1", None, None, 0.0, generator),
        grid=trained.encoder.grid,
        prior=trained.prior,
        world=monitor.world,
    )
    source = prepare(some, trained, seed, SILENT)
    poses = run.latents[rows].double()
    return gain_of_unseen(problem, source, projector, poses, monitor)
