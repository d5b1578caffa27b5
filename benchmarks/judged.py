"""Posteriors of many images, and what is asked of them in more than one measurement."""

from collections.abc import Iterable

import torch
from accuracy import LEVELS
from rows import Row

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.calibration import coverage_curve
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.outlier_score import Fit, fit, outlier_score
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import InflatedCovariance, PoseInference
from cryoinfer.inference.pose_search import GlobalSearch
from cryoinfer.records import Latents, ParticleBatch, Pose
from cryoinfer.results.calibration_trial import REFINED, SEARCHED, CalibrationTrial
from cryoinfer.workflows.dynamics import Dynamics
from cryoinfer.workflows.search_plan import search_plan
from cryoinfer.workflows.trained_encoder import TrainedEncoder

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
    return found.trials[SEARCHED if SEARCHED in found.trials else REFINED]


def map_of(model: TrainedEncoder) -> MapProjector:
    """Return the map of an encoder that has learned one, and no conformations."""
    assert isinstance(model.projector, MapProjector)
    return model.projector


def searched_refinement(
    model: TrainedEncoder, coarse_radius: int
) -> PoseInference[MapProjector]:
    """Return a search of all poses on the map of an encoder, and refinements after it.

    With the same prior and radii: all that an encoder's forward pass takes the place
    of. ``coarse_radius`` is that of the exhaustive grid, as ab initio chooses it.
    """
    refinement = model.refinement
    step = model.encoder.grid.resolution_at(coarse_radius) / 3
    radius = max(refinement.radii[0], coarse_radius)
    plan = search_plan(coarse_radius, radius, step, refinement.symmetry)
    search = GlobalSearch(plan, 2 * model.prior.shift_sd_angstrom)
    found = ModeRefinement(
        search, refinement.radii, refinement.lever_angstrom, refinement.symmetry
    )
    return InflatedCovariance(found, model.covariance_inflation)


def infer_all(
    model: TrainedEncoder,
    inference: PoseInference[MapProjector],
    batches: Iterable[ParticleBatch],
) -> list[ParticlePosterior]:
    """Return the posteriors of every batch, on the map of an encoder."""
    alone = inference is model.encoder
    projector = map_of(model)
    radius = model.encoder.radius if alone else model.refinement.radii[-1]
    return [
        inference.infer(
            model.encoder.whitened(batch, radius), projector, model.prior, None
        )
        for batch in batches
    ]


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
    shown, parts = model.shown_projector, []
    for batch, posterior in zip(batches, posteriors, strict=True):
        images = model.encoder.whitened(batch, shown.radius)
        parts.append(fit(shown, images, posterior.mode(), model.prior))
    return outlier_score(Fit.joined(parts), model.inliers)
