"""From an atomic model and particles to the motion of every particle."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.calibration_trial import (
    ENCODER,
    REFINED,
    SEARCHED,
    VARIATIONAL,
    CalibrationTrial,
)
from cryoinfer.results.model_frame import ModelFrame
from cryoinfer.results.motions import Motions
from cryoinfer.results.run_result import Reconstruction
from cryoinfer.workflows.final_maps import reconstruct_sums
from cryoinfer.workflows.image_sources import ReadableImages
from cryoinfer.workflows.motion_calibration import tried
from cryoinfer.workflows.motion_encoder import MotionEncoder
from cryoinfer.workflows.motion_frame import (
    first_frame,
    found_frame,
    motions_in,
)
from cryoinfer.workflows.motion_inference import MotionInference
from cryoinfer.workflows.motion_learning import learned_model
from cryoinfer.workflows.motion_problem import (
    GIVEN_RADIUS,
    DynamicsConfig,
    MotionProblem,
    require_several,
)
from cryoinfer.workflows.motion_start import refined
from cryoinfer.workflows.noise_and_scale import (
    NoiseAndScale,
    initial_estimate,
    residual_estimate,
)
from cryoinfer.workflows.reconstruct import insert_all
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.world import ALONE, World

_FIRST, _LEARNING = "first encoder", "learning"
_TRAINING, _PARTICLES = "encoder", "particles"


@dataclass(frozen=True)
class Dynamics:
    """A finished inference of motions.

    Attributes
    ----------
    motions : Motions
    reconstruction : Reconstruction
        Of both half-sets from the poses found, all conformations together. One model
        has posed both, so that their correlation may say too much.
    inference : MotionInference
        What found them, for these particles (whose rows it may need) or, where poses
        were not given, for others like them. It knows the model, the given one or the
        learned, its prior, noise and gain of the images and what the model leaves
        unexplained of them, and the widths that simulated images want.
    trials : dict of str to CalibrationTrial
        Posteriors put to the test on simulated images.
    verdict : str
        Of the encoder's training; empty without one.
    frame : ModelFrame
        Where the model lies, that ``inference`` takes as centred; poses of ``motions``
        are in it.
    """

    motions: Motions
    reconstruction: Reconstruction
    frame: ModelFrame
    inference: MotionInference
    trials: dict[str, CalibrationTrial]
    verdict: str

    @property
    def model(self) -> MovingModel:
        """The model by which motions were found."""
        return self.inference.problem.model


_DEFAULTS = DynamicsConfig()


def infer_dynamics(
    particles: Particles,
    model: MovingModel,
    config: DynamicsConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
) -> Dynamics:
    """Infer amplitudes of modes, pose, shift and defocus of every particle.

    Parameters
    ----------
    particles : Particles
    model : MovingModel
    config : DynamicsConfig, optional
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.
    world : World
        The processes that share the particles, each of which calls this.

    Returns
    -------
    Dynamics

    Raises
    ------
    InputError
        If particles and structure cannot be used together, or fewer than two images
        can be read.
    """
    monitor = SharedMonitor(monitor, world)
    parts = StageCheckpoints(monitor)
    problem = MotionProblem.of(particles, model, config, world)
    generator = torch.Generator().manual_seed(config.seed)
    measured = initial_estimate(
        particles, model, problem.grid, problem.prior, generator
    )
    require_several(sum(len(rows) for rows in measured.rows))
    monitor.message(measured.told())
    if config.learning_rounds:
        first = _beginning(problem.by_refinement(), measured, parts, monitor)
        learned = learned_model(first, config.learning_rounds, parts.monitor(_LEARNING))
        problem = MotionProblem.of(particles, learned, config, world)
    inference, encoder = _inferring(
        problem, measured, parts.monitor(_TRAINING), monitor
    )
    trials: dict[str, CalibrationTrial] = {}
    if config.poses != "given":
        others = {} if encoder is None else {ENCODER: encoder.encoder}
        name = SEARCHED if encoder is None else REFINED
        if config.by_variation:
            name = VARIATIONAL
        inference, trials = tried(inference, name, others, monitor)
    motions = inference.all_motions(parts.monitor(_PARTICLES))
    frame = _frame(problem, inference, motions)
    if config.poses == "given":
        monitor.message(frame.told())
    motions = motions_in(frame, motions)
    return Dynamics(
        motions,
        _half_maps(inference, motions, monitor),
        frame,
        inference,
        trials,
        "" if encoder is None else encoder.training.verdict,
    )


def _frame(
    problem: MotionProblem, inference: MotionInference, motions: Motions
) -> ModelFrame:
    """Return where the model lies: in the middle, unless poses were given."""
    pose = problem.particles.pose
    if problem.config.poses != "given" or pose is None:
        return ModelFrame.in_the_middle()
    return found_frame(pose, motions, inference.frame)


def _half_maps(
    inference: MotionInference, motions: Motions, monitor: Monitor
) -> Reconstruction:
    """Return the maps of both half-sets, of all conformations together."""
    problem = inference.problem.problem
    box, noise = problem.grid.box, inference.measured.noise_power
    images = ReadableImages(problem.grid, box // 2 - 1, noise)
    sums = insert_all(problem, images, motions.latents, monitor)
    return reconstruct_sums(problem, sums)


def _beginning(
    problem: MotionProblem,
    measured: NoiseAndScale,
    parts: StageCheckpoints,
    monitor: Monitor,
) -> MotionInference:
    """Return an inference by a model that may be wrong.

    A search by its own maps would lose particles that are far from all of them: a
    refinement that begins at one makes its map that of the particles.
    """
    if problem.config.poses == "searched":
        found = refined(problem, parts)
        middle = ModelFrame.in_the_middle()

        def begun(now: NoiseAndScale) -> MotionInference:
            return MotionInference.from_poses(found, now, middle)

        return _with_residual_noise(begun, measured, monitor)
    return _inferring(problem, measured, parts.monitor(_FIRST), monitor)[0]


def _inferring(
    problem: MotionProblem, measured: NoiseAndScale, training: Monitor, monitor: Monitor
) -> tuple[MotionInference, MotionEncoder | None]:
    """Return an inference, and the encoder that it is by, if any."""
    if problem.config.poses == "given":
        radius = min(GIVEN_RADIUS, problem.last_radius)
        begun = first_frame(problem, measured, radius)
        made = functools.partial(MotionInference.from_poses, problem, frame=begun)
        return _with_residual_noise(made, measured, monitor), None
    if problem.config.poses == "searched":
        made = functools.partial(MotionInference.by_search, problem)
        return _with_residual_noise(made, measured, monitor), None
    encoder = MotionEncoder.taught(problem, measured, training)
    monitor.message(f"The training of the encoder: {encoder.training.verdict}")
    return _with_residual_noise(encoder.inference, measured, monitor), encoder


def _with_residual_noise(
    made: Callable[[NoiseAndScale], MotionInference],
    measured: NoiseAndScale,
    monitor: Monitor,
) -> MotionInference:
    """Return an inference that knows noise and gain from what it has found."""
    again = residual_estimate(made(measured).calibration_subset(), measured)
    monitor.message(again.told())
    return made(again)
