"""Projections of maps against those of the atoms that the maps were made from."""

import pytest
import roma
import torch

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import Pose

PIXEL = 1.5
BOX = 48


@pytest.fixture(scope="module")
def atoms() -> GaussianAtoms:
    """Return sixty atoms, blurred so that Nyquist is nearly empty."""
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.randn(60, 3, generator=generator, dtype=torch.float64) * 6
    return GaussianAtoms.from_elements(coordinates, ["C", "O"] * 30, 150.0)


@pytest.fixture(scope="module")
def volume(atoms: GaussianAtoms) -> VoxelVolume:
    return VoxelVolume(atoms.to_map(BOX, PIXEL).float(), PIXEL)


def random_poses(n: int, shift_angstrom: float) -> Pose:
    generator = torch.Generator().manual_seed(1)
    quaternion = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    rotation = roma.unitquat_to_rotmat(
        torch.nn.functional.normalize(quaternion, dim=-1)
    )
    shift = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return Pose(rotation, shift * shift_angstrom)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def low_pass(images: torch.Tensor, radius: int) -> torch.Tensor:
    """Keep the origin and the disc of frequencies up to the radius."""
    box = images.shape[-1]
    disc = FourierDisc.of_box(box, radius)
    transform = image_to_fourier(images)
    half = disc.scatter(disc.gather(transform))
    half[..., 0, 0] = transform[..., 0, 0]
    return fourier_to_image(half, box)


def test_the_identity_is_the_sum_along_z(volume: VoxelVolume) -> None:
    pose = Pose(torch.eye(3)[None], torch.zeros(1, 2))
    image = volume.project(pose, BOX, PIXEL)[0]
    # Trilinear interpolation at padding 2 of a structure that fills half of the box.
    assert relative_error(image, volume.density.sum(0)) < 0.02


@pytest.mark.parametrize("shift_angstrom", [0.0, 4.0])
def test_agrees_with_the_atoms(
    atoms: GaussianAtoms, volume: VoxelVolume, shift_angstrom: float
) -> None:
    pose = random_poses(5, shift_angstrom)
    expected = atoms.project(pose, BOX, PIXEL)
    actual = volume.project(pose, BOX, PIXEL)
    assert actual.dtype == torch.float32
    # The same interpolation; the corners beyond the disc are as good as empty.
    assert relative_error(actual, expected) < 0.02


@pytest.mark.parametrize(
    ("box", "pixel", "radius"),
    [(48, 1.65, 23), (40, 1.5, 19), (32, 2.25, 15), (64, 1.2, 24)],
)
def test_images_may_have_another_grid(
    atoms: GaussianAtoms, volume: VoxelVolume, box: int, pixel: float, radius: int
) -> None:
    pose = random_poses(3, 1.0)
    expected = low_pass(atoms.project(pose, box, pixel), radius)
    # The same interpolation; the radius is the last that map and image both have.
    assert relative_error(volume.project(pose, box, pixel), expected) < 0.02


def test_the_transform_is_made_once(volume: VoxelVolume) -> None:
    assert volume.transform is volume.transform


def test_images_keep_the_total(volume: VoxelVolume) -> None:
    images = volume.project(random_poses(2, 3.0), BOX, PIXEL)
    total = float(volume.density.sum())
    # Float32 sums of 2,304 pixels.
    assert images.sum((-2, -1)).tolist() == pytest.approx([total] * 2, rel=1e-4)
