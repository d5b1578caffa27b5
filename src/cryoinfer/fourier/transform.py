"""The one Fourier convention of the library.

Transforms are orthonormal (``norm="ortho"``), so white noise of variance v has
the variance v in every Fourier coefficient. The origin of real space is the
pixel ``n // 2``; that of Fourier space is index 0, in half-transforms along the
last axis (x). A projection along z of a map is the central slice of the map's
transform times ``sqrt(n)``: see :func:`map_to_fourier`.
"""

import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    inverse_real_fourier_transform_3d,
    real_fourier_transform_3d,
)


def image_to_fourier(images: Tensor) -> Tensor:
    """Transform images whose origin is the pixel ``n // 2``.

    Parameters
    ----------
    images : Tensor, shape (..., n, n)
        Axes (y, x).

    Returns
    -------
    Tensor, complex, shape (..., n, n // 2 + 1)
        Orthonormal half-transform, frequency zero at ``[..., 0, 0]``.
    """
    return torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)), norm="ortho")


def fourier_to_image(coefficients: Tensor, box: int) -> Tensor:
    """Invert :func:`image_to_fourier`.

    Parameters
    ----------
    coefficients : Tensor, complex, shape (..., n, n // 2 + 1)
    box : int
        The size n, which the half-transform alone does not tell.

    Returns
    -------
    Tensor, shape (..., n, n)
    """
    images = torch.fft.irfft2(coefficients, s=(box, box), norm="ortho")
    return torch.fft.fftshift(images, dim=(-2, -1))


def map_to_fourier(density: Tensor) -> Tensor:
    """Transform a map so that its central slices are transforms of its projections.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
        Axes (z, y, x); the origin is the voxel ``n // 2``.

    Returns
    -------
    Tensor, complex, shape (n, n, n // 2 + 1)
        ``sum(v exp(-2 pi i k r)) / n``: the plane ``kz = 0`` equals
        ``image_to_fourier(density.sum(0))``.
    """
    n = density.shape[-1]
    shifted = torch.fft.ifftshift(density, dim=(-3, -2, -1))
    return real_fourier_transform_3d(shifted) / n


def fourier_to_map(coefficients: Tensor, box: int) -> Tensor:
    """Invert :func:`map_to_fourier`.

    Parameters
    ----------
    coefficients : Tensor, complex, shape (n, n, n // 2 + 1)
    box : int
        The size n.

    Returns
    -------
    Tensor, shape (n, n, n)
    """
    density = inverse_real_fourier_transform_3d(coefficients, box)
    return torch.fft.fftshift(density, dim=(-3, -2, -1)) * box
