"""Sums that round alike on any number of threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    complex_product,
    inner_products,
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
        ]

    torch.set_num_threads(1)
    alone = everything()
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        for one, other in zip(alone, everything(), strict=True):
            assert torch.equal(one, other)
