"""Motions of simulated particles."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.motions import Motion, moving_atoms
from cryoinfer.data.nodes import Nodes
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.physics.image_model import ImageModel
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents, Optics, Pose

NAME = "adenylate-kinase-open"
MOTIONS = (Motion(1, "normal", 0.0, 2.0), Motion(3, "uniform", -1.0, 2.0))
CONFIG = SimulationConfig(
    structure=NAME, n=300, box=32, pixel_size_angstrom=3.6, motions=MOTIONS
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def moving() -> MovingAtoms:
    model = example_atoms(NAME)
    coordinates = torch.from_numpy(model.coordinates_angstrom)
    atoms = GaussianAtoms.from_elements(coordinates, model.elements)
    return moving_atoms(model, atoms, MOTIONS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1:N(0,2)", Motion(1, "normal", 0.0, 2.0)),
        (" 2 : U( -3 , 3.5 ) ", Motion(2, "uniform", -3.0, 3.5)),
        ("10:N(-.5,0)", Motion(10, "normal", -0.5, 0.0)),
    ],
)
def test_motions_are_read(text: str, expected: Motion) -> None:
    assert Motion.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("N(0,2)", "expected a motion such as"),
        ("1:X(0,2)", "expected a motion such as"),
        ("1:N(0)", "expected a motion such as"),
        ("0:N(0,2)", "numbered from 1"),
        ("1:N(0,-2)", "0 or more"),
        ("1:U(3,-3)", "ascend"),
    ],
)
def test_what_is_no_motion_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Motion.parse(text)


def test_amplitudes_are_distributed_as_asked() -> None:
    amplitude = Simulation.of(replace(CONFIG, snr_db=None)).latents.conformation
    assert amplitude.shape == (300, 2)
    # Four standard errors of a mean, and of a standard deviation, of 300 draws.
    assert float(amplitude[:, 0].mean()) == pytest.approx(0, abs=4 * 2 / 300**0.5)
    assert float(amplitude[:, 0].std()) == pytest.approx(2, abs=4 * 2 / 600**0.5)
    assert float(amplitude[:, 1].min()) >= -1.0
    assert float(amplitude[:, 1].max()) <= 2.0


def test_an_amplitude_is_the_root_mean_square_displacement_of_nodes(moving) -> None:
    node = torch.from_numpy(Nodes.of_model(example_atoms(NAME)).atom)
    moved = moving.at(torch.tensor([2.5, 0.0]).double()).coordinates_angstrom
    step = (moved - moving.atoms.coordinates_angstrom)[node]
    rms = step.square().sum(-1).mean().sqrt()
    assert float(rms) == pytest.approx(2.5, rel=1e-12)


def test_each_image_shows_its_own_conformation(moving) -> None:
    amplitude = torch.tensor([[0.0, 0.0], [3.0, 0.0], [-2.0, 1.0]]).double()
    pose = Pose(random_rotations(3, seeded(1)), torch.zeros(3, 2).double())
    together = moving.at(amplitude).project(pose, 24, 4.0)
    apart = torch.cat(
        [moving.at(amplitude[i]).project(pose[[i]], 24, 4.0) for i in range(3)]
    )
    # The same sums in double precision, in another order.
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)
    at_rest = moving.project(pose[[0]], 24, 4.0)
    torch.testing.assert_close(together[:1], at_rest, rtol=0, atol=1e-12)
    assert float((together[1] - at_rest[0]).abs().max()) > 1e-3


def test_images_have_gradients_in_the_amplitudes() -> None:
    coordinates = torch.randn(5, 3, generator=seeded(2), dtype=torch.float64)
    atoms = GaussianAtoms.from_elements(coordinates, ["C"] * 5, 60.0)
    direction = torch.randn(2, 5, 3, generator=seeded(3), dtype=torch.float64)
    pose = Pose(random_rotations(2, seeded(4)), torch.zeros(2, 2).double())

    def images(amplitude: torch.Tensor) -> torch.Tensor:
        return MovingAtoms(atoms, direction).at(amplitude).project(pose, 8, 2.0)

    amplitude = torch.randn(2, 2, generator=seeded(5), dtype=torch.float64)
    assert torch.autograd.gradcheck(images, amplitude.requires_grad_())


def test_a_rigid_structure_has_no_conformation(moving) -> None:
    model = ImageModel(moving.atoms, GaussianNoise.white(1.0, 24), 24)
    pose = Pose(random_rotations(1, seeded()), torch.zeros(1, 2).double())
    latents = Latents(pose, torch.zeros(1).double(), torch.zeros(1, 2).double())
    with pytest.raises(ValueError, match="got GaussianAtoms"):
        model.mean(latents, Optics.without_ctf(1, 4.0))


def test_the_truth_holds_the_amplitudes(tmp_path: Path) -> None:
    config = replace(CONFIG, n=20)
    simulate(config, tmp_path, SilentMonitor())
    truth = RelionParticles.read(tmp_path / "truth.star").table().results
    expected = Simulation.of(config).latents.conformation
    assert expected is not None
    for column, name in enumerate(("cryoinferMode1Angst", "cryoinferMode3Angst")):
        found = torch.from_numpy(truth[name].astype(float))
        # As many decimals as the file has.
        torch.testing.assert_close(found, expected[:, column], rtol=1e-4, atol=1e-4)
    given = RelionParticles.read(tmp_path / "particles.star").table().results
    assert given == {}


def test_the_standard_box_holds_what_moves_by_2_angstrom() -> None:
    config = SimulationConfig(n=2, motions=(Motion(1, "normal", 0.0, 2.0),))
    latents = Simulation.of(replace(config, snr_db=None)).latents
    assert latents.conformation.shape == (2, 1)


def test_motions_that_the_structure_has_not_are_refused(moving) -> None:
    model = example_atoms(NAME)
    twice = (MOTIONS[0], MOTIONS[0])
    with pytest.raises(InputError, match="one motion a mode"):
        moving_atoms(model, moving.atoms, twice)
    with pytest.raises(InputError, match="636 normal modes"):
        moving_atoms(model, moving.atoms, (Motion(637, "normal", 0.0, 1.0),))
    far = replace(CONFIG, motions=(Motion(1, "uniform", 0.0, 40.0),))
    with pytest.raises(InputError, match="shifts and motions reach"):
        Simulation.of(far)
