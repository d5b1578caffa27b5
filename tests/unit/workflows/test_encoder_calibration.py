"""An encoder, and local refinement from it, put to the test."""

import torch

from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.results.calibration_trial import ENCODER, REFINED
from cryoinfer.workflows.encoder_calibration import calibrate_encoder
from cryoinfer.workflows.train import EncoderConfig, TrainingData, train_encoder


def test_an_encoder_and_refinement_from_it_are_tried(simulated) -> None:
    box, pixel_size = 24, 3.8
    made = simulated()
    noise = (torch.full((box // 2 + 1,), 0.1),)
    training_data = TrainingData(made.density, pixel_size, noise, 1.0, "C1")
    config = EncoderConfig(
        network=PoseNetworkConfig(side=16, components=3, width=8),
        training=TrainingConfig(steps=3, batch=8, check_every=3),
    )
    trained = train_encoder(made.particles, training_data, config, SilentMonitor())
    trials = calibrate_encoder(trained, made.particles, 1, SilentMonitor(), images=60)
    assert set(trials) == {ENCODER, REFINED}
    assert all(trial.images == 60 for trial in trials.values())
    again = calibrate_encoder(trained, made.particles, 1, SilentMonitor(), images=60)
    assert again == trials
