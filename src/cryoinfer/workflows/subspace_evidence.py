"""Whether components say anything of images that they were not made of.

Each half-set gets a subspace of its own, from random z. The other half's images then
tell how much likelier they are with each further component than without any: noise that
a half has learnt makes images of the other half less likely, not more.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.inference.linear_conformation import conformation_at
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.results.heterogeneity import HeldOutGain
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.subspace_loop import FIRST_INFLATION, SubspaceLoop

_ITERATIONS = 10


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
        alone = _divided(loop.problem.of_rows(rows), loop.config.seed)
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
        projector = state.subspace.projector(loop.config.radius)
        gains.append(_gains(loop, projector, others, poses, monitor))
    gain = torch.cat(gains)
    step = torch.diff(gain, dim=1, prepend=torch.zeros_like(gain[:, :1]))
    root = len(gain) ** 0.5
    return HeldOutGain(
        tuple(gain.mean(0).tolist()),
        tuple((gain.std(0) / root).tolist()),
        tuple(step.mean(0).tolist()),
        tuple((step.std(0) / root).tolist()),
    )


def _divided(problem: Problem, seed: int) -> Problem:
    """Return the problem of one half-set, divided anew: its filter needs two."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(problem.particles), generator=generator)
    return replace(problem, half=order % 2)


def _gains(
    loop: SubspaceLoop,
    projector: SubspaceProjector,
    rows: Tensor,
    poses: Latents,
    monitor: Monitor,
) -> Tensor:
    """Return the gain of the first k components over none, nats, (n, q)."""
    problem = loop.problem.of_rows(rows)
    source = StrictImages(problem.grid, loop.config.radius, loop.noise)
    q, found = len(projector.components), []
    monitor.stage("held-out evidence", len(rows))
    for batch in problem.batches(torch.arange(len(rows))):
        images = source.prepare(batch).images
        at = batch.rows_of(poses[rows])
        evidence = []
        for count in range(q + 1):
            shown = SubspaceProjector(projector.mean, projector.components[:count])
            sd = problem.prior.conformation_sd_angstrom[:count]
            prior = replace(problem.prior, conformation_sd_angstrom=sd)
            evidence.append(conformation_at(shown, images, at, prior).log_evidence)
        gains = torch.stack(evidence, 1)
        found.append(gains[:, 1:] - gains[:, :1])
        monitor.advance(len(batch))
    return torch.cat(found)
