"""Whether a curved field says more of images that it was not made of than a subspace.

Each half-set gets a field of its own, and the other half's images tell how likely they
are in it. A linear subspace is a field of degree 1, so that both are made and judged in
the same way: from the same z, in as many iterations.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.inference.field_conformation import field_conformation_at
from cryoinfer.inference.field_projector import FieldProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.workflows.field_loop import FieldLoop
from cryoinfer.workflows.field_update import field_projector
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.subspace_evidence import divided

ITERATIONS = 6


def held_out_evidence(
    loop: FieldLoop, posterior: ParticlePosterior, name: str, monitor: Monitor
) -> Tensor:
    """Make a field of each half-set, and return how likely the other's images are.

    Parameters
    ----------
    loop : FieldLoop
    posterior : ParticlePosterior
        Of its particles, in a subspace of at least as many dimensions.
    name : str
        Of the field.
    monitor : Monitor

    Returns
    -------
    Tensor of float64, shape (n,)
        Log evidence in nats, up to a constant of the image.
    """
    found = torch.full((len(posterior),), torch.nan, dtype=torch.float64)
    poses = posterior.mode()
    for half in (0, 1):
        rows = torch.nonzero(loop.problem.half == half).squeeze(1)
        others = torch.nonzero(loop.problem.half != half).squeeze(1)
        own = replace(loop, problem=divided(loop.problem.of_rows(rows), seed=half))
        said = f"{name} of a half-set"
        state = own.taught(posterior[rows], said, monitor)
        state = own.iterated(state, ITERATIONS, said, monitor)
        projector = field_projector(state.field, loop.radius)
        found[others] = _evidence(
            loop, loop.problem.of_rows(others), projector, poses[others], monitor
        )
    return found


def _evidence(
    loop: FieldLoop,
    judged: Problem,
    projector: FieldProjector,
    poses: Latents,
    monitor: Monitor,
) -> Tensor:
    source = StrictImages(judged.grid, loop.radius, loop.noise)
    found = torch.full((len(judged.particles),), torch.nan, dtype=torch.float64)
    monitor.stage("held-out evidence", len(found))
    for batch in judged.batches(torch.arange(len(found))):
        images = source.prepare(batch).images
        at = batch.rows_of(poses)
        one = field_conformation_at(projector, images, at, judged.prior)
        found[batch.index.cpu()] = one.log_evidence.cpu()
        monitor.advance(len(batch))
    return found
