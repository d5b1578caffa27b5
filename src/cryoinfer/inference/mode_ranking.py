"""Which of the modes that were found for a particle are likely, and which are one."""

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Latents

_LEAST_WEIGHT = 1e-3
"""Of a component that is looked at beside the best."""

_HOPELESS_NATS = 12.0
"""A mode this far behind the best of its image is given up: one in 160,000."""


def ranked_posterior(
    modes: PosteriorModes,
    count: int,
    prior: PosePrior,
    same_radian: float,
    symmetry: Tensor,
) -> ParticlePosterior:
    """Return posteriors of particles that have as many modes each, best first.

    Parameters
    ----------
    modes : PosteriorModes
        Of length n times ``count``, those of a particle together.
    count : int
    prior : PosePrior
    same_radian : float
        Modes nearer than that to a better one, or to a mate of it, have no weight.
    symmetry : Tensor, shape (s, 3, 3)

    Returns
    -------
    ParticlePosterior
        Weights by Laplace's approximation.
    """
    evidence = modes.log_evidence(prior).view(-1, count)
    order = evidence.argsort(1, descending=True)
    flat = order + torch.arange(len(order), device=order.device)[:, None] * count
    latents = modes.latents[flat]
    twin = repeats(latents.pose.rotation, same_radian, symmetry)
    ranked = evidence.gather(1, order).masked_fill(twin, -torch.inf)
    return ParticlePosterior.of_modes(
        latents,
        torch.softmax(ranked, 1),
        modes.covariance()[flat],
        modes.log_likelihood[flat[:, 0]],
    )


def posterior_of_modes(
    owner: Tensor, modes: PosteriorModes, evidence: Tensor, n: int, count: int
) -> ParticlePosterior:
    """Put modes into a table; empty places repeat the best mode, with no weight.

    Parameters
    ----------
    owner : Tensor of int64, shape (m,)
        The image of each mode, not falling; each of n at least once.
    modes : PosteriorModes
        Of an image best first.
    evidence : Tensor of float64, shape (m,)
        Log weights.
    n, count : int
        Images, and places for each.
    """
    row = torch.arange(len(owner), device=owner.device)
    first = torch.searchsorted(owner, torch.arange(n, device=owner.device))
    rank = row - first[owner]
    place = first[:, None].repeat(1, count)
    place[owner, rank] = row
    weighed = evidence.new_full((n, count), -torch.inf)
    weighed[owner, rank] = evidence
    return ParticlePosterior.of_modes(
        modes.latents[place],
        torch.softmax(weighed, 1),
        modes.covariance()[place],
        modes.log_likelihood[first],
    )


def distinct_modes(
    proposed: ParticlePosterior,
    count: int,
    apart_radian: float,
    symmetry: Tensor,
    lever_angstrom: float,
) -> tuple[Tensor, Tensor]:
    """Return images and components, the first of each, that are apart.

    Parameters
    ----------
    proposed : ParticlePosterior
    count : int
        Of each image, at most; one at least.
    apart_radian : float
    symmetry, lever_angstrom
        As for :func:`repeats`.
    """
    # Likely ones first, so that no negligible one stands for its neighbours.
    order = (proposed.weight <= _LEAST_WEIGHT).byte().argsort(dim=1, stable=True)
    rows = torch.arange(len(order))[:, None]
    likely = proposed.weight[rows, order] > _LEAST_WEIGHT
    likely[:, 0] = True
    modes = proposed.modes[rows, order]
    chosen = likely & ~repeats(
        modes.pose.rotation,
        apart_radian,
        symmetry,
        modes.conformation,
        lever_angstrom,
    )
    chosen &= chosen.cumsum(1) <= count
    owner, place = torch.nonzero(chosen).unbind(1)
    return owner, order[owner, place]


def contenders(
    owner: Tensor,
    latents: Latents,
    evidence: Tensor,
    same_radian: float,
    symmetry: Tensor,
    lever_angstrom: float,
) -> Tensor:
    """Return which modes are still possible, those of an image together, best first.

    Parameters
    ----------
    owner : Tensor of int64, shape (m,)
        The image of each mode.
    latents : Latents
        Of length m.
    evidence : Tensor, shape (m,)
        In nats.
    same_radian : float
        Modes nearer than that to a better one are given up.
    symmetry, lever_angstrom
        As for :func:`repeats`.
    """
    # By image, and by falling evidence within.
    order = evidence.argsort(descending=True)
    order = order[owner[order].argsort(stable=True)]
    owner = owner[order]
    first = torch.searchsorted(owner, owner)
    rank = torch.arange(len(owner)) - first
    behind = evidence[order[first]] - evidence[order]
    # The best stays even where an image has overflowed and nothing is known.
    alive = (behind < _HOPELESS_NATS) | (rank == 0)
    for k in range(1, int(rank.max()) + 1):
        # Against each that is k places better.
        late = torch.nonzero(rank >= k).squeeze(1)
        pair = order[torch.stack([late - k, late], 1)]
        twin = repeats(
            latents.pose.rotation[pair],
            same_radian,
            symmetry,
            latents.conformation[pair],
            lever_angstrom,
        )[:, 1]
        alive[late[twin]] = False
    return order[alive]


def repeats(
    rotation: Tensor,
    radius: float,
    symmetry: Tensor,
    conformation: Tensor | None = None,
    lever_angstrom: float = 0.0,
) -> Tensor:
    """Tell which modes lie within a radius of a better one, or of a mate of it.

    Parameters
    ----------
    rotation : Tensor, shape (n, m, 3, 3)
        Best first.
    radius : float
        Radians.
    symmetry : Tensor, shape (s, 3, 3)
        Rotations that leave the map as it is, the identity among them.
    conformation : Tensor, shape (n, m, c), optional
        In angstrom; those that are farther apart than the radius moves the lever are
        no repeats.
    lever_angstrom : float

    Returns
    -------
    Tensor of bool, shape (n, m)
    """
    device, m = rotation.device, rotation.shape[1]
    found = torch.zeros(rotation.shape[:2], dtype=torch.bool, device=device)
    earlier = torch.ones(m, m, device=device).tril(-1).bool()
    if conformation is not None:
        apart = (conformation[:, :, None] - conformation[:, None]).norm(dim=-1)
        earlier = earlier & (apart <= radius * lever_angstrom)
    for mate in symmetry.to(rotation):
        angle = geodesic_angle(rotation[:, :, None], rotation[:, None] @ mate)
        found |= ((angle < radius) & earlier).any(2)
    return found
