"""Symmetrised sums against inserting every mate."""

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import SliceAccumulator, insert_slices
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.operations import plain_only
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.symmetrise import _factors, symmetrise

BOX, RADIUS, COUNT = 32, 12, 60


def inserted(mates: Tensor, padding: float = 1.5, count: int = COUNT):
    """Insert random, smooth slices at every mate of random rotations."""
    generator = torch.Generator().manual_seed(4)
    rotation = random_rotations(count, generator)
    disc = FourierDisc.of_box(BOX, RADIUS)
    real = torch.randn(2, count, len(disc), generator=generator)
    values = torch.complex(*real)
    weights = torch.rand(count, len(disc), generator=generator) + 0.5
    sums = SliceAccumulator.empty(BOX, RADIUS, padding)
    for mate in mates:
        insert_slices(sums, rotation @ mate, disc, values, weights)
    return sums


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


def test_without_symmetry_nothing_changes() -> None:
    sums = inserted(symmetry_rotations("C1"))
    assert symmetrise(sums, symmetry_rotations("C1")) is sums


@pytest.mark.parametrize("group", ["C2", "C4", "D2", "O"])
def test_turns_that_map_the_grid_to_itself_are_exact(group) -> None:
    mates = symmetry_rotations(group)
    sums = inserted(mates[:1], count=20)
    found = symmetrise(sums, mates).hermitian()
    expected = inserted(mates, count=20).hermitian()
    # What spills over the rim by more than a voxel is not used.
    c = sums.centre
    axis = torch.arange(-c, c + 1)
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + torch.arange(c + 2) ** 2
    used = squared.sqrt() / sums.padding <= RADIUS + 0.5
    # Sums in single precision; rotations, too, are rounded, which moves points off
    # the voxels by 1e-6 of their distance.
    for mine, theirs in zip(found, expected, strict=True):
        assert relative_error(mine[used], theirs[used]) < 1e-5


@pytest.mark.parametrize("group", ["C3", "D5", "T", "I"])
def test_other_turns_smooth_a_little(group) -> None:
    mates = symmetry_rotations(group)
    value, weight = symmetrise(inserted(mates[:1]), mates).hermitian()
    _, expected = inserted(mates).hermitian()
    # Interpolation keeps the sum of all weights, within the cut at the rim, and
    # smooths the weights of so few slices over a voxel.
    assert float(weight.sum()) == pytest.approx(float(expected.sum()), rel=0.02)
    assert value.isfinite().all()
    smooth = torch.nn.functional.avg_pool3d
    blurred = [smooth(w[None, :, :, 1:], 5, 2)[0] for w in (weight, expected)]
    assert relative_error(*blurred) < 0.1


def blob_slices(rotation: Tensor, disc: FourierDisc, centres: Tensor) -> Tensor:
    """Return the exact transform of Gaussian blobs of 1.2 voxels."""
    k = torch.stack([disc.kx, disc.ky], -1).double() / BOX
    plane = torch.einsum("nij,bj->nbi", rotation[:, :2], centres)
    phase = torch.exp(-2j * torch.pi * torch.einsum("nbi,pi->nbp", plane, k)).sum(1)
    damping = torch.exp(-2 * (torch.pi * 1.2) ** 2 * k.square().sum(1))
    return (phase * damping).to(torch.complex64)


@pytest.mark.parametrize("group", ["C3", "D5", "I"])
def test_the_map_agrees_with_inserting_every_mate(group) -> None:
    mates = symmetry_rotations(group)
    generator = torch.Generator().manual_seed(6)
    seeds = torch.randn(4, 3, generator=generator, dtype=torch.float64) * 4
    centres = torch.einsum("mij,bj->mbi", mates, seeds).flatten(0, 1)
    rotation = random_rotations(1200 // len(mates), generator)
    disc = FourierDisc.of_box(BOX, RADIUS)
    values = blob_slices(rotation, disc, centres)
    ones = torch.ones(values.shape)
    few, all_of_them = (SliceAccumulator.empty(BOX, RADIUS, 1.5) for _ in range(2))
    insert_slices(few, rotation, disc, values, ones)
    for mate in mates:
        insert_slices(all_of_them, rotation @ mate, disc, values, ones)
    found = solve(symmetrise(few, mates), None, BOX, BOX)
    expected = solve(all_of_them, None, BOX, BOX)
    fsc = fourier_shell_correlation(found, expected)
    assert fsc[1 : RADIUS - 1].min() > 0.99
    # One interpolation more, which dims the rim of the box.
    assert relative_error(found, expected) < 0.1


@pytest.mark.parametrize("padding", [1.5, 2.0])
@pytest.mark.parametrize("group", ["C3", "D2", "T"])
def test_plain_sums_are_the_compiled_ones(group: str, padding: float) -> None:
    mates = symmetry_rotations(group)
    sums = inserted(mates[:1], padding)
    found = symmetrise(sums, mates).sums
    with plain_only():
        plain = symmetrise(sums, mates).sums
    # Points within some 30 voxels are known to 2e-6 of one in single precision.
    assert relative_error(plain, found) < 1e-5


@pytest.mark.parametrize(
    ("group", "turns"),
    [("C3", 3), ("D2", 1), ("D5", 5), ("T", 12), ("O", 1), ("I", 5)],
)
def test_the_group_is_its_factors(group: str, turns: int) -> None:
    mates = symmetry_rotations(group)
    first, exact = _factors(mates)
    products = (first[:, None] @ exact).flatten(0, 1)
    apart = (products[:, None] - mates).abs().amax((2, 3))
    assert len(first) == turns
    # One of each; entries of a product of five rotations are off by 1e-15.
    assert torch.equal((apart < 1e-12).sum(0), torch.ones(len(mates)).long())
