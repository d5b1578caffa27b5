"""Conformations from nothing go on where they were interrupted."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SILENT, SilentMonitor
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig

EACH = 220  # enough for two clusters


class StoppedError(Exception):
    """Raised at a stage, as Ctrl-C would."""


class Recorder(SilentMonitor):
    """Keeps the last checkpoint, and stops where a stage of some name begins."""

    def __init__(self, stop: str | None, kept: Mapping[str, Any] | None) -> None:
        self.stop, self.kept = stop, kept

    def stage(self, name: str, total: int) -> None:
        """Stop there."""
        if self.stop is not None and self.stop in name:
            raise StoppedError

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        """Keep a copy: what is kept may grow."""
        self.kept = dict(state)

    def load_checkpoint(self) -> Mapping[str, Any] | None:
        """Return the last one."""
        return self.kept


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    folder, parts = tmp_path_factory.mktemp("states"), []
    for number, name in enumerate(("adenylate-kinase-open", "adenylate-kinase-closed")):
        config = SimulationConfig(
            name, n=EACH, box=24, pixel_size_angstrom=4.8, snr_db=5.0, seed=number
        )
        where = simulate(config, folder / str(number), SILENT)
        parts.append(Particles.load(where))
    return join(parts).particles


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(particles: Particles) -> None:
    config = HeterogeneityConfig(dims=1, max_shift_angstrom=0.0)
    whole = heterogeneity(particles, config, SILENT)
    kept = None
    for stop in (
        "consensus: global search",
        "state 2",
        "joint refinement",
    ):
        recorder = Recorder(stop, kept)
        with pytest.raises(StoppedError):
            heterogeneity(particles, config, recorder)
        kept = recorder.kept
    again = heterogeneity(particles, config, Recorder(None, kept))
    assert torch.equal(again.maps, whole.maps)
    assert torch.equal(again.z, whole.z)
    assert torch.equal(again.reconstruction.density, whole.reconstruction.density)


@pytest.mark.parametrize(
    "config",
    [
        HeterogeneityConfig(dims=0, poses="given"),
        HeterogeneityConfig(dims=10),
        HeterogeneityConfig(dims=3, learning_particles=100),
    ],
)
def test_more_components_than_particles_carry_are_refused(
    particles: Particles, config: HeterogeneityConfig
) -> None:
    with pytest.raises(InputError, match="component"):
        heterogeneity(particles, config)
