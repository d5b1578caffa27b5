"""Posteriors of many images, and what is asked of them in more than one measurement."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from measure import LEVELS
from rows import Row

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.calibration import coverage_curve
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.coarse import GRID_ORDER
from cryoinfer.inference.outlier_score import Fit, fit, outlier_score
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_search import PoseSearch
from cryoinfer.interfaces import Inference
from cryoinfer.records import Latents, ParticleBatch, Pose
from cryoinfer.results.calibration_trial import CLIMBED, SEARCHED, CalibrationTrial
from cryoinfer.workflows.dynamics import Dynamics
from cryoinfer.workflows.iteration import initial_search_plan
from cryoinfer.workflows.train import TrainedEncoder

CHUNK = 250
DRAWS = 399
"""One less than a multiple of 20 bins and of the levels: both are then exact."""


def seeded(seed: int) -> torch.Generator:
    """Return a generator; one seed for truths and draws would tie them together."""
    return torch.Generator().manual_seed(seed)


def batches_of(particles: Particles) -> Iterable[ParticleBatch]:
    """Yield all particles in their order."""
    return particles.batches(CHUNK, torch.arange(len(particles)))


def trial_of(found: Dynamics) -> CalibrationTrial:
    """Return the trial of the posteriors that motions were inferred by."""
    return found.trials[SEARCHED if SEARCHED in found.trials else CLIMBED]


@dataclass(frozen=True)
class Search:
    """A search of all poses on the map of an encoder, and the climbs after it.

    Of the same images, prior and radii: all that an encoder's pass takes the place of.

    Attributes
    ----------
    model : TrainedEncoder
    coarse_radius : int
        Of the exhaustive grid, as ab initio chooses it.
    """

    model: TrainedEncoder
    coarse_radius: int

    def infer(self, batch: ParticleBatch) -> ParticlePosterior:
        """Return the posterior of every particle; all must be of one optics group."""
        encoder, refinement = self.model.encoder, self.model.semi_amortized().refinement
        images = encoder.whitened(batch, refinement.radii[-1])
        step = encoder.grid.resolution_at(self.coarse_radius) / 3
        plan = initial_search_plan(self.coarse_radius, step, refinement.symmetry)
        plan = replace(plan, radius=max(refinement.radii[0], self.coarse_radius))
        search = PoseSearch(
            refinement.projector.volume,
            encoder.grid,
            encoder.noise_power[int(batch.optics.group[0])],
            refinement.prior,
            2 * refinement.prior.shift_sd_angstrom,
            GRID_ORDER,
            plan,
        )
        named = search.infer_whitened(images.prefix(plan.radius))
        return refinement.refine(images, named)


def infer_all(
    inference: Inference, batches: Iterable[ParticleBatch]
) -> list[ParticlePosterior]:
    """Return the posteriors of every batch."""
    found = []
    for batch in batches:
        posterior = inference.infer(batch)
        assert isinstance(posterior, ParticlePosterior)
        found.append(posterior)
    return found


def modes(posteriors: list[ParticlePosterior]) -> Pose:
    """Return the best modes of all posteriors."""
    found = [posterior.mode().pose for posterior in posteriors]
    return Pose(
        torch.cat([pose.rotation for pose in found]),
        torch.cat([pose.shift_angstrom for pose in found]),
    )


def coverage(
    posteriors: list[ParticlePosterior], truths: list[Latents], name: str
) -> Row:
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
    posteriors: list[ParticlePosterior],
) -> torch.Tensor:
    """Return how little images are like one of the map, at their posteriors' modes."""
    volume, parts = model.shown_volume, []
    for batch, posterior in zip(batches, posteriors, strict=True):
        images = model.encoder.whitened(batch, volume.radius)
        parts.append(fit(volume, images, posterior.mode(), model.prior))
    return outlier_score(Fit.joined(parts), model.inliers)
