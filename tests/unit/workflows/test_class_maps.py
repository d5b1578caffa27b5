"""Classes from nothing go on where they were interrupted; too few are refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SILENT, SilentMonitor
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.workflows.class_config import ClassConfig
from cryoinfer.workflows.class_maps import classes

EACH = 220  # enough for two clusters
LID = range(122, 160)


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


def lidless(path: Path) -> str:
    """Write adenylate kinase without a domain; return the name of the file."""
    atoms = example_atoms("adenylate-kinase-open")
    left = [row for row, at in enumerate(atoms.residue_numbers) if at not in LID]
    write_ensemble(path, "lidless", [atoms.select(np.array(left))])
    return str(path)


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    folder, parts = tmp_path_factory.mktemp("classes"), []
    names = "adenylate-kinase-open", lidless(folder / "lidless.cif")
    for number, name in enumerate(names):
        config = SimulationConfig(
            name, n=EACH, box=24, pixel_size_angstrom=4.8, snr_db=3.0, seed=number
        )
        parts.append(Particles.load(simulate(config, folder / str(number), SILENT)))
    return join(parts).particles


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(particles: Particles) -> None:
    config = ClassConfig(classes=2, max_shift_angstrom=0.0)
    whole = classes(particles, config, SILENT)
    kept = None
    for stop in ("state 2", "search of all poses", "to the finer radius"):
        recorder = Recorder(stop, kept)
        with pytest.raises(StoppedError):
            classes(particles, config, recorder)
        kept = recorder.kept
    again = classes(particles, config, Recorder(None, kept))
    assert torch.equal(again.probability, whole.probability)
    assert again.gain == whole.gain
    for one, other in zip(again.reconstructions, whole.reconstructions, strict=True):
        assert torch.equal(one.density, other.density)
    # The classes are the molecules: a few particles whose poses are lost may not be.
    second = (whole.class_number == 2).double()
    assert abs(float(second[EACH:].mean() - second[:EACH].mean())) > 0.9


@pytest.mark.parametrize(
    "config",
    [
        ClassConfig(classes=0, poses="given"),
        ClassConfig(classes=9),
        ClassConfig(classes=3, learning_particles=100),
        ClassConfig(classes=21, poses="given"),
    ],
)
def test_more_classes_than_particles_carry_are_refused(
    particles: Particles, config: ClassConfig
) -> None:
    with pytest.raises(InputError, match="classes"):
        classes(particles, config)


def test_poses_have_to_be_there_to_be_taken(particles: Particles) -> None:
    with pytest.raises(InputError, match="poses"):
        classes(particles, ClassConfig(classes=2, poses="given"))


def test_spare_classes_are_begun_with_as_far_as_particles_carry_them() -> None:
    assert ClassConfig().begun_with(10_000) == 6
    assert ClassConfig().begun_with(160) == 3
    assert ClassConfig(classes=3).begun_with(10_000) == 5
    assert ClassConfig(classes=3).begun_with(160) == 3
