"""Is the stated uncertainty true? Credible levels and ranks of true values.

If a posterior is calibrated, the credible level at which the true value lies is
uniform in [0, 1] over the particles: 90 % of the truths fall inside the 90 % region.
Levels come from Gaussians (Laplace posteriors) in closed form, and from draws of any
posterior by the truth's rank among them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import geodesic_angle

_MOST_BINS = 20
_FEWEST_EXPECTED = (
    10  # ranks a bin, on average: the sum of squares is then a chi-square's
)
_NOMINAL_LEVELS = 101

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
        From :func:`mahalanobis_levels`, :func:`rank_levels` or :func:`tarp_levels`;
        NaN are left out.
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


def posterior_ranks(truth: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
    """Return how many posterior draws lie below the truth: simulation-based ranks.

    If truths are drawn from the prior and the posteriors are exact, all ranks are
    equally likely (Talts et al., arXiv:1804.06788, 2018). That holds for any number
    that is computed from the unknowns, and from the image if need be (Modrak et al.,
    Bayesian Analysis 20, 461-488, 2025): a shift, a defocus, a distance from the mode.

    Parameters
    ----------
    truth : Tensor, shape (n,)
        The number at the true values.
    draws : Tensor, shape (l, n)
        The number at l independent draws from each posterior.
    generator : torch.Generator
        Ranks among equals are drawn from it.

    Returns
    -------
    Tensor of int64, shape (n,)
        0 to l.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    if draws.dim() != 2 or draws.shape[1:] != truth.shape:
        raise InputError(
            f"expected draws of shape (l, {len(truth)}), found {tuple(draws.shape)}: "
            "compute the number at every draw of every truth's posterior"
        )
    below = (draws < truth).sum(0)
    equal = (draws == truth).sum(0)
    return below + (_uniform(equal, generator) * (equal + 1)).long()


def rotation_ranks(
    truth: Tensor, draws: Tensor, reference: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the ranks of the rotations' geodesic distances from references.

    Parameters
    ----------
    truth : Tensor, shape (n, 3, 3)
    draws : Tensor, shape (l, n, 3, 3)
    reference : Tensor, shape (n, 3, 3)
        The posteriors' modes, or anything else that does not know the truth.
    generator : torch.Generator

    Returns
    -------
    Tensor of int64, shape (n,)
        As :func:`posterior_ranks`: high where the truth is farther than expected.
    """
    apart = geodesic_angle(draws, reference)
    return posterior_ranks(geodesic_angle(truth, reference), apart, generator)


def rank_uniformity_p_value(ranks: Tensor, draws: int) -> float:
    """Return the probability of ranks as uneven as these if posteriors are exact.

    Pearson's chi-square over at most 20 bins, of ten or more expected ranks on
    average: where the bins do not divide ``draws + 1``, some expect fewer. Unlike
    Kolmogorov and Smirnov's test it is exact about ranks being integers, and it sees
    what is symmetric, too wide or too narrow a posterior, as well as a bias.

    Parameters
    ----------
    ranks : Tensor of int64, shape (n,)
        0 to ``draws``, from :func:`posterior_ranks`.
    draws : int
        How many draws they are among.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If there are too few ranks for two such bins, or some lie outside.
    """
    bins = min(draws + 1, _MOST_BINS, len(ranks) // _FEWEST_EXPECTED)
    if bins < 2 or int(ranks.min()) < 0 or int(ranks.max()) > draws:
        raise InputError(
            f"expected {2 * _FEWEST_EXPECTED} ranks or more from 0 to {draws}, found "
            f"{len(ranks)} values: rank more truths, among that many draws"
        )
    # Bins may hold one rank more or less than others, which the expectation knows.
    bin_of = torch.arange(draws + 1) * bins // (draws + 1)
    expected = torch.bincount(bin_of) * (len(ranks) / (draws + 1))
    found = torch.bincount(bin_of[ranks], minlength=bins)
    chi_square = ((found - expected).square() / expected).sum().double()
    half = torch.tensor((bins - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half, chi_square / 2))


def rank_levels(ranks: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Spread ranks over the unit interval, for :func:`coverage_curve`.

    Parameters
    ----------
    ranks : Tensor of int64, shape (n,)
    draws : int
        How many draws they are among.
    generator : torch.Generator
        A rank is drawn from its interval of length ``1 / (draws + 1)``: levels are
        exactly uniform if the ranks are.

    Returns
    -------
    Tensor of float64, shape (n,)
        In [0, 1).
    """
    return (ranks + _uniform(ranks, generator)) / (draws + 1)


def tarp_levels(
    truth_distance: Tensor, draw_distance: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the credible levels of truths in balls about random points.

    The share of draws that lie nearer to the random point than the truth does: the
    mass of the ball on whose surface the truth lies (tests of accuracy with random
    points, Lemos et al., ICML 2023). Any distance will do: on rotations, shifts and
    defoci jointly, for example. Points must not know the truth. Far from a narrow
    posterior they test one direction of it; one more draw is a good point.

    Parameters
    ----------
    truth_distance : Tensor, shape (n,)
        From each posterior's random point to the truth.
    draw_distance : Tensor, shape (l, n)
        From the same points to l draws.
    generator : torch.Generator

    Returns
    -------
    Tensor of float64, shape (n,)
        In [0, 1); its :func:`coverage_curve` is the expected coverage.
    """
    ranks = posterior_ranks(truth_distance, draw_distance, generator)
    return rank_levels(ranks, len(draw_distance), generator)


def expected_calibration_error(levels: Tensor) -> float:
    """Return the mean of |coverage - nominal| over nominal levels from 0 to 1.

    Of n calibrated posteriors it is about ``0.31 / sqrt(n)``: the mean absolute value
    of a Brownian bridge, ``sqrt(pi / 32)``.

    Parameters
    ----------
    levels : Tensor, shape (n,)
        From :func:`mahalanobis_levels`, :func:`rank_levels` or :func:`tarp_levels`.

    Returns
    -------
    float
        0 to 0.5.
    """
    nominal = torch.linspace(0, 1, _NOMINAL_LEVELS, dtype=torch.float64)
    return float((coverage_curve(levels, nominal) - nominal).abs().mean())


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64)
