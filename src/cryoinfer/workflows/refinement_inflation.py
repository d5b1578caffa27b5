"""How wide refined posteriors are to be, from images whose truth is known."""

import torch
from torch import Tensor

from cryoinfer.inference.covariance_inflation import fitted_inflation, nearest_modes
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.subspace_projector import MapsProjector
from cryoinfer.inference.training_images import TrainingImages, drawn_batches
from cryoinfer.interfaces import Monitor


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
    modes, truths = [], []
    # Batch by batch: at 128 pixels 10,000 images would take a gigabyte.
    for batch, truth in drawn_batches(images, count, generator):
        found = refinement.infer(batch, images.projector, images.prior, None)
        mode, near = nearest_modes(found, truth, refinement.symmetry)
        modes.append(mode)
        truths.append(near)
        monitor.advance(len(batch))
    if 2 * sum(len(mode) for mode in modes) < count:
        return torch.ones(len(images.prior.precision)).double()
    return fitted_inflation(modes, truths).clamp(min=1.0)
