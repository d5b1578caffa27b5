"""Slices of volumes: naive twins, adjointness, threads, bounds."""

import itertools
import math
from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from cryoinfer.fourier import trilinear
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import (
    FourierVolume,
    SliceAccumulator,
    extract_slices,
    insert_slices,
    kernel_falloff,
    padded_box,
)
from cryoinfer.fourier.transform import image_to_fourier, map_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.operations import plain_only

# Positions in voxels below 64 are rounded to 4e-6 of a voxel in single precision,
# and the eight products to 1e-7; both relative to the largest coefficient.
SINGLE = 1e-5

# 2 coefficients, fewer than are asked for ahead; 188, a piece; 1,500, three pieces.
SIZES = pytest.mark.parametrize(("box", "radius"), [(8, 1), (24, 11), (64, 31)])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_map(box: int, seed: int = 0) -> Tensor:
    return torch.randn(box, box, box, generator=seeded(seed))


def random_slices(count: int, disc: FourierDisc, seed: int = 5) -> tuple[Tensor, ...]:
    values = torch.randn(
        count, len(disc), generator=seeded(seed), dtype=torch.complex64
    )
    weights = torch.rand(count, len(disc), generator=seeded(seed + 1))
    return values, weights


def whole_cube(values: Tensor) -> np.ndarray:
    """Return the complex cube (z, y, x) with x from -(c + 1) to c + 1."""
    half = torch.view_as_complex(values).to(torch.complex128)
    mates = half[..., 1:].flip(0, 1, 2).conj()
    return torch.cat([mates, half], -1).numpy()


def corners(point: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the eight voxels round a point, each with its trilinear weight."""
    low = np.floor(point)
    part = point - low
    for step in itertools.product((0, 1), repeat=3):
        yield (low + step).astype(int), float(np.prod(np.where(step, part, 1 - part)))


def points_of(
    rotation: Tensor, disc: FourierDisc, factor: float
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield slice, coefficient and (x, y, z) = factor * rotation.T @ (kx, ky, 0)."""
    for i, matrix in enumerate(rotation.double().numpy()):
        for p, k in enumerate(zip(disc.kx.tolist(), disc.ky.tolist(), strict=True)):
            yield i, p, factor * matrix.T @ np.array([*k, 0.0])


def test_padded_box_is_exact_or_twice_the_box() -> None:
    assert [padded_box(n, 1.5) for n in (32, 36, 64)] == [48, 54, 96]
    assert [padded_box(n, 1.5) for n in (30, 33, 34, 50)] == [60, 66, 68, 100]
    assert [padded_box(n, 2.0) for n in (30, 31, 32)] == [60, 62, 64]
    # 1.1 * 20 is 22.000000000000004; 1.3 * 20 = 26; 1.01 * 32 is no integer.
    assert [padded_box(20, 1.1), padded_box(20, 1.3), padded_box(32, 1.01)] == [
        22,
        26,
        64,
    ]


@pytest.mark.parametrize("padding", [1.0, 1.1, 1.5, 2.0, 3.0])
def test_the_ratio_of_a_padded_box_gives_the_same_box_again(padding: float) -> None:
    for box in range(4, 400, 2):
        padded = padded_box(box, padding)
        assert padded % 2 == 0
        assert padded_box(box, padded / box) == padded


def test_coarser_maps_share_the_ratio() -> None:
    # solve() returns maps of map_box < box voxels from the sums of box.
    for box, padding in [(64, 1.5), (60, 1.5), (62, 1.5), (64, 2.0)]:
        ratio = padded_box(box, padding) / box
        for map_box in range(16, box, 4):
            assert padded_box(map_box, ratio) / map_box == ratio


def test_kernel_falloff_is_the_transform_of_the_triangle() -> None:
    box, padded = 8, 12
    found = kernel_falloff(box, padded, "cpu")
    assert found[4, 4, 4] == 1
    # A triangle of one voxel's half-width: the integral of (1 - |t|) cos(2 pi t x).
    t = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    triangle = 1 - t.abs()
    axis = [
        float(torch.trapezoid(triangle * torch.cos(2 * math.pi * t * x / padded), t))
        for x in range(-4, 4)
    ]
    expected = torch.tensor(axis).float()
    expected = expected[:, None, None] * expected[:, None] * expected
    # The trapezoid of step 1e-4 is exact to 1e-7; single precision.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("padding", [1.0, 1.5, 2.0])
def test_from_map_samples_the_transform_of_the_corrected_map(padding: float) -> None:
    box, radius = 8, 3
    density = noise_map(box)
    volume = FourierVolume.from_map(density, radius, padding)
    c = volume.centre
    assert volume.values.shape == (2 * c + 1, 2 * c + 1, c + 2, 2)
    assert volume.padding == padding
    corrected = (
        density / kernel_falloff(box, padded_box(box, padding), "cpu")
    ).double()
    place = (torch.arange(box, dtype=torch.float64) - box // 2) / (box * padding)
    reach = math.floor(radius * padding)
    for kz, ky, kx in [(0, 0, 0), (reach, 0, 1), (-2, reach, 0), (1, -1, reach)]:
        turns = (
            (kz * place[:, None, None] + ky * place[:, None] + kx * place)
            * -2
            * math.pi
        )
        expected = torch.polar(corrected.abs(), turns) * corrected.sign()
        found = torch.view_as_complex(volume.values)[c + kz, c + ky, kx]
        torch.testing.assert_close(
            found, (expected.sum() / box).to(torch.complex64), rtol=0, atol=SINGLE
        )


def test_from_map_without_padding_is_the_transform_on_the_grid() -> None:
    box, radius = 8, 2
    density = noise_map(box)
    volume = FourierVolume.from_map(density, radius, 1.0)
    expected = map_to_fourier(density / kernel_falloff(box, box, "cpu"))
    k = torch.arange(-radius, radius + 1)
    c = volume.centre
    found = torch.view_as_complex(volume.values)[c + k][:, c + k, : radius + 1]
    torch.testing.assert_close(
        found, expected[k % box][:, k % box, : radius + 1], rtol=0, atol=SINGLE
    )


def test_negligible_coefficients_of_smooth_maps_are_zero() -> None:
    profile = torch.exp(-((torch.arange(64.0) - 32) ** 2) / (2 * 8.0**2))
    density = profile[:, None, None] * profile[:, None] * profile
    values = FourierVolume.from_map(density, 31).values.abs()
    present = values[values > 0]
    assert present.min() >= 1e-10 * values.max()
    assert (values == 0).double().mean() > 0.2
    # Products of two, as in a likelihood, stay normal numbers.
    assert present.min() ** 2 > torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("padding", [1.5, 2.0])
def test_slices_agree_with_trilinear_interpolation_written_out(padding: float) -> None:
    box, radius = 12, 5
    volume = FourierVolume.from_map(noise_map(box), radius, padding)
    disc, rotation = FourierDisc.of_box(box, radius), random_rotations(4, seeded(1))
    found = extract_slices(volume, rotation, disc)
    cube, c = whole_cube(volume.values), volume.centre
    expected = torch.zeros(4, len(disc), dtype=torch.complex128)
    for i, p, point in points_of(rotation, disc, padding):
        for (x, y, z), weight in corners(point):
            expected[i, p] += weight * cube[c + z, c + y, c + 1 + x]
    torch.testing.assert_close(
        found,
        expected.to(torch.complex64),
        rtol=0,
        atol=SINGLE * float(expected.abs().max()),
    )


def test_insertion_agrees_with_scattering_pairs_into_the_whole_cube() -> None:
    box, radius, padding = 12, 5, 1.5
    disc, rotation = FourierDisc.of_box(box, radius), random_rotations(3, seeded(1))
    values, weights = random_slices(3, disc)
    accumulator = SliceAccumulator.empty(box, radius, padding)
    insert_slices(accumulator, rotation, disc, values, weights)
    c = accumulator.centre
    cube = np.zeros((2 * c + 1, 2 * c + 1, 2 * c + 3), complex)
    mass = np.zeros(cube.shape)
    for i, p, point in points_of(rotation, disc, padding):
        value, weight = complex(values[i, p]), float(weights[i, p])
        for at, entry in [(point, value), (-point, value.conjugate())]:
            for (x, y, z), share in corners(at):
                cube[c + z, c + y, c + 1 + x] += share * entry
                mass[c + z, c + y, c + 1 + x] += share * weight
    numerator, seen = accumulator.hermitian()
    # Near the origin some ten values of order one meet in a voxel.
    for found, expected in [(numerator, cube), (seen, mass)]:
        half = torch.from_numpy(expected[..., c + 1 :]).to(found.dtype)
        torch.testing.assert_close(found, half, rtol=0, atol=10 * SINGLE)


@pytest.mark.parametrize("padding", [1.5, 2.0])
@pytest.mark.parametrize("scale", [1.0, 0.83])
def test_insertion_is_the_adjoint_of_slicing(padding: float, scale: float) -> None:
    box, radius = 16, 6
    disc, rotation = FourierDisc.of_box(box, radius), random_rotations(20, seeded(1))
    accumulator = SliceAccumulator.empty(box, radius, padding)
    # Any numbers at all: the kernels are linear whatever the volume means.
    shape = (*accumulator.sums.shape[:3], 2)
    volume = FourierVolume(
        torch.randn(shape, generator=seeded(2)), radius, accumulator.padding
    )
    values, weights = random_slices(20, disc)
    insert_slices(accumulator, rotation, disc, values, weights, scale)
    slices = extract_slices(volume, rotation, disc, scale)
    left = torch.view_as_real(slices).double() * torch.view_as_real(values)
    right = volume.values.double() * accumulator.sums[..., :2]
    # Single precision; the scale is that of the terms, not of the sum, which
    # nearly cancels.
    size = float(torch.linalg.norm(slices) * torch.linalg.norm(values))
    assert abs(float(left.sum() - right.sum())) < SINGLE * size
    # Trilinear weights add up to one: no weight is lost.
    total = accumulator.sums[..., 2].double().sum()
    assert float(total) == pytest.approx(float(weights.double().sum()), rel=SINGLE)


@SIZES
def test_compiled_and_plain_slicing_agree(box: int, radius: int) -> None:
    volume = FourierVolume.from_map(noise_map(box), radius, 1.5)
    disc, rotation = FourierDisc.of_box(box, radius), random_rotations(30, seeded(1))
    rotation[0] = torch.eye(3)
    found = extract_slices(volume, rotation, disc)
    with plain_only():
        plain = extract_slices(volume, rotation, disc)
    atol = SINGLE * float(plain.abs().max())
    torch.testing.assert_close(found, plain, rtol=0, atol=atol)


def test_compiled_and_plain_agree_on_odd_boxes_of_another_scale() -> None:
    disc, rotation = FourierDisc.of_box(25, 11), random_rotations(30, seeded(1))
    values, weights = random_slices(30, disc)
    found, plain = (SliceAccumulator.empty(24, 10, 2.0) for _ in range(2))
    volume = FourierVolume.from_map(noise_map(24), 10)
    scale = 0.9  # 11 Fourier pixels of the images are 9.9 of the map
    insert_slices(found, rotation, disc, values, weights, scale)
    slices = extract_slices(volume, rotation, disc, scale)
    with plain_only():
        insert_slices(plain, rotation, disc, values, weights, scale)
        again = extract_slices(volume, rotation, disc, scale)
    for one, other in [(found.sums, plain.sums), (slices, again)]:
        atol = SINGLE * float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


def test_many_slices_are_read_and_written_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disc, rotation = FourierDisc.of_box(16, 7), random_rotations(5, seeded(1))
    values, weights = random_slices(5, disc)
    volume = FourierVolume.from_map(noise_map(16), 7)
    results = []
    for at_once in (trilinear.AT_ONCE, 100):  # a slice has 75 coefficients
        monkeypatch.setattr(trilinear, "AT_ONCE", at_once)
        sums = SliceAccumulator.empty(16, 7, 2.0)
        with plain_only():
            insert_slices(sums, rotation, disc, values, weights)
            results.append((extract_slices(volume, rotation, disc), sums.sums))
    (slices, sums), (slices_again, sums_again) = results
    assert torch.equal(slices, slices_again)
    # Corners are added image by image, or of all images in turn.
    torch.testing.assert_close(sums, sums_again, rtol=0, atol=10 * SINGLE)


@SIZES
def test_compiled_and_plain_insertion_agree(box: int, radius: int) -> None:
    disc, rotation = FourierDisc.of_box(box, radius), random_rotations(30, seeded(1))
    rotation[0] = torch.eye(3)
    values, weights = random_slices(30, disc)
    found, plain = (SliceAccumulator.empty(box, radius, 2.0) for _ in range(2))
    insert_slices(found, rotation, disc, values, weights)
    with plain_only():
        insert_slices(plain, rotation, disc, values, weights)
    # The point nearest to the origin collects some thirty values.
    atol = SINGLE * float(plain.sums.abs().max())
    torch.testing.assert_close(found.sums, plain.sums, rtol=0, atol=atol)


def test_slicing_and_insertion_repeat_bitwise_on_one_thread_and_on_all() -> None:
    box, radius = 16, 7
    volume = FourierVolume.from_map(noise_map(box), radius)
    disc, rotation = FourierDisc.of_box(box, radius), random_rotations(40, seeded(1))
    values, weights = random_slices(40, disc)
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(threads)
            accumulator = SliceAccumulator.empty(box, radius, 2.0)
            insert_slices(accumulator, rotation, disc, values, weights)
            results.append((extract_slices(volume, rotation, disc), accumulator.sums))
    finally:
        numba.set_num_threads(before)
    (slices, sums), (slices_again, sums_again) = results
    assert torch.equal(slices, slices_again)
    assert torch.equal(sums, sums_again)


def test_the_slice_of_no_rotation_is_the_projection_along_z() -> None:
    # Frequencies are voxels at padding 2: nothing is interpolated.
    density = noise_map(16)
    corrected = density / kernel_falloff(16, 32, "cpu")
    disc = FourierDisc.of_box(16, 7)
    volume = FourierVolume.from_map(density, 7, 2.0)
    found = extract_slices(volume, torch.eye(3)[None], disc)[0]
    expected = disc.gather(image_to_fourier(corrected.sum(0)))
    torch.testing.assert_close(found, expected, rtol=0, atol=10 * SINGLE)


@pytest.mark.parametrize(("radius", "scale"), [(7, 1.2), (6, 1.01), (3, 2.01)])
def test_a_disc_beyond_the_volume_is_refused(radius: int, scale: float) -> None:
    box, known = 16, 6
    disc, rotation = FourierDisc.of_box(box, radius), random_rotations(2, seeded())
    volume = FourierVolume.from_map(noise_map(box), known)
    with pytest.raises(ValueError, match="known up to 6"):
        extract_slices(volume, rotation, disc, scale)
    accumulator = SliceAccumulator.empty(box, known, 2.0)
    with pytest.raises(ValueError, match="known up to 6"):
        insert_slices(accumulator, rotation, disc, *random_slices(2, disc), scale)
    assert not accumulator.sums.any()


@pytest.mark.parametrize("padding", [1.0, 1.5, 2.0])
def test_the_largest_disc_stays_inside_the_arrays(padding: float) -> None:
    box = 16
    radius = box // 2 - 1
    volume = FourierVolume.from_map(noise_map(box), radius, padding)
    disc = FourierDisc.of_box(box, radius)
    # Every axis in turn, both ways, and the slack that measured scales need.
    turns = [torch.eye(3).roll(i, 0) * sign for i in range(3) for sign in (1, -1)]
    rotation = torch.cat([torch.stack(turns).double(), random_rotations(50, seeded())])
    scale = 1 + 1e-4
    # Indexing in torch is checked, that of the compiled kernel is not.
    with plain_only():
        plain = extract_slices(volume, rotation, disc, scale)
    found = extract_slices(volume, rotation, disc, scale)
    atol = SINGLE * float(plain.abs().max())
    torch.testing.assert_close(found, plain, rtol=0, atol=atol)
