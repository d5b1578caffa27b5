"""Whether components say anything of images that they were not made of.

Each half-set gets a subspace of its own, from random z. The other half's images then
tell how much likelier they are with each further component than without any: noise that
a half has learnt makes images of the other half less likely, not more.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.inference.linear_conformation import evidence_of_first_components
from cryoinfer.inference.outlier_score import is_outlier
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Indexable, Latents
from cryoinfer.results.heterogeneity import HeldOutGain
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_pass import (
    ImageSource,
    InferredBatch,
    ParticlePass,
    run_pass,
)
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.subspace_loop import FIRST_INFLATION, SubspaceLoop

_ITERATIONS = 10

_JUDGED = 5000
"""Unseen particles that tell what components are worth, to 1.4 % of the spread of their
gains (a standard error)."""


@dataclass(frozen=True)
class _Gains(Indexable):
    """Of the first k components over none, for k of 1 to q: nats, (n, q)."""

    nats: Tensor


def held_out_gain(loop: SubspaceLoop, poses: Latents, monitor: Monitor) -> HeldOutGain:
    """Find a subspace of each half-set, and try it on the other.

    Parameters
    ----------
    loop : SubspaceLoop
    poses : Latents
        Of all its particles, found by both halves together.
    monitor : Monitor
    """
    gains = []
    for half in (0, 1):
        rows = torch.nonzero(loop.problem.half == half).squeeze(1)
        others = torch.nonzero(loop.problem.half != half).squeeze(1)
        alone = divided(loop.problem.of_rows(rows), loop.config.seed)
        own = replace(loop, problem=alone)
        known = poses[rows]
        state = own.at_poses(
            own.begun(known),
            "subspace of a half-set",
            _ITERATIONS,
            FIRST_INFLATION,
            monitor,
        )
        state = own.in_principal_axes(state)
        assert state.subspace is not None
        projector = state.subspace.projector(loop.config.radius, alone.device)
        images = StrictImages(loop.problem.grid, loop.config.radius, loop.noise)
        judged = loop.problem.of_rows(others)
        always = int(loop.config.contrast)
        gains.append(_gains(judged, images, projector, poses[others], monitor, always))
    return _summary(torch.cat(gains))


def _summary(gain: Tensor) -> HeldOutGain:
    """Return means and standard errors of gains of n particles, (n, q)."""
    step = torch.diff(gain, dim=1, prepend=torch.zeros_like(gain[:, :1]))
    root = len(gain) ** 0.5
    return HeldOutGain(
        tuple(gain.mean(0).tolist()),
        tuple((gain.std(0) / root).tolist()),
        tuple(step.mean(0).tolist()),
        tuple((step.std(0) / root).tolist()),
    )


def divided(problem: Problem, seed: int) -> Problem:
    """Return the problem of one half-set, divided anew: its filter needs two."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(problem.particles), generator=generator)
    return replace(problem, half=order % 2)


def judging_rows(outlier_score_nats: Tensor, generator: torch.Generator) -> Tensor:
    """Draw some of the particles that show the maps, to judge a subspace by.

    Parameters
    ----------
    outlier_score_nats : Tensor, shape (n,)
    generator : torch.Generator

    Returns
    -------
    Tensor of int64
        Ascending, at most 5,000; empty where no particle shows them.
    """
    shows = torch.nonzero(~is_outlier(outlier_score_nats)).squeeze(1)
    drawn = torch.randperm(len(shows), generator=generator)[:_JUDGED]
    return shows[drawn].sort().values


def gain_of_unseen(
    problem: Problem,
    source: ImageSource,
    projector: SubspaceProjector,
    poses: Latents,
    monitor: Monitor,
    always: int = 0,
) -> HeldOutGain:
    """Try a subspace on particles that it was not made of.

    Parameters
    ----------
    problem : Problem
        Of these particles.
    source : ImageSource
        To the projector's radius or farther.
    projector : SubspaceProjector
    poses : Latents
    monitor : Monitor
    always : int
        First numbers of a conformation that are no components: 1 with a contrast.
    """
    return _summary(_gains(problem, source, projector, poses, monitor, always))


def _gains(
    problem: Problem,
    source: ImageSource,
    projector: SubspaceProjector,
    poses: Latents,
    monitor: Monitor,
    always: int,
) -> Tensor:
    """Return the gain of the first k components over none, nats, (n, q)."""

    def gains(one: InferredBatch[SubspaceProjector]) -> _Gains:
        images = one.images.prefix(projector.radius)
        at = one.posterior.mode()
        evidence = evidence_of_first_components(
            projector, images, at, problem.prior, always
        )
        return _Gains(evidence[:, 1:] - evidence[:, :1])

    step = ParticlePass(
        "held-out evidence",
        source,
        (projector, projector),
        problem.prior,
        GivenPoses(),
        gains,
    )
    known = ParticlePosterior.at(poses, 1)
    shape = len(poses), len(projector.components) - always
    blank = _Gains(torch.full(shape, torch.nan, dtype=torch.float64))
    found = run_pass(problem, step, known, blank, monitor).nats
    return found[~found.isnan().any(1)]  # those that could be read
