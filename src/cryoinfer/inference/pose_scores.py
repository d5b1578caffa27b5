"""The log-likelihood of many poses of every image, on any device."""

import torch
from torch import Tensor

from cryoinfer.fourier import trilinear
from cryoinfer.fourier.slices import FourierVolume, slice_points, slice_rows
from cryoinfer.inference import score_kernel
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.operations import Operation


def _score_plain(
    volume: FourierVolume, images: WhitenedImages, rotation: Tensor, shift: Tensor
) -> Tensor:
    factor = volume.padding * images.scale
    size = max(1, trilinear.AT_ONCE // (rotation.shape[1] * len(images.disc)))
    scores = []
    for rows in torch.arange(len(images), device=volume.device).split(size):
        few = images.select(rows)
        point = slice_points(volume.values, rotation[rows], few.disc, factor)
        # Real and imaginary parts side by side, (b, m, 2 p).
        shown = trilinear.read(volume.values, point).flatten(2)
        moved = few.moved_back(shift[rows].movedim(1, 0)) * few.ctf
        seen = torch.view_as_real(moved).flatten(2).movedim(0, 1)
        power = (
            shown.square().unflatten(2, (-1, 2)).sum(3) @ few.ctf.square()[..., None]
        )
        scores.append(2 * shown @ seen.mT - power)
    return torch.cat(scores)


def _score_compiled(
    volume: FourierVolume, images: WhitenedImages, rotation: Tensor, shift: Tensor
) -> Tensor:
    scores = torch.empty(*rotation.shape[:2], shift.shape[1])
    score_kernel.score(
        volume.values.numpy(),
        volume.centre,
        slice_rows(rotation, volume.padding * images.scale).numpy(),
        (shift / images.pixel_size_angstrom).float().contiguous().numpy(),
        images.disc.kx.numpy(),
        images.disc.ky.numpy(),
        torch.view_as_real(images.coefficients.contiguous()).numpy(),
        images.ctf.contiguous().numpy(),
        images.disc.box,
        scores.numpy(),
    )
    return scores


score_poses = Operation("scores of poses", _score_plain, cpu=_score_compiled)
"""The log-likelihood of rotations by shifts, (n, m, s), but for constants of images.

Takes a FourierVolume, WhitenedImages of n images, rotations (n, m, 3, 3), and shifts in
angstrom (n, s, 2).
"""
