"""Particles simulated along a trajectory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.frames import superposed
from cryoinfer.data.motions import Motion
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.data.simulated_path import FRAME, PathSource
from cryoinfer.data.simulated_structure import SimulatedStructure
from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.io.star import read_star
from cryoinfer.physics.structures.path import AtomsOnPath

NAME = "adenylate-kinase-open"
AMPLITUDES = (-2.0, 0.0, 3.0)


@pytest.fixture(scope="module")
def frames() -> list[AtomicModel]:
    """Return the structure along its first mode, and each turned and moved."""
    model = MovingModel.of(example_atoms(NAME), 1, 2.0)
    rotation = random_rotations(3, torch.Generator().manual_seed(1)).numpy()
    found = []
    for turn, amplitude in zip(rotation, AMPLITUDES, strict=True):
        one = model.at(torch.tensor([amplitude]))
        placed = one.coordinates_angstrom @ turn.T + [5.0, -3.0, amplitude]
        found.append(replace(one, coordinates_angstrom=placed))
    return found


@pytest.fixture(scope="module")
def trajectory(
    frames: list[AtomicModel], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("path") / "path.cif"
    write_ensemble(path, "path", frames)
    return path


def on_path(trajectory: Path) -> AtomsOnPath:
    structure = SimulatedStructure.of(
        NAME, 0.0, path=PathSource(str(trajectory))
    ).structure
    assert isinstance(structure, AtomsOnPath)
    return structure


def test_frames_lie_on_the_structure(trajectory: Path) -> None:
    structure = on_path(trajectory)
    rest = structure.atoms.coordinates_angstrom
    assert structure.frames.shape == (3, 1656, 3)
    # The second frame is the structure itself, in a file of three decimals.
    assert float((structure.frames[1] - rest).abs().max()) < 2e-3
    for frame, amplitude in zip(structure.frames, AMPLITUDES, strict=True):
        apart = float((frame - rest).square().sum(1).mean().sqrt())
        # An amplitude is the displacement of the alpha carbons; atoms differ a little.
        assert apart == pytest.approx(abs(amplitude), rel=0.1, abs=2e-3)


def test_superposition_undoes_any_motion_of_a_rigid_body() -> None:
    generator = torch.Generator().manual_seed(0)
    onto = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    turned = torch.stack(
        [onto @ r.mT + 4 * r[0] for r in random_rotations(5, generator)]
    )
    assert superposed(turned, onto) == pytest.approx(onto.expand(5, -1, -1), abs=1e-12)


def test_superposition_is_that_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    onto = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    frame = onto + 0.3 * torch.randn(20, 3, generator=generator, dtype=torch.float64)

    def distance(placed: Tensor) -> float:
        return float((placed - onto).square().sum())

    best = superposed(frame[None], onto)[0]
    for axis in torch.eye(3, dtype=torch.float64):
        for angle in (-0.01, 0.01):
            turn = roma.rotvec_to_rotmat(angle * axis)
            assert distance(best @ turn.mT) > distance(best)
            assert distance(best + angle * axis) > distance(best)


def test_between_frames_atoms_go_straight(trajectory: Path) -> None:
    structure = on_path(trajectory)
    frames = structure.frames
    places = torch.tensor([[0.0], [0.25], [1.0], [2.0], [5.0]])
    found = structure.at(places).coordinates_angstrom
    expected = torch.stack(
        [frames[0], 0.75 * frames[0] + 0.25 * frames[1], frames[1], *[frames[2]] * 2]
    )
    # Single precision of tens of angstrom.
    assert float((found - expected).abs().max()) < 1e-5
    assert torch.equal(
        structure.at(torch.tensor([2.0])).coordinates_angstrom, frames[2]
    )


def config(trajectory: Path) -> SimulationConfig:
    return SimulationConfig(
        NAME, n=300, box=32, pixel_size_angstrom=4.0, trajectory=str(trajectory)
    )


def test_particles_show_all_frames_alike(trajectory: Path, tmp_path: Path) -> None:
    star = simulate(config(trajectory), tmp_path / "out", SilentMonitor())
    truth = read_star(star.with_name("truth.star")).blocks[-1].columns
    frame = torch.from_numpy(np.asarray(truth[FRAME], dtype=np.float64))
    counts = torch.bincount(frame.long(), minlength=4)[1:]
    # Four standard deviations of a share of a third.
    assert (counts - 100).abs().max() < 4 * (300 * 2 / 9) ** 0.5
    simulation = Simulation.of(replace(config(trajectory), snr_db=None))
    drawn = simulation.latents.conformation
    assert drawn is not None
    assert torch.equal(frame, drawn[:, 0] + 1)


def test_images_are_those_of_the_frame(trajectory: Path) -> None:
    simulation = Simulation.of(replace(config(trajectory), n=6, snr_db=None))
    latents, structure = simulation.latents, on_path(trajectory)
    images = next(simulation.batches()).images
    for row in range(6):
        frame = structure.frames[int(latents.conformation[row, 0])]
        atoms = replace(structure.atoms, coordinates_angstrom=frame)
        alone = atoms.project(latents.pose[[row]], 32, 4.0)[0]
        # Single precision of sums of 1,656 waves, in several batches or one.
        assert float((images[row] - alone).abs().max()) < 1e-5 * float(
            alone.abs().max()
        )


def test_frames_that_leave_the_box_are_refused(trajectory: Path) -> None:
    rest = SimulatedStructure.of(NAME, 0.0).reach_angstrom
    moved = SimulatedStructure.of(
        NAME, 0.0, path=PathSource(str(trajectory))
    ).reach_angstrom
    between = (rest + moved) / 32
    narrow = replace(config(trajectory), pixel_size_angstrom=between)
    Simulation.of(replace(narrow, trajectory=None, n=1))
    with pytest.raises(InputError, match="from the centre, a box of 32 pixels"):
        Simulation.of(replace(narrow, n=1))


def test_modes_and_a_trajectory_exclude_each_other(trajectory: Path) -> None:
    with pytest.raises(InputError, match="found both --modes and --trajectory"):
        replace(config(trajectory), motions=(Motion(1, "normal", 0.0, 1.0),))
