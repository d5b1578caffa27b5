"""How wide refined posteriors are to be, from images whose truth is known."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cryoinfer.inference.covariance_inflation import inflation_near_truths
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.subspace_projector import MapsProjector
from cryoinfer.inference.training_images import TrainingImages, drawn_batches
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Latents


def inflation_of_refinement(
    refinement: ModeRefinement[MapsProjector],
    images: TrainingImages[MapsProjector],
    count: int,
    generator: torch.Generator,
    monitor: Monitor,
) -> Tensor:
    """Return what the widths of refinements are to be multiplied by to hold the truths.

    Where an image says little, the curvature of a top tells the posterior too narrow:
    by 2.5 per cent in rotation at -10 dB (benchmarks/README.md, section 10); never too
    wide.

    Parameters
    ----------
    refinement : ModeRefinement
    images : TrainingImages
        To the last radius of the refinements.
    count : int
        Of images that are drawn.
    generator : torch.Generator
    monitor : Monitor

    Returns
    -------
    Tensor of float64, shape (6 + q,)
        1 or more. Ones, if most refinements end at other modes: no width is true of
        those.
    """
    monitor.stage("widths of refinements", count)

    def refined() -> Iterator[tuple[ParticlePosterior, Latents]]:
        # Batch by batch: at 128 pixels 10,000 images would take a gigabyte.
        for batch, truth in drawn_batches(images, count, generator):
            yield refinement.infer(batch, images.projector, images.prior, None), truth
            monitor.advance(len(batch))

    return inflation_near_truths(refined(), refinement.symmetry)
