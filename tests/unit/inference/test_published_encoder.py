"""The published auto-encoder: its heads, its decoder, and what it learns."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.fourier.transform import fourier_to_image
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.published_encoder import (
    FreePoses,
    Head,
    KnownPoses,
    PoseSource,
    PublishedConfig,
    PublishedEncoder,
    PublishedRun,
    rotations_of,
    train_published,
)
from cryoinfer.inference.voxel_map import (
    VoxelMap,
    coefficient_frequencies,
    mean_squared_error,
    transfer_functions,
)
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import Optics, ParticleBatch, Pose

BOX = 16
PIXEL_SIZE = 4.0
HEADS: tuple[Head, ...] = ("s2s2", "quaternion", "euler")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(box: int = BOX) -> torch.Tensor:
    """Return a smooth map without symmetry, well inside its box."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = torch.tensor([[2.0, 0.5, -1.0], [-2.5, 1.0, 0.5], [0.5, -2.0, 2.0]])
    density = torch.zeros(box, box, box, dtype=torch.float64)
    for height, (a, b, c) in enumerate(centres.tolist(), 1):
        squared = (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2
        density += height * torch.exp(-squared / (2 * 1.3**2))
    return density.float()


def microscope(n: int) -> Optics:
    return replace(
        Optics.without_ctf(n, PIXEL_SIZE),
        cs_mm=torch.full((n,), 2.7, dtype=torch.float64),
        amplitude_contrast=torch.full((n,), 0.1, dtype=torch.float64),
        defocus_u_angstrom=torch.linspace(4e3, 12e3, n, dtype=torch.float64),
        defocus_v_angstrom=torch.linspace(4e3, 12e3, n, dtype=torch.float64),
    )


def particles(n: int, with_ctf: bool = False) -> tuple[ParticleBatch, torch.Tensor]:
    """Return images of the blobs at random rotations, by the library's own slices."""
    rotation = random_rotations(n, seeded(1))
    centred = Pose(rotation, torch.zeros(n, 2, dtype=torch.float64))
    images = VoxelVolume(blobs(), PIXEL_SIZE).project(centred, BOX, PIXEL_SIZE)
    optics = Optics.without_ctf(n, PIXEL_SIZE)
    if with_ctf:
        optics = microscope(n)
        rows = torch.fft.fftfreq(BOX, PIXEL_SIZE)[:, None].expand(BOX, BOX // 2 + 1)
        columns = torch.fft.rfftfreq(BOX, PIXEL_SIZE)[None].expand_as(rows)
        ctf = evaluate_ctf(optics, columns.flatten(), rows.flatten())
        half = torch.fft.rfft2(images) * ctf.unflatten(1, rows.shape)
        images = torch.fft.irfft2(half, s=(BOX, BOX))
    return ParticleBatch(images, optics, torch.arange(n)), rotation


def learn(
    images: ParticleBatch, poses: PoseSource, config: PublishedConfig, seed: int = 0
) -> PublishedRun:
    return train_published(images, poses, config, seeded(seed), SilentMonitor())


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


# --- Learning -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("with_ctf", "steps", "likeness", "left"),
    # Voxels fluctuate by the learning rate. With a CTF the lowest frequencies, a
    # tenth of whose contrast is left, come last.
    [(False, 80, 0.97, 0.02), (True, 120, 0.9, 0.15)],
)
def test_known_poses_recover_the_map(
    with_ctf: bool, steps: int, likeness: float, left: float
) -> None:
    images, rotation = particles(200, with_ctf)
    run = learn(images, KnownPoses(rotation), PublishedConfig(steps=steps))
    truth, found = blobs(), run.model.density
    pair = torch.stack([truth.flatten(), found.flatten()]).double()
    assert float(torch.corrcoef(pair)[0, 1]) > likeness
    assert run.losses.shape == (steps,)
    assert float(run.losses[-10:].mean()) < left * float(run.losses[0])
    if not with_ctf:
        # In the units of the images: the density's own.
        assert float(found.sum()) == pytest.approx(float(truth.sum()), rel=0.02)


@pytest.mark.parametrize("source", ["s2s2", "ad"])
def test_seeds_reproduce(source: str) -> None:
    images, _ = particles(40)
    config = PublishedConfig(steps=4, batch=16)

    def once(seed: int) -> PublishedRun:
        poses = (
            PublishedEncoder(BOX, "s2s2", seeded(seed))
            if source == "s2s2"
            else FreePoses(40, seeded(seed))
        )
        return learn(images, poses, config, seed)

    before = torch.random.get_rng_state()
    first, second, other = once(0), once(0), once(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.losses, second.losses)
    assert torch.equal(first.model.density, second.model.density)
    assert not torch.equal(first.losses, other.losses)


def test_the_scale_of_the_images_does_not_matter() -> None:
    images, rotation = particles(40)
    config = PublishedConfig(steps=5)
    plain = learn(images, KnownPoses(rotation), config)
    loud = learn(
        replace(images, images=64 * images.images), KnownPoses(rotation), config
    )
    # A power of two: only exponents change.
    torch.testing.assert_close(loud.losses, plain.losses)
    torch.testing.assert_close(loud.model.density, 64 * plain.model.density)


def test_poses_of_images_that_are_seen_move() -> None:
    images, _ = particles(40)
    poses = FreePoses(40, seeded(15))
    before = poses.numbers.detach().clone()
    learn(images, poses, PublishedConfig(steps=1, batch=16))
    moved = (poses.numbers != before).any(1)
    assert int(moved.sum()) == 16


def test_an_encoder_learns_to_name_poses() -> None:
    images, _ = particles(64)
    encoder = PublishedEncoder(BOX, "s2s2", seeded(16))
    run = learn(images, encoder, PublishedConfig(steps=25))
    untrained = float(run.losses[0])
    assert float(run.losses[-5:].mean()) < 0.5 * untrained
    found = run.model.rotations(images.images, images.index)
    assert found.shape == (64, 3, 3)
    assert found.dtype == torch.float32


def test_every_step_is_watched() -> None:
    images, rotation = particles(40)
    seen: list[int] = []
    train_published(
        images,
        KnownPoses(rotation),
        PublishedConfig(steps=3),
        seeded(),
        SilentMonitor(),
        lambda step, model: seen.append(step),
    )
    assert seen == [1, 2, 3]


def test_bad_images_and_boxes_are_refused() -> None:
    images, rotation = particles(40)
    with pytest.raises(ValueError, match="do not fill a batch of 64"):
        learn(images, KnownPoses(rotation), PublishedConfig(batch=64))
    with pytest.raises(ValueError, match="multiple of 8"):
        PublishedEncoder(20, "s2s2", seeded())
    images.images[3, 0, 0] = torch.nan
    with pytest.raises(InputError, match="particle 4"):
        learn(images, KnownPoses(rotation), PublishedConfig())


@pytest.mark.gpu
def test_a_gpu_learns_the_same() -> None:
    images, rotation = particles(64)
    config = PublishedConfig(steps=20)
    host = learn(images, KnownPoses(rotation), config)
    device = learn(images.to("cuda"), KnownPoses(rotation), config)
    # Sums in another order, twenty steps of it.
    torch.testing.assert_close(device.losses, host.losses, rtol=1e-3, atol=1e-5)
