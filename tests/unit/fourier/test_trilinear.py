"""Plain interpolation: its slopes are those of automatic differentiation."""

import torch
from torch import Tensor

from cryoinfer.fourier.trilinear import add, read, read_with_slopes


def random_half(channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (9, 9, 6, channels)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def random_points(count: int) -> Tensor:
    """Return points on both sides of the plane x = 0, within three voxels."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, generator=generator, dtype=torch.float64) * 6 - 3


def test_voxels_are_read_as_they_are_and_mates_conjugated() -> None:
    array = random_half()
    point = torch.tensor([[2, -1, 3], [-2, 1, -3], [0, 0, 0]], dtype=torch.float64)
    found = read(array, point)
    conjugate = torch.tensor([1.0, -1.0])
    expected = torch.stack([array[7, 3, 2], array[7, 3, 2] * conjugate, array[4, 4, 0]])
    torch.testing.assert_close(found, expected)


def test_slopes_are_those_of_automatic_differentiation() -> None:
    array, point = random_half(), random_points(50).requires_grad_()
    assert (point[:, 0] < 0).any()
    value, slopes = read_with_slopes(array, point)
    plain = read(array, point)
    torch.testing.assert_close(torch.view_as_real(value), plain)
    for part, found in enumerate((slopes.real, slopes.imag)):
        total = plain[:, part].sum()
        (expected,) = torch.autograd.grad(total, point, retain_graph=True)
        torch.testing.assert_close(found, expected)


def test_adding_is_the_adjoint_of_reading() -> None:
    point, sums = random_points(50), random_half(4) * 0
    generator = torch.Generator().manual_seed(2)
    pairs = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    weight = torch.rand(50, generator=generator, dtype=torch.float64)
    add(sums, point, torch.view_as_complex(pairs), weight)
    array = random_half()
    left = (read(array, point) * pairs).sum()
    torch.testing.assert_close((array * sums[..., :2]).sum(), left)
    # Shares add up to one, and their squares to less.
    torch.testing.assert_close(sums[..., 2].sum(), weight.sum())
    assert 0 < float(sums[..., 3].sum()) < float(weight.sum())
