"""Posteriors of motions put to the test on simulated images."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.covariance_inflation import fitted_inflation
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.training_images import TrainingImages, drawn_batches
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.interfaces import Monitor
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.workflows.motion_inference import MotionInference
from cryoinfer.workflows.simulated_images import templates_of

_FEWEST_TRIED, _MOST_TRIED = 100, 500

Named = Callable[[WhitenedImages], ParticlePosterior]


def tried(
    inference: MotionInference,
    name: str,
    others: Mapping[str, Named],
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
    others : mapping of str to callable
        What else is put to the same test.
    monitor : Monitor

    Returns
    -------
    inference : MotionInference
        With fitted widths, unless posteriors have their own moments.
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
    monitor.stage("calibration", count if inference.matches_moments else 2 * count)
    drawn = list(drawn_batches(source, count, generator))
    if not inference.matches_moments:
        fitted = list(drawn_batches(source, count, generator))
        found = [_infer(inference, images, monitor) for images, _ in fitted]
        truths = [truth for _, truth in fitted]
        inference = replace(
            inference, covariance_inflation=fitted_inflation(found, truths)
        )
    posteriors = {
        other: [named(images) for images, _ in drawn] for other, named in others.items()
    }
    posteriors[name] = [_infer(inference, images, monitor) for images, _ in drawn]
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
    faded = tuple(one.attenuated(inference.measured.sigma_a) for one in lent)
    return TrainingImages(inference.finder.projector, faded, problem.prior)


def _infer(
    inference: MotionInference, images: WhitenedImages, monitor: Monitor
) -> ParticlePosterior:
    found = inference.posterior(images, torch.arange(len(images)))
    monitor.advance(len(images))
    return found
