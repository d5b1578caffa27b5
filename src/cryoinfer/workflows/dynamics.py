"""From an atomic model and particles to the motion of every particle."""

import torch

from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.workflows.dynamics_result import Dynamics
from cryoinfer.workflows.motion_encoder import MotionEncoder
from cryoinfer.workflows.motion_inference import FromStarts, MotionInference
from cryoinfer.workflows.motion_problem import DynamicsConfig, MotionProblem
from cryoinfer.workflows.moving_noise import Imaged, first_look, second_look
from cryoinfer.workflows.parts import Parts
from cryoinfer.workflows.trial import Trial

_GIVEN_RADIUS = 12  # of the first climb from given poses, in pixels
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
    generator = torch.Generator().manual_seed(config.seed)
    imaged = first_look(particles, model, problem.grid, problem.prior, generator)
    monitor.message(imaged.told())
    trials: dict[str, Trial] = {}
    verdict = ""
    if config.poses == "given":
        imaged = _looked_again(_from_given(problem, imaged), monitor)
        inference = _from_given(problem, imaged)
    else:
        encoder = MotionEncoder.taught(problem, imaged, parts.monitor(_TRAINING))
        verdict = encoder.training.verdict
        monitor.message(f"The training of the encoder: {verdict}")
        imaged = _looked_again(encoder.inference(imaged), monitor)
        inference, trials = encoder.tried(encoder.inference(imaged), monitor)
    motions = inference.all_motions(parts.monitor(_PARTICLES))
    return Dynamics(
        motions,
        problem.prior,
        inference.imaged,
        trials,
        verdict,
        inference.widening,
        inference,
    )


def _looked_again(inference: MotionInference, monitor: Monitor) -> Imaged:
    """Return noise and gain from what some particles show."""
    imaged = second_look(inference.pilots(), inference.imaged)
    monitor.message(imaged.told())
    return imaged


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
