"""The widths of posteriors, fitted to images whose truth is known.

While an encoder learns, its errors fall, and the widths that it states follow: where a
training ends they are still too large, by up to a half. The widths that the curvature
of a top tells are too small where an image says little. A factor for every kind of
unknown, the same for all images, takes either away.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import rotation_vector
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_network import MixtureParameters
from cryoinfer.records import Latents

_ROUNDS = 50  # of the minimiser, at most

_NEAR_SDS = 6.0
"""A truth that lies farther from a mode in any unknown belongs to another top, which no
width should reach."""

_LEVEL, _SDS_AT_LEVEL = 0.8, 1.2816
"""Share of the truths within as many standard deviations: far enough out for the tails
to count, and of those that refinement led to another mode no more than a few."""


def fitted_narrowing(
    parameters: MixtureParameters, rotation: Tensor, offset: Tensor, symmetry: Tensor
) -> Tensor:
    """Return by how much widths are to be divided for the truths to be likeliest.

    Parameters
    ----------
    parameters : MixtureParameters
        Of n images.
    rotation : Tensor, shape (n, 3, 3)
        True rotations.
    offset : Tensor, shape (n, d - t)
        True shifts, defoci and conformations, over the prior's sd.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is, the identity among them.

    Returns
    -------
    Tensor, shape (d,)
        One number for the rotation's unknowns, one for each other.
    """
    others = offset.shape[-1]
    turns = parameters.factor.shape[-1] - others
    of_unknown = torch.tensor([0] * turns + list(range(1, 1 + others)))
    logs = torch.zeros(1 + others, requires_grad=True)
    minimiser = torch.optim.LBFGS(
        [logs], max_iter=_ROUNDS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        minimiser.zero_grad()
        factor = logs.exp()[of_unknown][:, None] * parameters.factor
        narrowed = replace(parameters, factor=factor)
        value = -narrowed.log_prob_of_orbit(rotation, offset, symmetry).mean()
        value.backward()
        return value

    minimiser.step(loss)
    return logs.detach().exp()[of_unknown]


def fitted_inflation(
    posteriors: Sequence[ParticlePosterior], truths: Sequence[Latents]
) -> Tensor:
    """Return what standard deviations are to be multiplied by to hold the truths.

    Of the first mode, so that 80 % of the truths, unknown by unknown, lie within
    1.28 of them. One number for all directions of rotation, one for the shifts, one
    for the defocus, and one for all amplitudes.

    Parameters
    ----------
    posteriors : sequence of ParticlePosterior
    truths : sequence of Latents
        Of the same images.

    Returns
    -------
    Tensor of float64, shape (6 + c,)
        1 for what was held.
    """
    pairs = zip(posteriors, truths, strict=True)
    ratio = torch.cat([_departure(posterior, truth) for posterior, truth in pairs])
    factor = torch.ones(ratio.shape[1], dtype=torch.float64)
    for kind in (slice(0, 3), slice(3, 5), slice(5, 6), slice(6, None)):
        # What was held has a variance of zero.
        free = ratio[:, kind][ratio[:, kind].isfinite()]
        if len(free):
            factor[kind] = free.quantile(_LEVEL) / _SDS_AT_LEVEL
    return factor


def inflation_near_truths(
    found: Iterable[tuple[ParticlePosterior, Latents]], symmetry: Tensor
) -> Tensor:
    """Return what the widths of modes near the truths are to be multiplied by.

    Parameters
    ----------
    found : iterable of (ParticlePosterior, Latents)
        Posteriors of batches of images, and their truths; only modes near a truth are
        kept of each.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is, the identity among them.

    Returns
    -------
    Tensor of float64, shape (6 + c,)
        1 or more. Ones, if most modes are far from the truths: no width is true of
        those.
    """
    modes, truths, count = [], [], 0
    for posterior, truth in found:
        mode, near = nearest_modes(posterior, truth, symmetry)
        modes.append(mode)
        truths.append(near)
        count += len(truth)
    if 2 * sum(len(mode) for mode in modes) < count:
        return torch.ones(modes[0].covariance.shape[-1]).double()
    return fitted_inflation(modes, truths).clamp(min=1.0)


def nearest_modes(
    posterior: ParticlePosterior, truth: Latents, symmetry: Tensor
) -> tuple[ParticlePosterior, Latents]:
    """Return the mode nearest to each truth, and the truth, where one is near.

    Parameters
    ----------
    posterior : ParticlePosterior
        Of n images.
    truth : Latents
        Of length n.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is, the identity among them.

    Returns
    -------
    ParticlePosterior
        One mode for each of the images of which a mode is within six standard
        deviations of the truth, in every unknown.
    Latents
        The mates of the truths that are nearest to these.
    """
    rows, rotation = torch.arange(len(posterior)), truth.pose.rotation
    every = range(posterior.weight.shape[1])
    modes = [posterior.mode_alone(torch.full_like(rows, place)) for place in every]
    mates = [
        nearest_mates(rotation, one.modes.pose.rotation[:, 0], symmetry)
        for one in modes
    ]
    apart = torch.stack(
        [
            _departure(mode, _turned(truth, mate)).nan_to_num(0.0, 0.0).amax(1)
            for mode, mate in zip(modes, mates, strict=True)
        ]
    )
    nearest, place = torch.where(posterior.weight.T > 0, apart, torch.inf).min(0)
    near = nearest < _NEAR_SDS
    truth = _turned(truth, torch.stack(mates)[place, rows])
    return posterior.mode_alone(place)[near], truth[near]


def _turned(truth: Latents, rotation: Tensor) -> Latents:
    return replace(truth, pose=replace(truth.pose, rotation=rotation))


def _departure(posterior: ParticlePosterior, truth: Latents) -> Tensor:
    """Return truths less first modes, over their standard deviations, (n, 6 + c)."""
    turn = rotation_vector(truth.pose.rotation @ posterior.mode().pose.rotation.mT)
    away = truth.offsets_angstrom - posterior.mode().offsets_angstrom
    variance = posterior.covariance[:, 0].diagonal(dim1=1, dim2=2)
    return torch.cat([turn, away], 1).abs() / variance.sqrt()
