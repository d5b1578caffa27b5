"""Sums that round alike on any number of threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    complex_product,
    fourier_transform_3d,
    inner_products,
    inverse_fourier_transform_3d,
    inverse_real_fourier_transform_3d,
    real_fourier_transform_3d,
    reproducible_mean,
    reproducible_sum,
)
from cryoinfer.fourier.oversampled import oversampled_inverse, oversampled_transform


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(0,), (1,), (8191,), (8192,), (7, 30000), (3, 5, 9)])
def test_sums_are_those_of_all_elements(shape: tuple[int, ...]) -> None:
    values = noise(*shape)
    exact = values.double().sum()
    # Pairwise sums of single precision: far less than one rounding an element.
    atol = 2**-24 * float(values.abs().double().sum())
    found = reproducible_sum(values)
    assert found.dtype == values.dtype
    assert abs(float(found - exact)) <= atol
    if values.numel():
        assert float(reproducible_mean(values)) == pytest.approx(
            float(exact) / values.numel(), abs=atol / values.numel()
        )


def test_products_are_those_of_matrices() -> None:
    first, second = noise(2, 20000).double(), noise(5, 20000).double()
    torch.testing.assert_close(inner_products(first, second), first @ second.T)


def test_complex_products_are_those_of_complex_numbers() -> None:
    first, second = (torch.view_as_complex(noise(3, 50, 2) * k) for k in (1, 2))
    exact = first.to(torch.complex128) * second.to(torch.complex128)
    found = complex_product(first, second)
    assert found.dtype == torch.complex64
    # Two products and a sum, a rounding each, of numbers of up to 16.
    torch.testing.assert_close(
        found.to(exact.dtype), exact, rtol=0, atol=3 * 32 * 2**-24
    )


@pytest.mark.parametrize("box", [5, 8])
def test_transforms_are_those_over_three_axes(box: int) -> None:
    values = noise(2, box, box, box).double()
    half, whole = real_fourier_transform_3d(values), fourier_transform_3d(values)
    dim = (-3, -2, -1)
    torch.testing.assert_close(half, torch.fft.rfftn(values, dim=dim))
    torch.testing.assert_close(whole, torch.fft.fftn(values, dim=dim))
    torch.testing.assert_close(inverse_fourier_transform_3d(whole).real, values)
    torch.testing.assert_close(inverse_real_fourier_transform_3d(half, box), values)


# Shapes that MKL divides along the inner dimension on an Intel processor.
@pytest.mark.parametrize("shape", [(64, 1040, 32), (3, 1000, 1000), (1, 512, 500)])
@pytest.mark.parametrize("type_", [torch.float32, torch.float64])
def test_products_of_matrices_do_not_depend_on_threads(
    shape: tuple[int, int, int], type_: torch.dtype
) -> None:
    rows, inner, columns = shape
    first, second = noise(rows, inner).to(type_), noise(inner, columns).to(type_)
    torch.set_num_threads(1)
    alone = first @ second
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        assert torch.equal(alone, first @ second)


def test_every_number_of_threads_gives_the_same_bits() -> None:
    values, cube = noise(3, 100_003), noise(32, 32, 32)

    def everything() -> list[Tensor]:
        wave = oversampled_transform(cube, 64, 20)
        return [
            reproducible_sum(values),
            reproducible_mean(values.double()),
            inner_products(values[:2], values),
            complex_product(*torch.view_as_complex(noise(2, 100_003, 2))),
            wave,
            oversampled_inverse(wave, 64, 32),
            real_fourier_transform_3d(cube),
            fourier_transform_3d(cube[:16, :16, :16]),
        ]

    torch.set_num_threads(1)
    alone = everything()
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        for one, other in zip(alone, everything(), strict=True):
            assert torch.equal(one, other)
