"""Posteriors of many images, and what is asked of them in more than one measurement."""

from collections.abc import Iterable

import torch
from measure import LEVELS
from rows import Row

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation import coverage_curve
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.novelty import Fit, fit, novelty
from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.interfaces import Inference
from cryoinfer.records import Latents, ParticleBatch, Pose
from cryoinfer.workflows.dynamics import Dynamics
from cryoinfer.workflows.train import TrainedEncoder
from cryoinfer.workflows.trial import CLIMBED, SEARCHED, Trial

CHUNK = 250
DRAWS = 399
"""One less than a multiple of 20 bins and of the levels: both are then exact."""


def seeded(seed: int) -> torch.Generator:
    """Return a generator; one seed for truths and draws would tie them together."""
    return torch.Generator().manual_seed(seed)


def batches_of(particles: Particles) -> Iterable[ParticleBatch]:
    """Yield all particles in their order."""
    return particles.batches(CHUNK, torch.arange(len(particles)))


def trial_of(found: Dynamics) -> Trial:
    """Return the trial of the posteriors that motions were inferred by."""
    return found.trials[SEARCHED if SEARCHED in found.trials else CLIMBED]


def infer_all(
    inference: Inference, batches: Iterable[ParticleBatch]
) -> list[PoseMixture]:
    """Return the posteriors of every batch."""
    found = []
    for batch in batches:
        posterior = inference.infer(batch)
        assert isinstance(posterior, PoseMixture)
        found.append(posterior)
    return found


def modes(posteriors: list[PoseMixture]) -> Pose:
    """Return the best modes of all posteriors."""
    found = [posterior.mode().pose for posterior in posteriors]
    return Pose(
        torch.cat([pose.rotation for pose in found]),
        torch.cat([pose.shift_angstrom for pose in found]),
    )


def coverage(posteriors: list[PoseMixture], truths: list[Latents], name: str) -> Row:
    """Return the share of truths in the credible sets of every level."""
    generator, pairs = seeded(3), zip(posteriors, truths, strict=True)
    alone = symmetry_rotations("C1")
    levels = torch.cat([q.credible_level(t, DRAWS, generator, alone) for q, t in pairs])
    shares = coverage_curve(levels, torch.tensor(LEVELS)).tolist()
    return {
        f"{name}_{level:.0%}": share
        for level, share in zip(LEVELS, shares, strict=True)
    }


def novelty_of(
    model: TrainedEncoder,
    batches: Iterable[ParticleBatch],
    posteriors: list[PoseMixture],
) -> torch.Tensor:
    """Return how little images are like one of the map, at their posteriors' modes."""
    volume, parts = model.shown_volume, []
    for batch, posterior in zip(batches, posteriors, strict=True):
        images = model.encoder.whitened(batch, volume.radius)
        parts.append(fit(volume, images, posterior.mode(), model.prior))
    return novelty(Fit.joined(parts), model.usual)
