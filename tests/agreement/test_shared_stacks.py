"""Images of other projects, at the poses that they state, fit their maps.

The files belong to those projects and are not shipped: see ``shared_data``.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import Pose
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and nothing else: a pickle may otherwise run any program."""

    _ALLOWED = {  # noqa: RUF012  # a constant
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is no array")
        return self._ALLOWED[module, name]


def read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return ArrayUnpickler(file, encoding="latin1").load()


def density(path: Path) -> Tensor:
    # Some of these maps have no voxel size.
    return torch.from_numpy(read_map(path, 1.0).density.copy()).float()


def with_rotations(
    stack: Path, rotation: NDArray[np.float32], folder: Path
) -> Particles:
    """Write the stack's particles as a STAR file with poses, and read that."""
    bare = Particles.load(stack, pixel_size_angstrom=1.0)
    pose = Pose(
        torch.from_numpy(rotation.astype(np.float64)),
        torch.zeros(len(bare), 2, dtype=torch.float64),
    )
    bare.with_results(pose=pose).save(folder / "particles.star")
    return Particles.load(folder / "particles.star")


def project(volume: Tensor, particles: Particles, voxel_size: float = 1.0) -> Tensor:
    assert particles.pose is not None
    structure = VoxelVolume(volume, voxel_size)
    return structure.project(particles.pose, particles.box, 1.0)


def correlation(first: Tensor, second: Tensor) -> Tensor:
    first = first - first.mean((1, 2), keepdim=True)
    second = second - second.mean((1, 2), keepdim=True)
    cross = (first * second).sum((1, 2))
    power = first.square().sum((1, 2)) * second.square().sum((1, 2))
    return cross / power.sqrt()


def all_images(particles: Particles) -> Tensor:
    return particles.images(torch.arange(len(particles)))


@pytest.fixture
def toy(shared_data, tmp_path) -> tuple[Particles, Tensor]:
    """Give cryoDRGN's toy model, whose images are centred, and its map."""
    folder = shared_data / "stacks" / "cryodrgn"
    rotation, _ = read_pickle(folder / "toy_rot_trans.pkl")
    particles = with_rotations(folder / "toy_projections.mrcs", rotation, tmp_path)
    volume = density(shared_data / "maps" / "cryodrgn_toymodel_small_nocenter.mrc")
    return particles, volume


def test_the_toy_model_projects_to_its_images(toy):
    particles, volume = toy
    found = correlation(project(volume, particles), all_images(particles))
    # Found: median 0.9946, least 0.983: the images were projected in real space.
    assert found.median() > 0.99
    assert found.min() > 0.97


def test_the_transposed_rotation_would_be_noticed(toy):
    particles, volume = toy
    assert particles.pose is not None
    turned = Pose(particles.pose.rotation.mT, particles.pose.shift_angstrom)
    images = VoxelVolume(volume, 1.0).project(turned, particles.box, 1.0)
    assert correlation(images, all_images(particles)).median() < 0.5


def test_the_toy_model_is_reconstructed_from_its_images(toy):
    particles, volume = toy
    config = ReconstructConfig(particle_diameter_angstrom=28.0)
    maps = reconstruct(particles, config, SilentMonitor())
    fsc = fourier_shell_correlation(maps.density, volume)
    # Found: 0.991 in shell 13; shell n/2 - 1 = 14 is half empty in our maps.
    assert fsc[:14].min() > 0.98


def test_the_hand_is_reconstructed_from_its_images(shared_data, tmp_path):
    # cryodrgn_hand-vol.mrc is not the map of this stack: no rotation nor mirroring
    # brings it to a correlation of more than 0.61. The images must fit each other.
    folder = shared_data / "stacks" / "cryodrgn"
    rotation = read_pickle(folder / "hand_rot.pkl")
    particles = with_rotations(folder / "hand.mrcs", rotation, tmp_path)
    config = ReconstructConfig(particle_diameter_angstrom=60.0)
    half = torch.arange(len(particles)) % 2
    first, second = (particles.select(half == number) for number in (0, 1))
    maps = reconstruct(first, config, SilentMonitor())
    found = correlation(project(maps.density, second), all_images(second))
    # Found: median 0.997, least 0.994, and a median of 0.77 at transposed rotations.
    assert found.min() > 0.97


@pytest.mark.parametrize("name", ["rln_proj_64_centered", "rln_proj_64_shifted"])
def test_relion_projections_of_aspire_fit_their_map(shared_data, name):
    particles = Particles.load(shared_data / "stacks" / "aspire" / f"{name}.star")
    # The centre of 65 voxels is voxel 32, as that of 64. The map was sampled down
    # from 65 to 64 voxels, hence their size.
    volume = density(shared_data / "maps" / "clean70SRibosome_vol_65p.mrc")
    found = project(volume[:64, :64, :64], particles, voxel_size=64 / 65)
    # Found: 0.9998; the shifted images have shifts of up to 13 pixels.
    assert correlation(found, all_images(particles)).min() > 0.999


def test_relion_projections_of_aspire_without_optics_fit_their_map(shared_data):
    path = shared_data / "stacks" / "aspire" / "rln_proj_64.star"
    particles = Particles.load(path, pixel_size_angstrom=1.0)
    assert particles.pose is not None
    # Here the map was sampled down with its first voxel held, which takes its centre
    # from 32 to 32 * 64 / 65, off the centre of 64 voxels, along all axes.
    offset = torch.full((3,), 32 * 64 / 65 - 32, dtype=torch.float64)
    pose = Pose(particles.pose.rotation, (particles.pose.rotation @ offset)[:, :2])
    volume = density(shared_data / "maps" / "clean70SRibosome_vol_65p.mrc")
    found = VoxelVolume(volume[:64, :64, :64], 64 / 65).project(pose, 64, 1.0)
    # Found: 0.9998.
    assert correlation(found, all_images(particles)).min() > 0.999
