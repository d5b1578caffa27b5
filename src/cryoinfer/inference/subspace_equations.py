"""Normal equations of pose and z in a linear subspace of maps, on any device."""

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference import subspace_kernel
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
    images, ctf_slope = images_at_defocus(images, latents, prior)
    disc, n, p = images.disc, len(latents), len(images.disc)
    kx, ky, share = disc.kx.numpy(), disc.ky.numpy(), shares(latents).float()
    factor = mean.padding * images.scale
    rotation = (latents.pose.rotation * factor).float().contiguous().numpy()
    total, own = torch.zeros(n, 8, p), torch.empty(1 + len(components), n, 2, p)
    for number, volume in enumerate((mean, *components)):
        subspace_kernel.add_slices_and_slopes(
            volume.values.numpy(),
            volume.centre,
            rotation,
            kx,
            ky,
            share[:, number].contiguous().numpy(),
            total.numpy(),
            own[number].numpy(),
        )
    if ctf_slope is None:
        ctf_slope = images.ctf.new_empty((n, 0))
    seen = images.moved_back(latents.pose.shift_angstrom)
    unknowns = 6 + len(components)
    products = torch.empty(n, unknowns + 1, unknowns + 1, dtype=torch.float64)
    subspace_kernel.add_up(
        total.numpy(),
        own[1:].numpy(),
        rotation,
        kx,
        ky,
        torch.view_as_real(seen.contiguous()).numpy(),
        images.ctf.contiguous().numpy(),
        ctf_slope.contiguous().numpy(),
        disc.box * images.pixel_size_angstrom,
        products.numpy(),
    )
    upper = products[:, :unknowns, :unknowns].triu()
    free = (prior.precision >= 0).double()
    information = upper + upper.triu(1).mT
    return NormalEquations(
        -products[:, unknowns, unknowns],
        2 * products[:, :unknowns, unknowns] * free,
        2 * information * free[:, None] * free,
    )


subspace_normal_equations = Operation(
    "normal equations of a subspace", _equations_plain, cpu=_equations_compiled
)
"""The likelihood and its derivatives by pose, defocus and z, of n images.

Takes the mean and the components as FourierVolumes, WhitenedImages of n images, their
Latents, and a PosePrior, which says which unknowns are held.
"""
