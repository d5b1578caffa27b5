"""Normal equations of a map's poses, on any device."""

import math

import torch
from torch import Tensor

from cryoinfer.fourier import trilinear
from cryoinfer.fourier.slices import FourierVolume, slice_points
from cryoinfer.inference.compiled_refinement import equations_compiled, map_loop
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations, images_at_defocus
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.operations import Operation
from cryoinfer.records import Latents


def _equations_plain(
    volume: FourierVolume, images: WhitenedImages, latents: Latents, prior: PosePrior
) -> NormalEquations:
    images, ctf_slope = images_at_defocus(images, latents, prior)
    free = (prior.precision >= 0).to(volume.device)
    size = max(1, trilinear.AT_ONCE // len(images.disc))
    parts = []
    for rows in torch.arange(len(images), device=volume.device).split(size):
        few, at = images.select(rows), latents[rows]
        shown, jacobian = slices_and_slopes(volume, few, at)
        if ctf_slope is not None:
            jacobian[:, 5] = ctf_slope[rows] * shown
        # All is where the slices are, which the shift is undone for.
        residual = few.moved_back(at.pose.shift_angstrom) - few.ctf * shown
        parts.append(NormalEquations.of_residuals(residual, jacobian, free))
    return NormalEquations.joined(parts)


def slices_and_slopes(
    volume: FourierVolume, images: WhitenedImages, latents: Latents
) -> tuple[Tensor, Tensor]:
    """Return slices (n, p), and derivatives of CTF times slice (n, 6, p).

    Those by the defocus are left at zero.
    """
    disc, factor = images.disc, volume.padding * images.scale
    rotation, ctf = latents.pose.rotation, images.ctf
    point = slice_points(volume.values, rotation, disc, factor)
    shown, slopes = trilinear.read_with_slopes(volume.values, point)
    # Along the axes of the image: exp(w) R acts on (kx, ky, 0).
    turned = (rotation * factor).to(shown)
    x, y, z = torch.einsum("nab,npb->anp", turned, slopes) * ctf
    kx, ky = disc.kx.to(ctf), disc.ky.to(ctf)
    length = disc.box * images.pixel_size_angstrom
    moved = shown * ctf * (-2j * math.pi / length)
    columns = [-ky * z, kx * z, ky * x - kx * y, kx * moved, ky * moved, 0 * shown]
    return shown, torch.stack(columns, 1)


def _equations_compiled(
    volume: FourierVolume, images: WhitenedImages, latents: Latents, prior: PosePrior
) -> NormalEquations:
    return equations_compiled(map_loop(volume), images, latents, prior)


map_normal_equations = Operation(
    "normal equations of poses", _equations_plain, cpu=_equations_compiled
)
"""The likelihood and its derivatives at latents of n images.

Takes a FourierVolume, WhitenedImages of n images, their Latents, and a PosePrior, which
says which unknowns are held.
"""
