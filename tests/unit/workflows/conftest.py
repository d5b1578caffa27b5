"""Small simulated sets, made once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.outlier_score import InlierStatistics, fit
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.inference.whitening import whiten
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import StackWriter, read_map
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.train import EncoderConfig, TrainingData, train_encoder
from cryoinfer.workflows.trained_encoder import TrainedEncoder


@dataclass(frozen=True)
class SimulatedSet:
    """Particles without poses, and what is true of them."""

    particles: Particles
    true_pose: Pose
    density: Tensor
    simulation: Simulation

    def with_poses(self) -> Particles:
        return self.particles.with_results(pose=self.true_pose)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Callable[..., SimulatedSet]:
    """Return a function that simulates: 24 pixels of 3.8 angstrom, 200 images."""

    @cache
    def make(n: int = 200, **changes) -> SimulatedSet:
        settings = {"box": 24, "pixel_size_angstrom": 3.8, "snr_db": 10.0} | changes
        config = SimulationConfig(n=n, **settings)
        folder = tmp_path_factory.mktemp("set")
        particles = Particles.load(simulate(config, folder, SilentMonitor()))
        truth = Particles.load(folder / "truth.star").pose
        assert truth is not None
        assert read_map(folder / "truth.mrc").density.shape == (config.box,) * 3
        simulation = Simulation.of(config)
        return SimulatedSet(particles, truth, simulation.density(), simulation)

    return make


@pytest.fixture(scope="session")
def taught() -> Callable[..., TrainedEncoder]:
    """Return a function that trains an encoder of a few steps on a simulated set.

    It has learned nothing, but knows what is usual of the images.
    """

    def teach(made: SimulatedSet, spectrum: Tensor) -> TrainedEncoder:
        config = EncoderConfig(
            network=PoseNetworkConfig(side=16, components=3, width=16),
            training=TrainingConfig(steps=3, batch=8, check_every=3),
        )
        size = made.particles.pixel_size_angstrom
        training_data = TrainingData(made.density, size, (spectrum,), 1.2, "C1")
        trained = train_encoder(made.particles, training_data, config, SilentMonitor())
        batch = made.particles.batch(torch.arange(len(made.particles)))
        encoder = trained.encoder
        images = whiten(batch, encoder.grid, encoder.radius, spectrum)
        volume = FourierVolume.from_map(made.density, encoder.radius)
        shown = MapProjector(volume)
        at = Latents.rigid(made.true_pose, torch.zeros(len(made.true_pose)).double())
        return replace(
            trained, inliers=InlierStatistics.of(fit(shown, images, at, trained.prior))
        )

    return teach


class Kept(SilentMonitor):
    """Keeps checkpoints, and stops at one of them."""

    def __init__(self, state: Mapping[str, object] | None = None, at: int = 0) -> None:
        self.state, self._at, self._saved = state, at, 0

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        self.state = dict(state)
        self._saved += 1
        if self._saved == self._at:
            raise KeyboardInterrupt

    def load_checkpoint(self) -> Mapping[str, object] | None:
        return self.state


@pytest.fixture
def kept() -> type[Kept]:
    """Return the monitor that keeps checkpoints in memory."""
    return Kept


@pytest.fixture
def stack(tmp_path):
    """Return a function that writes images and loads them as particles."""

    def make(images: Tensor) -> Particles:
        path = tmp_path / "images.mrcs"
        with StackWriter(path, len(images), images.shape[-1], 2.0) as writer:
            writer.write(images)
        return Particles.load(path)

    return make
