"""Padding and cutting axis by axis is one transform of the whole padded cube."""

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.oversampled import oversampled_inverse, oversampled_transform

# Single precision through three transforms of at most 48 numbers.
SINGLE = 1e-5


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("box", "padded", "reach"), [(8, 12, 5), (10, 20, 4), (16, 24, 11), (12, 12, 5)]
)
def test_transform_is_that_of_the_padded_cube(
    box: int, padded: int, reach: int
) -> None:
    cube = noise(box, box, box)
    margin = (padded - box) // 2
    whole = torch.nn.functional.pad(cube.double(), (margin,) * 6)
    full = torch.fft.rfftn(torch.fft.ifftshift(whole))
    index = torch.arange(-reach, reach + 1) % padded
    expected = full[index][:, index, : reach + 1].to(torch.complex64)
    found = oversampled_transform(cube, padded, reach)
    atol = SINGLE * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("box", "padded", "reach"), [(8, 12, 5), (10, 20, 4), (16, 24, 11), (12, 12, 5)]
)
def test_inverse_is_the_middle_of_the_whole_inverse(
    box: int, padded: int, reach: int
) -> None:
    size = 2 * reach + 1
    values = torch.complex(noise(size, size, reach + 1), noise(size, size, reach + 1))
    full = torch.zeros(padded, padded, padded // 2 + 1, dtype=torch.complex128)
    index = torch.arange(-reach, reach + 1) % padded
    full[index[:, None], index[None, :], : reach + 1] = values.to(torch.complex128)
    cube = torch.fft.fftshift(torch.fft.irfftn(full, s=(padded,) * 3))
    cut = slice(padded // 2 - box // 2, padded // 2 + box // 2)
    expected = cube[cut, cut, cut].float()
    found = oversampled_inverse(values, padded, box)
    atol = SINGLE * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_there_and_back_is_the_cube_where_nothing_is_cut() -> None:
    cube = noise(10, 10, 10)
    # Without the highest frequency, which stands for itself alone.
    smooth = oversampled_inverse(oversampled_transform(cube, 10, 4), 10, 10)
    again = oversampled_inverse(oversampled_transform(smooth, 20, 9), 20, 10)
    torch.testing.assert_close(
        oversampled_inverse(oversampled_transform(smooth, 10, 4), 10, 10),
        smooth,
        rtol=0,
        atol=SINGLE,
    )
    # Twice the box holds frequencies up to 9 of 20: the cube's edges are cut there.
    assert float((again - smooth).norm() / smooth.norm()) < 0.35
