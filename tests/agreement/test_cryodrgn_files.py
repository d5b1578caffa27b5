"""Poses of cryoDRGN's own test data show its own images.

A projection of its map at the rotation that is read must look like the image: one at
the transpose does not.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cryoinfer.data.cryodrgn import with_cryodrgn_ctf, with_cryodrgn_poses
from cryoinfer.data.particles import Particles
from cryoinfer.io.cryodrgn import read_ctf
from cryoinfer.io.mrc import read_map
from cryoinfer.physics.image_model import ImageModel
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import Latents, Pose

PIXEL_SIZE_ANGSTROM = 1.0


def likeness(particles: Particles, pose: Pose, density: Tensor) -> float:
    """Return the median correlation of images with projections."""
    n = len(particles)
    structure = VoxelVolume(density, PIXEL_SIZE_ANGSTROM)
    model = ImageModel(
        structure, GaussianNoise.white(0.0, particles.box), particles.box
    )
    zero = torch.zeros(n, dtype=torch.float64)
    shown = model.mean(Latents.rigid(pose, zero), particles.optics).double().flatten(1)
    images = particles.images(torch.arange(n)).double().flatten(1)
    pairs = zip(images, shown, strict=True)
    found = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
    return float(torch.stack(found).median())


def test_rotations_show_the_images_of_its_toy_model(shared_data: Path) -> None:
    folder = shared_data / "stacks" / "cryodrgn"
    stack = folder / "toy_projections.mrcs"
    particles = Particles.load(stack, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
    posed = with_cryodrgn_poses(particles, folder / "toy_angles.pkl")
    whole = read_map(shared_data / "maps" / "cryodrgn_toymodel_small_nocenter.mrc")
    density, pose = torch.tensor(whole.density).double(), posed.pose
    assert pose is not None
    # Found: 0.9946, as its images were interpolated otherwise; transposed, 0.38.
    assert likeness(posed, pose, density) > 0.99
    turned = replace(pose, rotation=pose.rotation.mT)
    assert likeness(posed, turned, density) < 0.5


def test_its_ctf_is_that_of_its_star_file(shared_data: Path) -> None:
    folder = shared_data / "stacks" / "cryodrgn"
    bare = Particles.load(folder / "toy_projections.mrcs", pixel_size_angstrom=1.0)
    path = folder / "test_ctf.pkl"
    ours = with_cryodrgn_ctf(bare, path, read_ctf(path)).optics
    theirs = Particles.load(folder / "toy_projections.star", pixel_size_angstrom=1.0)
    for name in ("pixel_size_angstrom", "defocus_u_angstrom", "phase_shift_radian"):
        assert torch.equal(getattr(ours, name), getattr(theirs.optics, name))
    for name in ("voltage_kv", "cs_mm", "amplitude_contrast"):
        # Single precision in the pickle.
        expected = pytest.approx(getattr(theirs.optics, name)[0].item(), rel=1e-7)
        assert getattr(ours, name)[0].item() == expected
