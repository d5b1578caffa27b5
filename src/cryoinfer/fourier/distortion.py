"""Images with their axes stretched and sheared, as by a lens or its correction.

A magnification that differs with direction is a matrix M: the image's coefficient at
the frequency k is that of an image without distortion at ``M k``, as RELION 3.1 has it
(``rlnMagMat``; ``ObservationModel::applyAnisoMag``). In real space a point at r is seen
at ``M^T r``; amplitudes in Fourier space are kept.

Between its pixels an image is what its transform says, so that the coefficients at
``M k`` are sums over its pixels. M is the product of a shear and a lower triangle::

    M = [[1, u], [0, 1]] @ [[a, 0], [b, c]]

The shear moves columns of pixels, by phase ramps along y; the triangle is a transform
along x at the frequencies ``a kx``, a phase ramp along y, and one along y at ``c ky``.
"""

import math

import torch
from torch import Tensor


def is_distorted(magnification: Tensor) -> bool:
    """Return whether any of some matrices, (n, 2, 2), is not the identity."""
    identity = torch.eye(2, dtype=magnification.dtype, device=magnification.device)
    return bool((magnification != identity).any())


def mapped_frequencies(
    magnification: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Return frequencies of images without distortion.

    Parameters
    ----------
    magnification : Tensor, shape (n, 2, 2)
    x, y : Tensor, shape (p,)
        Of the images as they are.

    Returns
    -------
    tuple of two Tensor, each of shape (n, p)
    """
    matrix = magnification.to(x)[..., None]
    mapped = matrix[:, :, 0] * x + matrix[:, :, 1] * y
    return mapped[:, 0], mapped[:, 1]


def distorted_transform(images: Tensor, matrix: Tensor) -> Tensor:
    """Transform images at frequencies that a matrix maps theirs to.

    Columns of pixels that the shear moves past an edge come back at the other: a
    particle may reach to ``|u| n / 2`` pixels of the edge, less than a pixel in most
    data. Signal that a simulation has wrapped round the edges, as the CTF's in a box
    that is too small for it, is not that of the image there.

    Parameters
    ----------
    images : Tensor, shape (..., n, n)
        Axes (y, x); the origin is the pixel ``n // 2``.
    matrix : Tensor, shape (2, 2)
        Near the identity.

    Returns
    -------
    Tensor, complex, shape (..., n, n // 2 + 1)
        Half-transform, laid out as that of
        :func:`cryoinfer.fourier.transform.image_to_fourier`: at the place of k the
        image's coefficient at ``matrix @ k``.
    """
    n, (shear, along_x, slant, along_y) = images.shape[-1], _factors(matrix)
    place = (torch.arange(n, device=images.device) - n // 2).to(images)
    rows = torch.fft.fftfreq(n, 1 / n, dtype=images.dtype, device=images.device)
    columns = torch.arange(n // 2 + 1, device=images.device).to(images)
    ramp = _turned(shear / n, rows[: n // 2 + 1].abs(), place)
    sheared = torch.fft.irfft(torch.fft.rfft(images, dim=-2) * ramp, n, dim=-2)
    turns_x = _turned(along_x / n, place, columns)
    by_column = torch.complex(sheared @ turns_x.real, sheared @ turns_x.imag)
    by_column = by_column * _turned(slant / n, place, columns)
    return _turned(along_y / n, rows, place) @ by_column / n


def recorded(
    matrix: Tensor, frequency_x: Tensor, frequency_y: Tensor, n: int
) -> Tensor:
    """Return whether an image holds the frequencies that a matrix maps some to.

    Beyond Nyquist it shows those of the other side.

    Parameters
    ----------
    matrix : Tensor, shape (2, 2)
    frequency_x, frequency_y : Tensor, shape (p,)
        In cycles per box.
    n : int
        Size of the image.

    Returns
    -------
    Tensor of bool, shape (p,)
    """
    (a, b), (c, d) = matrix.tolist()
    at_x = a * frequency_x + b * frequency_y
    at_y = c * frequency_x + d * frequency_y
    return (at_x.abs() < n / 2) & (at_y.abs() < n / 2)


def _factors(matrix: Tensor) -> tuple[float, float, float, float]:
    """Return u, a, b and c of the product in the head of the module."""
    (m00, m01), (m10, m11) = matrix.double().tolist()
    shear = m01 / m11
    return shear, m00 - shear * m10, m10, m11


def _turned(step: float, first: Tensor, second: Tensor) -> Tensor:
    """Return ``exp(-2 pi i step first second)`` of every pair, complex."""
    # In double precision: products of a place and a frequency are large.
    angle = -2 * math.pi * step * first.double()[:, None] * second.double()
    turned = torch.polar(torch.ones_like(angle), angle)
    return turned.to(first.dtype.to_complex())


def undistorted_points(points: Tensor, magnification: Tensor) -> Tensor:
    """Return where points of distorted images are without the distortion.

    Parameters
    ----------
    points : Tensor, shape (n, 2)
        (x, y) from the centre.
    magnification : Tensor, shape (n, 2, 2)

    Returns
    -------
    Tensor, shape (n, 2)
    """
    if not is_distorted(magnification):
        return points
    return torch.linalg.solve(magnification.mT, points[..., None])[..., 0]


def distorted_points(points: Tensor, magnification: Tensor) -> Tensor:
    """Invert :func:`undistorted_points`."""
    if not is_distorted(magnification):
        return points
    return (magnification.mT @ points[..., None])[..., 0]
