"""Every place where a posterior of few unknowns may be: nothing is taken on trust.

The view is known, the angle in its plane and the amplitudes of one or two modes are
not: the posterior is computed at every point of a grid over all angles and over the
prior's amplitudes, at a low radius; whatever stands out of its neighbourhood is a mode
that :func:`cryoinfer.evaluation.grid_posterior.grid_posterior` is to sum about.
"""

import math

import torch
from torch import Tensor

from cryoinfer.geometry.rotation_volume import IN_PLANE
from cryoinfer.geometry.rotations import turns_in_plane
from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.mode_ranking import posterior_of_modes
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, Pose

_RANGE_SD = 4.5  # of the prior, on either side
_AMPLITUDE_STEP_ANGSTROM = 0.75
_TURN_STEP = 0.75  # over the radian that moves the finest detail by half a wavelength
_LEAST_NATS = 30.0  # below the best point of an image, that may not matter later
_MOST_MODES = 8  # of an image
_STEPS = 12


def brute_force(
    projector: Projector, images: WhitenedImages, prior: PosePrior, radius: int
) -> ParticlePosterior:
    """Return every mode of the posteriors of images of a known view.

    Parameters
    ----------
    projector : Projector
    images : WhitenedImages
        Of b images, to the radius that the modes are wanted at.
    prior : PosePrior
        Of the angle in the plane and at most two amplitudes; all else is held.
    radius : int
        Fourier radius of the grid, in pixels.

    Returns
    -------
    ParticlePosterior
        Modes at their tops, with Laplace's widths and weights.

    Raises
    ------
    ValueError
        If there are other unknowns, or an amplitude is held.
    """
    open_sd = prior.unknowns_sd_angstrom[:3]
    count = len(prior.conformation_sd_angstrom)
    moving = prior.unknowns_sd_angstrom[3:] > 0
    known = bool((open_sd > 0).any()) or not bool(moving.all())
    if prior.rotation_unknowns != IN_PLANE or known or not 1 <= count <= 2:
        raise ValueError(f"expected an angle and one or two amplitudes, got {prior}")
    grid, shape = _grid(prior, radius)
    low = images.prefix(radius)
    found = []
    for row in range(len(images)):
        one = low.select(torch.tensor([row]))
        score = _log_posterior(projector, one, grid, prior).view(shape)
        chosen = _summits(score)
        chosen = chosen[score.flatten()[chosen].argsort(descending=True)][:_MOST_MODES]
        at = grid[chosen]
        whole = images.select(torch.full((len(chosen),), row))
        refined = PosteriorModes.unknown(at)
        for near in (whole.prefix(radius), whole):
            refined = refine_locally(
                projector, near, refined.latents, prior, _STEPS, reach_radian(radius)
            )
        order = refined.log_evidence(prior).argsort(descending=True)
        found.append(refined[order])
    counts = torch.tensor([len(one) for one in found])
    owner = torch.arange(len(images)).repeat_interleave(counts)
    every = PosteriorModes.joined(found)
    evidence = every.log_evidence(prior)
    return posterior_of_modes(owner, every, evidence, len(images), _MOST_MODES)


def _grid(prior: PosePrior, radius: int) -> tuple[Latents, tuple[int, ...]]:
    """Return all points and how many there are along angle and amplitudes."""
    turns = math.ceil(2 * math.pi / (_TURN_STEP / radius))
    angle = torch.arange(turns, dtype=torch.float64) * (2 * math.pi / turns)
    axes = [angle]
    for sd in prior.conformation_sd_angstrom:
        steps = math.ceil(_RANGE_SD * sd / _AMPLITUDE_STEP_ANGSTROM)
        axes.append(torch.arange(-steps, steps + 1).double() * _RANGE_SD * sd / steps)
    points = torch.cartesian_prod(*axes)
    rotation = turns_in_plane(points[:, 0])
    zero = torch.zeros(len(points), 2, dtype=torch.float64)
    latents = Latents(Pose(rotation, zero), zero[:, 0], points[:, 1:])
    return latents, tuple(len(axis) for axis in axes)


def _log_posterior(
    projector: Projector, image: WhitenedImages, grid: Latents, prior: PosePrior
) -> Tensor:
    """Return it at every point of a grid, up to a constant, shape (g,)."""
    shown = projector.coefficients(grid, image) * image.ctf
    residual = torch.view_as_real(image.coefficients - shown)
    likelihood = -residual.square().sum((1, 2)).double()
    return likelihood + prior.log_density(grid)


def _summits(score: Tensor) -> Tensor:
    """Return the flat indices of local maxima that may matter, angles going round."""
    padded = torch.nn.functional.pad(score, (1, 1) * (score.dim() - 1), value=-math.inf)
    padded = torch.cat([padded[-1:], padded, padded[:1]])
    highest = padded
    for axis in range(score.dim()):
        highest = highest.unfold(axis, 3, 1).amax(-1)
    summit = (score >= highest) & (score > score.max() - _LEAST_NATS)
    return torch.nonzero(summit.flatten()).squeeze(1)
