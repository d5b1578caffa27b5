"""An encoder, and local refinement from it, tried on simulated images of its map."""

import torch

from cryoinfer.data.particles import Particles
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.subspace_projector import MapsProjector
from cryoinfer.inference.training_images import drawn_batches
from cryoinfer.interfaces import Monitor
from cryoinfer.results.calibration_trial import ENCODER, REFINED, CalibrationTrial
from cryoinfer.workflows.trained_encoder import TrainedEncoder

IMAGES = 1000
"""That tell a share of a half to within 1.6 points (a standard deviation)."""


def calibrate_encoder(
    trained: TrainedEncoder,
    particles: Particles,
    seed: int,
    monitor: Monitor,
    images: int = IMAGES,
) -> dict[str, CalibrationTrial]:
    """Try an encoder, and local refinement from it, on simulated images of its map.

    Parameters
    ----------
    trained : TrainedEncoder
    particles : Particles
        Whose CTFs and noise are lent; of areas that the encoder knows.
    seed : int
        Another one than that of the training.
    monitor : Monitor
    images : int

    Returns
    -------
    dict of str to CalibrationTrial
        :data:`ENCODER` and :data:`REFINED`.
    """
    generator = torch.Generator().manual_seed(seed)
    encoder, semi = trained.encoder, trained.semi_amortized()
    source = trained.like(particles, images, generator)
    drawn = list(drawn_batches(source, images, generator))
    ways: dict[str, PoseInference[MapsProjector]] = {ENCODER: encoder, REFINED: semi}
    monitor.stage("calibration", len(ways) * len(drawn))
    trials = {}
    for name, inference in ways.items():
        posteriors = []
        for batch, _ in drawn:
            found = inference.infer(batch, source.projector, source.prior, None)
            posteriors.append(found)
            monitor.advance()
        truths = [truth for _, truth in drawn]
        # The same draws for both, and others than those of the truths.
        draws = torch.Generator().manual_seed(seed + 1)
        trials[name] = CalibrationTrial.of(posteriors, truths, encoder.symmetry, draws)
    return trials
