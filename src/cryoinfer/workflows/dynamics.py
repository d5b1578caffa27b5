"""From an atomic model and particles to the motion of every particle."""

import torch

from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.workflows.dynamics_result import Dynamics
from cryoinfer.workflows.motion_encoder import MotionEncoder
from cryoinfer.workflows.motion_inference import FromStarts, MotionInference
from cryoinfer.workflows.motion_learning import learned_model
from cryoinfer.workflows.motion_problem import DynamicsConfig, MotionProblem
from cryoinfer.workflows.motion_search import searched
from cryoinfer.workflows.moving_noise import Imaged, first_look, second_look
from cryoinfer.workflows.parts import Parts
from cryoinfer.workflows.trial import Trial

_GIVEN_RADIUS = 12  # of the first climb from given poses, in pixels
_BY_STARTS = ("given", "searched")  # that need no encoder
_FIRST, _LEARNING = "first encoder", "learning"
_TRAINING, _PARTICLES = "encoder", "particles"


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
    problem = MotionProblem.of(particles, model, config)
    if config.poses == "searched":
        problem = searched(problem, parts)
    generator = torch.Generator().manual_seed(config.seed)
    imaged = first_look(particles, model, problem.grid, problem.prior, generator)
    monitor.message(imaged.told())
    if config.learning_rounds:
        found, _ = _inferring(problem, imaged, parts.monitor(_FIRST), monitor)
        learned = learned_model(found, config.learning_rounds, parts.monitor(_LEARNING))
        problem = MotionProblem.of(problem.particles, learned, config)
    inference, encoder = _inferring(problem, imaged, parts.monitor(_TRAINING), monitor)
    trials: dict[str, Trial] = {}
    if encoder is not None:
        inference, trials = encoder.tried(inference, monitor)
    return Dynamics(
        inference.all_motions(parts.monitor(_PARTICLES)),
        problem.model,
        problem.prior,
        inference.imaged,
        trials,
        "" if encoder is None else encoder.training.verdict,
        inference.widening,
        inference,
    )


def _inferring(
    problem: MotionProblem, imaged: Imaged, training: Monitor, monitor: Monitor
) -> tuple[MotionInference, MotionEncoder | None]:
    """Return an inference, and the encoder that it is by, if any."""
    encoder = None
    if problem.config.poses not in _BY_STARTS:
        encoder = MotionEncoder.taught(problem, imaged, training)
        monitor.message(f"The training of the encoder: {encoder.training.verdict}")

    def made(now: Imaged) -> MotionInference:
        if encoder is None:
            return _from_given(problem, now)
        return encoder.inference(now)

    again = second_look(made(imaged).pilots(), imaged)
    monitor.message(again.told())
    return made(again), encoder


def _from_given(problem: MotionProblem, imaged: Imaged) -> MotionInference:
    """Return climbs from the poses of the particles' file."""
    pose = problem.particles.pose
    assert pose is not None
    n = len(problem.particles)
    starts = Latents(
        pose,
        torch.zeros(n, dtype=torch.float64),
        torch.zeros(n, len(problem.model.modes), dtype=torch.float64),
    )
    first = min(_GIVEN_RADIUS, problem.grid.box // 2 - 1)
    finder = FromStarts(problem, problem.subject(imaged), starts, first)
    return MotionInference.of(problem, finder, imaged)
