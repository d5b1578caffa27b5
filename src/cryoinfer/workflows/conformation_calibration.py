"""Posteriors of pose and z by search, tried on images whose truth is known.

Images are simulated from the subspace, through CTFs and noise of the particles, and
searched and refined as the particles are. The curvature at a mode tells its width too
narrow where an image says little: by how much is measured on half of the images, and
what posteriors of that width are worth on the others (simulation-based calibration).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.inference.covariance_inflation import inflation_near_truths
from cryoinfer.inference.linear_conformation import LinearConformation
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.training_images import TrainingImages, drawn_batches
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.workflows.particle_contrast import without_contrast
from cryoinfer.workflows.simulated_images import templates_of
from cryoinfer.workflows.subspace_loop import SEARCHED_MODES, SubspaceLoop
from cryoinfer.workflows.subspace_update import Subspace

IMAGES = 2000
"""Half of which tell a share of a half to within 1.6 points (a standard deviation)."""


@dataclass(frozen=True)
class CalibratedSearch:
    """What simulated images say of the posteriors of a search in a subspace.

    Attributes
    ----------
    inflation : Tensor of float64, shape (6 + c,)
        What standard deviations are to be multiplied by; 1 or more.
    trial : CalibrationTrial
        Of posteriors so widened, on images that this was not measured on.
    """

    inflation: Tensor
    trial: CalibrationTrial


def searched_posterior(
    loop: SubspaceLoop, subspace: Subspace, images: WhitenedImages
) -> ParticlePosterior:
    """Return posteriors of images as those of particles are found.

    Parameters
    ----------
    loop : SubspaceLoop
    subspace : Subspace
    images : WhitenedImages
        To the radius of its maps.
    """
    config, prior = loop.config, loop.problem.prior
    near, far = map(subspace.projector, (config.radius, config.map_radius))
    search = LinearConformation(loop.search)
    found = search.infer(images.prefix(config.radius), near, prior, None)
    found = found.best(SEARCHED_MODES)
    found = LinearConformation(GivenPoses()).infer(images, far, prior, found)
    return loop.refinement.infer(images, far, prior, found)


def calibrate_search(
    loop: SubspaceLoop,
    subspace: Subspace,
    shift_sd_angstrom: float,
    monitor: Monitor,
    images: int = IMAGES,
) -> CalibratedSearch:
    """Try the posteriors of a search on simulated images.

    Parameters
    ----------
    loop : SubspaceLoop
        That finds the posteriors of particles.
    subspace : Subspace
    shift_sd_angstrom : float
        Spread of the particles' shifts.
    monitor : Monitor
    images : int, optional
    """
    # Templates are few, and lie in the memory of the processor.
    problem = loop.problem.on("cpu")
    loop = replace(loop, problem=problem)
    generator = torch.Generator().manual_seed(loop.config.seed + 1)
    radius = loop.config.map_radius
    templates = templates_of(
        problem.particles, problem.grid, radius, loop.noise, generator
    )
    # Beyond the shifts that are searched nothing is found.
    spread = min(shift_sd_angstrom, problem.max_shift_angstrom / 3)
    prior = replace(problem.prior, shift_sd_angstrom=spread)
    source = TrainingImages(subspace.projector(radius), templates, prior)
    monitor.stage("calibration of posteriors", images)
    found = [
        (searched_posterior(loop, subspace, batch), truth)
        for batch, truth in _advancing(source, images, generator, monitor)
    ]
    half = len(found) // 2
    inflation = inflation_near_truths(found[:half], problem.symmetry_rotation)
    wide = [(posterior.inflated(inflation), truth) for posterior, truth in found[half:]]
    if subspace.contrast_sd:
        wide = [_of_z_alone(one, truth, subspace.contrast_sd) for one, truth in wide]
    posteriors, truths = zip(*wide, strict=True)
    draws = torch.Generator().manual_seed(loop.config.seed + 2)
    trial = CalibrationTrial.of(posteriors, truths, problem.symmetry_rotation, draws)
    return CalibratedSearch(inflation, trial)


def _advancing(
    source: TrainingImages, images: int, generator: torch.Generator, monitor: Monitor
) -> Iterator[tuple[WhitenedImages, Latents]]:
    for batch, truth in drawn_batches(source, images, generator):
        yield batch, truth
        monitor.advance(len(batch))


def _of_z_alone(
    posterior: ParticlePosterior, truth: Latents, contrast_sd: float
) -> tuple[ParticlePosterior, Latents]:
    alone, _ = without_contrast(posterior, contrast_sd)
    true, _ = without_contrast(ParticlePosterior.at(truth, 1), contrast_sd)
    return alone, true.mode()
