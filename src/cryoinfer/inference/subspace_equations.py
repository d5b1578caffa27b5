"""Normal equations of pose and z in a linear subspace of maps, on any device."""

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.compiled_refinement import (
    equations_compiled,
    subspace_loop,
)
from cryoinfer.inference.map_equations import slices_and_slopes
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations, images_at_defocus
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.operations import Operation
from cryoinfer.records import Latents


def shares(latents: Latents) -> Tensor:
    """Return what mean and components count for in each particle's map, (n, 1 + q)."""
    conformation = latents.conformation
    return torch.cat([conformation.new_ones(len(conformation), 1), conformation], 1)


def _equations_plain(
    mean: FourierVolume,
    components: tuple[FourierVolume, ...],
    images: WhitenedImages,
    latents: Latents,
    prior: PosePrior,
) -> NormalEquations:
    images, ctf_slope = images_at_defocus(images, latents, prior)
    share = shares(latents)
    rigid = latents.without_conformation()
    shown = images.coefficients.new_zeros(images.coefficients.shape)
    jacobian = shown.new_zeros(len(shown), 6, shown.shape[1])
    of_component = []
    for number, volume in enumerate((mean, *components)):
        slices, slopes = slices_and_slopes(volume, images, rigid)
        own = share[:, number, None].to(slices)
        shown += own * slices
        jacobian += own[:, None] * slopes
        if number:
            of_component.append(images.ctf * slices)
    if ctf_slope is not None:
        jacobian[:, 5] = ctf_slope * shown
    if of_component:
        jacobian = torch.cat([jacobian, torch.stack(of_component, 1)], 1)
    residual = images.moved_back(latents.pose.shift_angstrom) - images.ctf * shown
    return NormalEquations.of_residuals(residual, jacobian, prior.precision >= 0)


def _equations_compiled(
    mean: FourierVolume,
    components: tuple[FourierVolume, ...],
    images: WhitenedImages,
    latents: Latents,
    prior: PosePrior,
) -> NormalEquations:
    loop = subspace_loop(mean, components)
    return equations_compiled(loop, images, latents, prior)


subspace_normal_equations = Operation(
    "normal equations of a subspace", _equations_plain, cpu=_equations_compiled
)
"""The likelihood and its derivatives by pose, defocus and z, of n images.

Takes the mean and the components as FourierVolumes, WhitenedImages of n images, their
Latents, and a PosePrior, which says which unknowns are held.
"""
