"""Transforms of a box in the middle of a larger empty one, and back.

Zeros need no transform, nor do coefficients that nobody reads: every axis is
transformed in turn, padded just before and cut just after. At twice the box this
takes a third of the time of the whole cube, and of its memory.

On the CPU the transforms are SciPy's: lines of real numbers come out of PyTorch's with
other roundings on another number of threads.
"""

import scipy.fft
import torch
from torch import Tensor


def oversampled_transform(cube: Tensor, padded: int, reach: int) -> Tensor:
    """Transform a cube, padded with zeros to ``padded``, up to a frequency.

    Parameters
    ----------
    cube : Tensor of float32, shape (n, n, n)
        Axes (z, y, x), centre at ``n // 2``, n even.
    padded : int
        Even, n or more.
    reach : int
        Largest frequency along each axis, below ``padded / 2``.

    Returns
    -------
    Tensor of complex64, shape (2 reach + 1, 2 reach + 1, reach + 1)
        Axes (z, y, x), frequency zero at ``[reach, reach, 0]``.
    """
    along_x = _along("rfft", _spread(cube, padded, 2), 2)[..., : reach + 1]
    along_y = _centred(_along("fft", _spread(along_x, padded, 1), 1), reach, 1)
    return _centred(_along("fft", _spread(along_y, padded, 0), 0), reach, 0)


def oversampled_inverse(values: Tensor, padded: int, box: int) -> Tensor:
    """Invert :func:`oversampled_transform`, and cut the middle out of the result.

    Parameters
    ----------
    values : Tensor of complex64, shape (2 r + 1, 2 r + 1, r + 1)
        As of :func:`oversampled_transform`; all other frequencies are zero.
    padded : int
        More than ``2 r``.
    box : int
        Even, at most ``padded``.

    Returns
    -------
    Tensor of float32, shape (box, box, box)
    """
    along_z = _middle(_along("ifft", _wrapped(values, padded, 0), 0), box, 0)
    along_y = _middle(_along("ifft", _wrapped(along_z, padded, 1), 1), box, 1)
    return _middle(_along("irfft", along_y, 2, padded), box, 2)


def _along(name: str, values: Tensor, dim: int, length: int | None = None) -> Tensor:
    """Transform along one axis, by the function of that name."""
    if values.device.type != "cpu" or values.requires_grad:
        found: Tensor = getattr(torch.fft, name)(values, length, dim)
        return found
    workers = torch.get_num_threads()
    transform = getattr(scipy.fft, name)
    # The values are copies that nobody else has.
    found = transform(values.numpy(), length, dim, overwrite_x=True, workers=workers)
    return torch.from_numpy(found)


def _spread(values: Tensor, padded: int, dim: int) -> Tensor:
    """Move the origin from the middle to index 0, with zeros up to ``padded``."""
    n = values.shape[dim]
    first, second = values.narrow(dim, n // 2, n // 2), values.narrow(dim, 0, n // 2)
    return torch.cat([first, _zeros(values, padded - n, dim), second], dim)


def _wrapped(values: Tensor, padded: int, dim: int) -> Tensor:
    """Move frequency zero from the middle to index 0, with zeros up to ``padded``."""
    reach = values.shape[dim] // 2
    first, second = values.narrow(dim, reach, reach + 1), values.narrow(dim, 0, reach)
    return torch.cat([first, _zeros(values, padded - 2 * reach - 1, dim), second], dim)


def _centred(values: Tensor, reach: int, dim: int) -> Tensor:
    """Return frequencies -reach .. reach of a full transform."""
    size = values.shape[dim]
    negative = values.narrow(dim, size - reach, reach)
    return torch.cat([negative, values.narrow(dim, 0, reach + 1)], dim)


def _middle(values: Tensor, box: int, dim: int) -> Tensor:
    """Return the ``box`` places around index 0, that one at ``box // 2``."""
    size = values.shape[dim]
    before = values.narrow(dim, size - box // 2, box // 2)
    return torch.cat([before, values.narrow(dim, 0, box // 2)], dim)


def _zeros(like: Tensor, count: int, dim: int) -> Tensor:
    shape = list(like.shape)
    shape[dim] = count
    return like.new_zeros(shape)
