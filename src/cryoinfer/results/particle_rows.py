"""What was inferred of some particles of a file, a row for each of them all."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.records import Pose


def among_all(used: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return values of the particles that were inferred, and NaN of the others.

    Parameters
    ----------
    used : Tensor of bool, shape (n,)
        Which were inferred.
    values : mapping of str to Tensor, each of shape (k, ...)
        Of those.
    """
    rows = {}
    for name, value in values.items():
        whole = value.new_full((len(used), *value.shape[1:]), torch.nan)
        whole[used] = value
        rows[name] = whole
    return rows


def with_found(
    particles: Particles,
    used: Tensor,
    rows: Mapping[str, Tensor],
    random_subset: Tensor,
    columns: Mapping[str, NDArray[Any]],
) -> Particles:
    """Return all particles of a file with the poses and half-sets of some.

    Those that were not inferred keep the pose and half-set that they came with.

    Parameters
    ----------
    particles : Particles
        All n.
    used : Tensor of bool, shape (n,)
        Which were inferred.
    rows : mapping of str to Tensor
        Of :func:`among_all`, ``rotation`` and ``shift_angstrom`` among them.
    random_subset : Tensor of int64, shape (k,)
        Of those that were inferred.
    columns : mapping of str to ndarray, each of shape (n,)
        What else is written.
    """
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(used), 1, 1)
    shift = torch.zeros(len(used), 2, dtype=torch.float64)
    if particles.pose is not None:
        rotation[~used] = particles.pose.rotation[~used].double()
        shift[~used] = particles.pose.shift_angstrom[~used].double()
    rotation[used] = rows["rotation"][used]
    shift[used] = rows["shift_angstrom"][used]
    half = 1 + torch.arange(len(used)) % 2
    if particles.random_subset is not None:
        half = particles.random_subset.clone()
    half[used] = random_subset
    return particles.with_results(
        pose=Pose(rotation, shift), random_subset=half, columns=columns
    )


def width_columns(
    covariance: Tensor, log_likelihood: Tensor
) -> dict[str, NDArray[Any]]:
    """Return the columns of the widths of poses and of log-likelihoods.

    Parameters
    ----------
    covariance : Tensor, shape (n, d, d)
        Of rotation vector, shift and more; NaN where nothing was inferred.
    log_likelihood : Tensor, shape (n,)
    """
    variance = covariance.diagonal(dim1=1, dim2=2)
    return {
        "cryoinferRotationSdDegrees": column(
            torch.rad2deg(variance[:, :3].mean(1).sqrt())
        ),
        "cryoinferShiftSdAngst": column(variance[:, 3:5].mean(1).sqrt()),
        "rlnLogLikeliContribution": column(log_likelihood),
    }


def column(values: Tensor) -> NDArray[np.float64]:
    """Return a column of a file, with 0 in place of NaN."""
    return np.asarray(values.double().nan_to_num().numpy())
