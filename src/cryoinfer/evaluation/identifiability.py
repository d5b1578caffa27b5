"""What images cannot tell apart: motion and rotation, or one mode and another."""

from dataclasses import dataclass

import torch
from torch import Tensor

_POSE = 6  # unknowns before the amplitudes: rotation, shift, defocus


@dataclass(frozen=True)
class Identifiability:
    """How well amplitudes are told apart from what else is unknown.

    Medians over particles.

    Attributes
    ----------
    widened_by_pose : tuple of float, length c
        Standard deviation of each amplitude over what it would be if rotation, shift
        and defocus were known; 1 where they do not matter.
    correlation : tuple of tuples of float, shape (c, c)
        Sizes of the posterior correlations of the amplitudes.
    """

    widened_by_pose: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]


def amplitude_identifiability(covariance: Tensor) -> Identifiability:
    """Return what posterior covariances say of the amplitudes.

    Parameters
    ----------
    covariance : Tensor of float64, shape (n, 6 + c, 6 + c)
        Of rotation, shift, defocus and c amplitudes; zero rows and columns for
        unknowns that were held, which are no amplitudes.
    """
    free = (covariance.diagonal(dim1=1, dim2=2) > 0).all(0)
    chosen = torch.nonzero(free).squeeze(1)
    own = chosen >= _POSE
    inside = covariance[:, chosen][:, :, chosen]
    precision = torch.linalg.inv(inside)
    known = torch.linalg.inv(precision[:, own][:, :, own])
    unknown = inside[:, own][:, :, own]
    sd = unknown.diagonal(dim1=1, dim2=2).sqrt()
    ratio = sd / known.diagonal(dim1=1, dim2=2).sqrt()
    correlation = unknown / (sd[:, :, None] * sd[:, None])
    return Identifiability(
        tuple(ratio.median(0).values.tolist()),
        tuple(tuple(row) for row in correlation.abs().median(0).values.tolist()),
    )
