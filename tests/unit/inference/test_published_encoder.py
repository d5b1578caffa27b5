"""The published auto-encoder: its heads, its encoder and its decoder."""

from dataclasses import replace

import pytest
import torch
from three_blobs import BOX, PIXEL_SIZE, blobs, microscope, particles, seeded

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.fourier.transform import fourier_to_image
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.published_encoder import (
    FreePoses,
    Head,
    KnownPoses,
    PublishedEncoder,
    pose_source,
    rotations_of,
)
from cryoinfer.inference.voxel_map import (
    VoxelMap,
    coefficient_frequencies,
    mean_squared_error,
    transfer_functions,
)
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import ParticleBatch, Pose

HEADS: tuple[Head, ...] = ("s2s2", "quaternion", "euler")


# --- Heads --------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1.0, 1e6])
def test_any_numbers_name_a_rotation(head: Head, scale: float) -> None:
    width = 6 if head == "s2s2" else 3
    numbers = scale * torch.randn(200, width, generator=seeded())
    # Vectors that are parallel, opposite, or missing.
    numbers[:50, 3:] = numbers[:50, : width - 3]
    numbers[50:60, 3:] = -2 * numbers[50:60, : width - 3]
    numbers[60:70, 3:] = 0.0
    numbers[70:80, :3] = 0.0
    numbers.requires_grad_()
    rotation = rotations_of(numbers, head)
    # Rounding of single precision; parallel vectors lose seven of sixteen digits.
    product = rotation @ rotation.mT
    torch.testing.assert_close(product, torch.eye(3).expand_as(product))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(200))
    rotation.sum().backward()
    assert numbers.grad is not None
    if scale in (1e-6, 1.0, 1e6):
        assert numbers.grad.isfinite().all()


def test_euler_angles_are_those_of_relion() -> None:
    rot, tilt, psi = torch.tensor(0.3), torch.tensor(1.1), torch.tensor(-2.0)
    found = rotations_of(torch.stack([rot, tilt, psi])[None], "euler")[0]
    # The view of A(rot, tilt, psi) is its last row.
    view = torch.stack([tilt.sin() * rot.cos(), tilt.sin() * rot.sin(), tilt.cos()])
    torch.testing.assert_close(found[2], view)
    # And psi turns the image: the last column is what the reference's z becomes.
    up = torch.stack([-tilt.sin() * psi.cos(), tilt.sin() * psi.sin(), tilt.cos()])
    torch.testing.assert_close(found[:, 2], up)


def test_vectors_of_a_rotation_name_that_rotation() -> None:
    rotation = random_rotations(20, seeded(2)).float()
    numbers = torch.cat([3.0 * rotation[:, :, 0], 0.2 * rotation[:, :, 1]], 1)
    torch.testing.assert_close(rotations_of(numbers, "s2s2"), rotation)


def test_quaternions_reach_every_rotation_alike() -> None:
    uniform = torch.rand(20_000, 3, generator=seeded(3), dtype=torch.float64)
    logit = torch.log(uniform[:, :1]) - torch.log1p(-uniform[:, :1])
    rotation = rotations_of(torch.cat([logit, uniform[:, 1:]], 1), "quaternion")
    # An entry of a uniform rotation has mean 0 and variance 1/3; five sigma.
    assert float(rotation.mean(0).abs().max()) < 5 * (1 / 3 / 20_000) ** 0.5
    variance = rotation.square().mean(0)
    # Their squares have the variance 1/5 - 1/9; five sigma.
    tolerance = 5 * (4 / 45 / 20_000) ** 0.5
    expected = torch.full_like(variance, 1 / 3)
    torch.testing.assert_close(variance, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("head", HEADS)
def test_encoder_is_the_published_one(head: Head) -> None:
    encoder = PublishedEncoder(32, head, seeded(4))
    outputs = 6 if head == "s2s2" else 3
    convolutions = sum(
        9 * a * b + b
        for a, b in [(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    )
    dense = (128 * 4**2 + 1) * 512 + 513 * 512 + 513 * outputs
    assert sum(p.numel() for p in encoder.parameters()) == convolutions + dense
    images = torch.randn(5, 32, 32, generator=seeded(5))
    rotation = encoder(images, torch.arange(5))
    (rotation * torch.randn(5, 3, 3, generator=seeded(6))).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_choice_names_poses_by_what_it_says() -> None:
    rotation = random_rotations(5, seeded(7))
    known = pose_source("known", 5, BOX, rotation, seeded())
    assert isinstance(known, KnownPoses)
    index = torch.tensor([3, 1])
    assert torch.equal(known(torch.zeros(2), index), rotation[index].float())
    assert isinstance(pose_source("free", 5, BOX, None, seeded()), FreePoses)
    encoder = pose_source("euler", 5, BOX, None, seeded())
    assert isinstance(encoder, PublishedEncoder)
    assert encoder.head == "euler"
    with pytest.raises(ValueError, match="expected rotations to be known"):
        pose_source("known", 5, BOX, None, seeded())
    with pytest.raises(ValueError, match="multiple of 8"):
        pose_source("s2s2", 5, 20, None, seeded())


def test_views_of_an_untrained_encoder_differ() -> None:
    images, _ = particles(50)
    encoder = PublishedEncoder(BOX, "s2s2", seeded(7))
    with torch.no_grad():
        rotation = encoder(images.images, images.index)
    # Not one pose for all: an sd of the entries above a degree.
    assert float(rotation.std(0).mean()) > 0.02


# --- Decoder ------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [1.0, 2.0])
def test_slices_are_those_of_the_library(padding: float) -> None:
    rotation = random_rotations(30, seeded(8))
    disc = FourierDisc.of_box(BOX, BOX // 2 - 1)
    volume = FourierVolume.from_map(blobs(), BOX // 2 - 1, padding)
    expected = extract_slices(volume, rotation, disc)
    with torch.no_grad():
        found = VoxelMap(blobs(), padding)(rotation.float())
    # Coordinates in single precision: 1e-6 of a voxel, of coefficients up to 10.
    torch.testing.assert_close(found[:, 1:], expected, rtol=0, atol=2e-4)
    total = (blobs().sum() / BOX).to(found).expand(30)
    torch.testing.assert_close(found[:, 0], total)


def test_error_is_that_of_the_pixels() -> None:
    batch, _ = particles(6, with_ctf=True)
    noise = torch.randn(batch.images.shape, generator=seeded(9))
    # In double precision, for the images' own sum is taken out of it and added again.
    batch = replace(batch, images=(batch.images + noise).double())
    slices = VoxelMap(blobs().double())(random_rotations(6, seeded(10)))
    ctf = transfer_functions(batch)
    found = mean_squared_error(slices, batch.images, ctf)
    disc = FourierDisc.of_box(BOX, BOX // 2 - 1)
    half = disc.scatter((ctf * slices)[:, 1:] * disc.centring)
    half[:, 0, 0] = (ctf * slices)[:, 0]
    predicted = torch.fft.irfft2(half, s=(BOX, BOX), norm="ortho")
    expected = (batch.images - predicted).square().mean()
    torch.testing.assert_close(found, expected)


def test_pictures_stand_where_the_library_puts_them() -> None:
    rotation = random_rotations(4, seeded(11))
    centred = Pose(rotation, torch.zeros(4, 2, dtype=torch.float64))
    expected = VoxelVolume(blobs(), PIXEL_SIZE).project(centred, BOX, PIXEL_SIZE)
    with torch.no_grad():
        slices = VoxelMap(blobs())(rotation.float())
    half = FourierDisc.of_box(BOX, BOX // 2 - 1).scatter(slices[:, 1:])
    half[:, 0, 0] = slices[:, 0]
    # Single precision of pixels up to 10.
    torch.testing.assert_close(fourier_to_image(half, BOX), expected, rtol=0, atol=1e-4)


def test_transfer_functions_are_at_the_frequencies_of_the_slices() -> None:
    batch, _ = particles(3, with_ctf=True)
    frequency = coefficient_frequencies(BOX)
    assert frequency[:, 0].tolist() == [0.0, 0.0]
    ctf = transfer_functions(batch)
    assert ctf.shape == (3, frequency.shape[1])
    torch.testing.assert_close(ctf[:, 0], torch.full((3,), 0.1))


def test_gradients_of_the_decoder() -> None:
    box = 8
    optics = replace(microscope(2), group=torch.zeros(2, dtype=torch.int64))
    images = torch.randn(2, box, box, generator=seeded(12), dtype=torch.float64)
    batch = ParticleBatch(images, optics, torch.arange(2))
    ctf = transfer_functions(batch)
    density = torch.rand(box, box, box, generator=seeded(13), dtype=torch.float64)
    numbers = torch.randn(2, 6, generator=seeded(14), dtype=torch.float64)
    numbers.requires_grad_()
    model = VoxelMap(density)
    density.requires_grad_()

    def error(voxels: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
        rotation = rotations_of(named, "s2s2")
        slices = torch.func.functional_call(model, {"density": voxels}, (rotation,))
        return mean_squared_error(slices, images, ctf)

    # In a random direction of all voxels at once, and every number by itself.
    assert torch.autograd.gradcheck(error, (density, numbers), fast_mode=True)
    assert torch.autograd.gradcheck(error, (density.detach(), numbers))


@pytest.mark.parametrize("shape", [(7, 7, 7), (8, 8, 6)])
def test_maps_that_are_no_even_cube_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="even"):
        VoxelMap(torch.zeros(shape))
