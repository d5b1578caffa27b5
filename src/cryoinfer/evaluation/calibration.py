"""Is the stated uncertainty true? Coverage of Gaussian (Laplace) posteriors.

If a posterior is calibrated, the credible level at which the true value lies is
uniform in [0, 1] over the particles: 90 % of the truths fall inside the 90 % region.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_RELATIVE_RANK_TOLERANCE = 1e-10
"""Eigenvalues of a correlation matrix below this are rounding (double: 1e-15)."""


def mahalanobis_levels(
    error: Tensor, covariance: Tensor, dims: Sequence[int] | None = None
) -> Tensor:
    """Return the credible level on whose boundary each true value lies.

    ``P(chi^2_d <= e^T C^-1 e)``: the mass of the smallest region of the Gaussian that
    holds the truth. A direction without variance was not inferred: it is left out,
    and d is the rank of what remains.

    Parameters
    ----------
    error : Tensor, shape (n, d)
        True minus estimated value, in any units.
    covariance : Tensor, shape (n, d, d)
        In the same units; rows and columns of zeros where nothing was inferred.
    dims : sequence of int, optional
        The dimensions to judge; the others are marginalised. All by default.

    Returns
    -------
    Tensor of float64, shape (n,)
        In [0, 1]; NaN where nothing was inferred.
    """
    error, covariance = error.double(), covariance.double()
    if dims is not None:
        chosen = torch.as_tensor(list(dims), device=error.device)
        error = error[:, chosen]
        covariance = covariance[:, chosen][:, :, chosen]
    # Radians and angstrom of defocus differ by 1e8 in variance: judge the rank on
    # the correlation matrix, where every inferred dimension has variance 1.
    sd = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    inverse_sd = torch.where(sd > 0, 1 / sd, 0.0)
    correlation = covariance * inverse_sd[:, :, None] * inverse_sd[:, None, :]
    values, vectors = torch.linalg.eigh(correlation)
    standardised = torch.einsum("nij,ni->nj", vectors, error * inverse_sd)
    inferred = values > _RELATIVE_RANK_TOLERANCE
    terms = torch.where(inferred, standardised**2 / values, 0.0)
    freedom = inferred.sum(-1).double()
    level = torch.special.gammainc(freedom.clamp_min(1) / 2, terms.sum(-1) / 2)
    return torch.where(freedom > 0, level, torch.nan)


def coverage_curve(levels: Tensor, nominal: Tensor) -> Tensor:
    """Return the fraction of truths inside the region of each nominal level.

    A calibrated posterior gives the nominal level itself, within the binomial
    standard deviation ``sqrt(p (1 - p) / n)``; less means too confident.

    Parameters
    ----------
    levels : Tensor, shape (n,)
        From :func:`mahalanobis_levels`; NaN are left out.
    nominal : Tensor, shape (m,)
        In [0, 1].

    Returns
    -------
    Tensor of float64, shape (m,)
        NaN if no level is known.
    """
    known = levels[~levels.isnan()].double().sort().values
    inside = torch.searchsorted(known, nominal.double(), right=True)
    return inside.double() / len(known) if len(known) else inside * torch.nan
