"""Posteriors of motions put to the test on simulated images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.covariance_inflation import fitted_inflation
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.training_images import TrainingImages, drawn_batches
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.workflows.motion_inference import MotionInference
from cryoinfer.workflows.simulated_images import templates_of
from cryoinfer.world import World

_FEWEST_TRIED, _MOST_TRIED = 100, 500


def tried(
    inference: MotionInference,
    name: str,
    others: Mapping[str, PoseInference[MovingProjector]],
    monitor: Monitor,
) -> tuple[MotionInference, dict[str, CalibrationTrial]]:
    """Fit the widths of posteriors to simulated images, and try them on others.

    The curvature of a top tells the width of a posterior too small where an image
    says little.

    Parameters
    ----------
    inference : MotionInference
        Of any images: not one that knows where its particles are.
    name : str
        Of its trial.
    others : mapping of str to PoseInference
        What else is put to the same test.
    monitor : Monitor

    Returns
    -------
    inference : MotionInference
        With fitted widths, unless posteriors have their own.
    trials : dict of str to CalibrationTrial
        Of images that no width was fitted to.
    """
    problem = inference.problem
    # As many as there are particles: a trial is not to take longer than they do.
    count = len(problem.particles)
    count = min(max(count, _FEWEST_TRIED), _MOST_TRIED)
    source = _simulated(inference)
    seed = problem.config.seed
    generator = torch.Generator().manual_seed(seed + 1)
    world = problem.problem.world
    monitor.stage("calibration", count if inference.has_own_widths else 2 * count)
    drawn = list(drawn_batches(source, count, generator))
    if not inference.has_own_widths:
        fitted = list(drawn_batches(source, count, generator))
        found = _inferred(inference, fitted, world, monitor)
        truths = [truth for _, truth in fitted]
        inference = replace(
            inference, covariance_inflation=fitted_inflation(found, truths)
        )
    posteriors = {
        other: [
            way.infer(images, inference.projector, problem.prior, None)
            for images, _ in drawn
        ]
        for other, way in others.items()
    }
    posteriors[name] = _inferred(inference, drawn, world, monitor)
    alone = symmetry_rotations("C1")
    trials = {}
    for one, own in posteriors.items():
        draws = torch.Generator().manual_seed(seed + 2)
        trials[one] = CalibrationTrial.of(
            own, [truth for _, truth in drawn], alone, draws
        )
    return inference, trials


def _simulated(inference: MotionInference) -> TrainingImages:
    problem = inference.problem
    generator = torch.Generator().manual_seed(problem.config.seed + 1)
    lent = templates_of(
        problem.particles,
        problem.grid,
        problem.last_radius,
        inference.measured.noise_power,
        generator,
        2 * _MOST_TRIED,
    )
    # As particles are inferred: of a wrong model, as much as is theirs.
    sigma_a = inference.measured.sigma_a
    attenuated = tuple(one.attenuated(sigma_a) for one in lent)
    return TrainingImages(inference.projector, attenuated, problem.prior)


def _inferred(
    inference: MotionInference,
    drawn: Sequence[tuple[WhitenedImages, Latents]],
    world: World,
    monitor: Monitor,
) -> list[ParticlePosterior]:
    """Return the posteriors of batches, which processes share."""
    own: list[ParticlePosterior] = []
    for images, _ in drawn[world.rank :: world.size]:
        own.append(inference.posterior(images))
        monitor.advance(len(images) * world.size)
    parts = world.gathered(own)
    return [parts[k % world.size][k // world.size] for k in range(len(drawn))]
