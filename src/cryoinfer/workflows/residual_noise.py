"""The noise of images by what a map leaves of them, which lacks what it has learnt."""

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import SliceAccumulator
from cryoinfer.reconstruction.backproject import shell_sums
from cryoinfer.workflows.problem import Problem


def own_share(problem: Problem, sums: SliceAccumulator, shells: int) -> Tensor:
    """Return the share of a particle's own image in the sums, shape (shells,).

    Its noise is missing from its residual twice over by this share of the reference,
    that is times the Wiener filter and what the mask leaves.
    """
    disc = FourierDisc.of_box(problem.grid.box, sums.radius)
    images = len(problem.particles) / 2 * len(problem.symmetry_rotation)
    inserted = images * torch.bincount(disc.ring, minlength=shells)[:shells]
    returned = torch.zeros(shells)
    measured = shell_sums(sums).returned[:shells]
    returned[: len(measured)] = measured
    return (returned / inserted.clamp(min=1)).clamp(max=0.3)


def measured_noise(
    before: tuple[Tensor, ...], ratios: tuple[Tensor, ...], hidden: Tensor
) -> tuple[Tensor, ...]:
    """Return noise power times that of the residual, where it was measured.

    ``hidden`` is by shell what the residual lacks; beyond the last it repeats.
    """
    noise = []
    for spectrum, ratio in zip(before, ratios, strict=True):
        shell = torch.arange(len(ratio)).clamp(max=len(hidden) - 1)
        measured = torch.where(ratio > 0, ratio * hidden[shell], torch.ones(()))
        measured[0] = measured[1]
        noise.append(spectrum * measured.clamp(min=1e-6))
    return tuple(noise)
