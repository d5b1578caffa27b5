"""Maps from inserted slices: a known map comes back, and the filter's formula."""

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import (
    FourierVolume,
    SliceAccumulator,
    extract_slices,
    insert_slices,
    kernel_falloff,
)
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.operations import plain_only
from cryoinfer.reconstruction.backproject import (
    shell_sums,
    signal_to_noise,
    solve,
)

BOX, RADIUS = 32, 14
SIGMA = 1.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blob_centres() -> Tensor:
    return torch.randn(30, 3, generator=seeded(), dtype=torch.float64) * 2.5


def blob_map(box: int) -> Tensor:
    """Sample Gaussian blobs, with voxels of BOX / box."""
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) * BOX / box
    x, y, z = torch.exp(-((axis - blob_centres().T[..., None]) ** 2) / (2 * SIGMA**2))
    return torch.einsum("bz,by,bx->zyx", z, y, x).float()


def exact_slices(rotation: Tensor, disc: FourierDisc) -> Tensor:
    """Transform the exact projections: nothing here comes from the code under test."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    x, y, _ = torch.einsum("nij,bj->inb", rotation, blob_centres())
    x = torch.exp(-((axis - x[..., None]) ** 2) / (2 * SIGMA**2))
    y = torch.exp(-((axis - y[..., None]) ** 2) / (2 * SIGMA**2))
    images = math.sqrt(2 * math.pi) * SIGMA * torch.einsum("nby,nbx->nyx", y, x)
    return disc.gather(image_to_fourier(images)).to(torch.complex64)


def filled(
    padding: float, ctf: float = 1.0, count: int = 1500, radius: int = RADIUS
) -> SliceAccumulator:
    """Insert exact slices, multiplied by a CTF that is constant."""
    disc = FourierDisc.of_box(BOX, radius)
    rotation = random_rotations(count, seeded(1))
    values = exact_slices(rotation, disc)
    accumulator = SliceAccumulator.empty(BOX, radius, padding)
    weights = torch.full(values.shape, ctf**2)
    insert_slices(accumulator, rotation, disc, values * ctf**2, weights)
    return accumulator


def even_sums(padding: float, value: complex) -> SliceAccumulator:
    """Return sums whose every voxel is ``value`` with weight one."""
    sums = SliceAccumulator.empty(BOX, RADIUS, padding)
    sums.sums[:] = torch.tensor([value.real, value.imag, 1.0, 1.0])
    # Mates are added there.
    sums.sums[:, :, 0] /= 2
    return sums


@pytest.mark.parametrize("padding", [1.5, 2.0])
def test_exact_projections_give_the_map_back(padding: float) -> None:
    found = solve(filled(padding), None, BOX, BOX)
    truth = blob_map(BOX)
    assert found.dtype == torch.float32
    fsc = fourier_shell_correlation(found, truth)
    assert fsc[1:RADIUS].min() > 0.99
    # The scale too: regression on the truth, of which the origin is unknown.
    centred = truth - truth.mean()
    slope = float((found * centred).sum() / (centred * centred).sum())
    assert slope == pytest.approx(1.0, abs=0.02)


def test_weights_cancel_where_every_ctf_is_the_same() -> None:
    whole = solve(filled(1.5, count=300), None, BOX, BOX)
    dimmed = solve(filled(1.5, ctf=0.01, count=300), None, BOX, BOX)
    # Sums of some hundred numbers in single precision.
    torch.testing.assert_close(dimmed, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("padding", [1.5, 2.0])
def test_a_map_on_voxels_twice_as_large_is_every_second_voxel(padding: float) -> None:
    accumulator = filled(padding, count=300, radius=6)
    fine = solve(accumulator, None, BOX, BOX)
    coarse = solve(accumulator, None, BOX, BOX // 2)
    assert coarse.shape == (BOX // 2,) * 3
    # The same function of position, and the same sums along a line times area:
    # from_map divides by the size of the box.
    torch.testing.assert_close(coarse, fine[::2, ::2, ::2] * 4, rtol=0, atol=1e-4)


@pytest.mark.parametrize("padding", [1.5, 2.0])
@pytest.mark.parametrize("map_box", [20, 24, 32])
def test_the_map_has_the_slices_of_the_images(padding: float, map_box: int) -> None:
    radius = map_box // 2 - 2
    accumulator = filled(padding, radius=radius)
    density = solve(accumulator, None, BOX, map_box)
    volume = FourierVolume.from_map(density, radius, padding)
    assert volume.padding == accumulator.padding
    disc = FourierDisc.of_box(BOX, radius - 1)
    fresh = random_rotations(20, seeded(2))
    found, expected = extract_slices(volume, fresh, disc), exact_slices(fresh, disc)
    error = torch.linalg.norm(found - expected) / torch.linalg.norm(expected)
    # Interpolation both ways; measured 0.042 to 0.044, and 0.028 to 0.030.
    assert error < {1.5: 0.048, 2.0: 0.033}[padding]


def test_the_filter_multiplies_by_snr_over_snr_plus_one() -> None:
    accumulator = even_sums(2.0, 1.0)
    plain = solve(accumulator, None, BOX, BOX)
    snr = torch.full((RADIUS + 2,), 3.0)
    filtered = solve(accumulator, snr, BOX, BOX)
    # Without a prior the regulariser is a thousandth of the mean weight.
    expected = plain * (1 + 1e-3) * (3 / 4)
    torch.testing.assert_close(
        filtered, expected, rtol=0, atol=1e-5 * float(plain.abs().max())
    )


def test_shells_beyond_the_known_ratios_are_nearly_removed() -> None:
    accumulator = even_sums(2.0, 1.0)
    filtered = solve(accumulator, torch.full((5,), 1e6), BOX, BOX)
    slices = extract_slices(
        FourierVolume.from_map(filtered, RADIUS, 2.0),
        torch.eye(3)[None],
        disc := FourierDisc.of_box(BOX, RADIUS - 1),
    )[0].abs()
    # 1 / (1 + 1000) from shell 5 on, where the ratio is taken as 1e-3; the cut to
    # the box smears it by a few shells.
    assert slices[disc.ring <= 3].mean() > 0.9
    assert slices[disc.ring >= 8].mean() < 0.05


def test_nothing_inserted_gives_an_empty_map() -> None:
    accumulator = SliceAccumulator.empty(16, 5, 2.0)
    assert not solve(accumulator, None, 16, 16).any()
    assert not solve(accumulator, torch.ones(6), 16, 16).any()


def test_one_slice_leaves_the_unseen_empty_and_finite() -> None:
    disc = FourierDisc.of_box(16, 5)
    accumulator = SliceAccumulator.empty(16, 5, 2.0)
    values = torch.ones(1, len(disc), dtype=torch.complex64)
    insert_slices(
        accumulator, torch.eye(3)[None], disc, values, torch.ones(1, len(disc))
    )
    density = solve(accumulator, None, 16, 16)
    assert density.isfinite().all()
    # All its frequencies lie in the plane kz = 0, which is wide by the kernel only:
    # the map is that kernel's fall-off along z, which solve divides out.
    ratio = density / density[8]
    bright = density[8].abs() > 0.1 * density[8].abs().max()
    torch.testing.assert_close(
        ratio[:, bright][4:12], torch.ones(8, int(bright.sum())), rtol=0, atol=0.35
    )


def shells_of(sums: SliceAccumulator) -> Tensor:
    """Return the shell of every voxel: distances from the origin, rounded."""
    c = sums.centre
    axis = torch.arange(-c, c + 1).double()
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + torch.arange(c + 2) ** 2
    return (squared.sqrt() / sums.padding).round().long()


@pytest.mark.parametrize("padding", [1.5, 2.0])
def test_shell_sums_agree_with_a_loop(padding: float) -> None:
    sums = filled(padding, count=200, radius=9)
    _, weight = sums.hermitian()
    returned = torch.where(weight > 0, sums.own_weight() / weight, 0)
    found, shells = shell_sums(sums), shells_of(sums)
    assert len(found.mean_weight) == len(found.returned) == 11
    for shell in range(11):
        members = shells == shell
        # Sums of some thousand numbers in single precision.
        mean, total = float(weight[members].mean()), float(returned[members].sum())
        assert found.mean_weight[shell].item() == pytest.approx(mean, rel=1e-4)
        assert found.returned[shell].item() == pytest.approx(total, rel=1e-4)


def test_a_single_image_gives_itself_back_but_for_interpolation() -> None:
    disc = FourierDisc.of_box(BOX, RADIUS)
    rotation = random_rotations(1, seeded(3))
    sums = SliceAccumulator.empty(BOX, RADIUS, 2.0)
    values = torch.randn(1, len(disc), dtype=torch.complex64, generator=seeded(4))
    weights = torch.ones(1, len(disc))
    insert_slices(sums, rotation, disc, values, weights)
    _, weight = sums.hermitian()
    total = float(shell_sums(sums).returned.sum())
    own = 0.0
    for number in range(0, len(disc), 16):
        single = torch.zeros_like(values)
        single[0, number] = 1.0
        alone = SliceAccumulator.empty(BOX, RADIUS, 2.0)
        insert_slices(alone, rotation, disc, single, weights)
        value, _ = alone.hermitian()
        read = torch.where(weight > 0, value / weight, 0)
        volume = FourierVolume(torch.view_as_real(read).contiguous(), RADIUS, 2.0)
        own += float(extract_slices(volume, rotation, disc)[0, number].real)
    # Every sixteenth coefficient stands for all: a sample of 19.
    assert total / len(disc) == pytest.approx(own / len(range(0, len(disc), 16)), 0.1)


def naive_map(sums: SliceAccumulator, snr: Tensor, box: int, map_box: int) -> Tensor:
    """Divide and transform in double precision, by one transform of the whole cube."""
    value, weight = (part.to(torch.complex128) for part in sums.hermitian())
    c = sums.centre
    axis = torch.arange(-c, c + 1).double()
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + torch.arange(c + 2) ** 2
    radius = squared.sqrt() / sums.padding
    mean = [float(weight[radius.round() == k].real.mean()) for k in range(len(snr))]
    floor = torch.tensor(mean).double() / snr.double()
    low = radius.clamp(max=len(snr) - 1.001).floor().long()
    part = radius.clamp(max=len(snr) - 1.001) - low
    added = floor[low] * (1 - part) + floor[low + 1] * part
    values = torch.where(radius <= sums.radius + 0.5, value / (weight + added), 0)
    fine = 2 * round(map_box * sums.padding / 2)
    reach = min(c, fine // 2 - 1)
    full = torch.zeros(fine, fine, fine // 2 + 1, dtype=torch.complex128)
    index = torch.arange(-reach, reach + 1) % fine
    middle = slice(c - reach, c + reach + 1)
    full[index[:, None], index[None, :], : reach + 1] = values[
        middle, middle, : reach + 1
    ]
    cube = torch.fft.fftshift(torch.fft.irfftn(full, s=(fine,) * 3))
    cut = slice(fine // 2 - map_box // 2, fine // 2 + map_box // 2)
    falloff = kernel_falloff(map_box, fine, "cpu").double()
    return (cube[cut, cut, cut] * map_box / falloff).float()


@pytest.mark.parametrize("padding", [1.5, 2.0])
@pytest.mark.parametrize("map_box", [24, 32])
def test_compiled_and_plain_division_agree(padding: float, map_box: int) -> None:
    sums = filled(padding, count=100, radius=9)
    snr = torch.rand(11, generator=seeded(5)) + 0.1
    found, plain = solve(sums, snr, BOX, map_box), naive_map(sums, snr, BOX, map_box)
    # Single precision, through a transform.
    torch.testing.assert_close(
        found, plain, rtol=0, atol=1e-5 * float(plain.abs().max())
    )


@pytest.mark.parametrize("device_kernel", [True, False])
def test_the_map_of_two_sums_is_that_of_their_sum(device_kernel: bool) -> None:
    sums = filled(1.5, count=100, radius=9)
    share = torch.rand(sums.sums.shape, generator=seeded(6))
    first, second = (
        replace(sums, sums=sums.sums * part) for part in (share, 1 - share)
    )
    snr = torch.rand(11, generator=seeded(5)) + 0.1
    with nullcontext() if device_kernel else plain_only():
        found = solve(first, snr, BOX, 24, others=second)
        expected = solve(sums, snr, BOX, 24)
    # Single precision, through a transform.
    torch.testing.assert_close(
        found, expected, rtol=0, atol=1e-5 * float(expected.abs().max())
    )


def test_signal_to_noise_of_known_correlations() -> None:
    fsc = torch.tensor([0.5, 1 / 3, 0.143])
    # FSC = SNR / (1 + SNR) of one half; together the noise is halved.
    expected = torch.tensor([1.0, 0.5, 0.143 / 0.857])
    torch.testing.assert_close(signal_to_noise(fsc, joined=False), expected)
    torch.testing.assert_close(signal_to_noise(fsc, joined=True), 2 * expected)
    # Neither certainty nor contradiction is taken at its word.
    bounded = signal_to_noise(torch.tensor([1.0, -0.4]), joined=False)
    torch.testing.assert_close(
        bounded, torch.tensor([999.0, 1e-3 / 0.999]), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("padding", [1.5, 2.0])
def test_plain_division_and_weights_are_the_compiled_ones(padding: float) -> None:
    sums = filled(padding, count=100, radius=9)
    snr = torch.rand(11, generator=seeded(5)) + 0.1
    found, shells = solve(sums, snr, BOX, 24), shell_sums(sums)
    with plain_only():
        plain, plain_shells = solve(sums, snr, BOX, 24), shell_sums(sums)
    # Single precision, through a transform; and sums of some thousand numbers.
    torch.testing.assert_close(
        found, plain, rtol=0, atol=1e-5 * float(plain.abs().max())
    )
    for name, value in vars(shells).items():
        other = getattr(plain_shells, name)
        torch.testing.assert_close(value, other, rtol=1e-4, atol=0)
