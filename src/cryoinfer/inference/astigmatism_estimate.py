"""Astigmatism of micrographs from their particles at known poses.

A lens has one astigmatism for all particles of a micrograph, whatever their heights, so
that their sums tell it far better than each alone. With the mean defocus z and
``a = (dU - dV) / 2 cos(2 angle)``, ``b`` the same with the sine, the derivatives of a
prediction are those by the defocus times 1, ``cos(2 alpha)`` and ``sin(2 alpha)`` of
the frequency. The mean defocus is fitted along and left alone.

The offsets of all micrographs are then drawn towards what the file has, by as much as
their spread and their errors say (empirical Bayes): a micrograph of few particles keeps
nearly what it had.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryoinfer.inference.filtered_reference import scale_of_filtered
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents


@dataclass(frozen=True)
class AstigmatismSums:
    """Normal equations of m micrographs, changed in place.

    Attributes
    ----------
    information : Tensor of float64, shape (m, 3, 3)
        Of defocus, a and b; half the Fisher information.
    gradient : Tensor of float64, shape (m, 3)
    """

    information: Tensor
    gradient: Tensor

    @classmethod
    def empty(cls, micrographs: int, device: torch.device | str = "cpu") -> Self:
        """Return the sums of no image."""
        zero = torch.zeros(micrographs, 3, 3, dtype=torch.float64, device=device)
        return cls(zero, zero[:, 0].clone())

    def add(
        self,
        images: WhitenedImages,
        projector: MapProjector,
        latents: Latents,
        micrograph: Tensor,
    ) -> None:
        """Add images of micrographs (b,), compared with their half-set's map.

        How much too weak a filtered map is, is measured ring by ring of these images.
        """
        moved, slope = images.with_defocus_offset(latents.defocus_offset_angstrom)
        plain = projector.coefficients(latents, moved)
        predicted = moved.ctf * plain
        seen = moved.moved_back(latents.pose.shift_angstrom)
        disc = moved.disc
        cross = (seen * predicted.conj()).real.double().sum(0)
        power = predicted.abs().square().double().sum(0)
        scale = scale_of_filtered(cross, power, disc.ring)
        left = seen - scale.to(slope) * predicted
        along = scale * slope.double()
        x, y = disc.kx.double(), disc.ky.double()
        squared = x * x + y * y
        turned = torch.stack(
            [torch.ones_like(x), (x * x - y * y) / squared, 2 * x * y / squared], 1
        )
        both = (turned[:, :, None] * turned[:, None]).flatten(1)
        gradient = ((plain.conj() * left).real.double() * along) @ turned
        information = (plain.abs().square().double() * along.square()) @ both
        self.gradient.index_add_(0, micrograph, gradient)
        self.information.index_add_(0, micrograph, information.unflatten(1, (3, 3)))


@dataclass(frozen=True)
class AstigmatismEstimate:
    """What is to be added to a and b of every micrograph.

    Attributes
    ----------
    offset_angstrom : Tensor of float64, shape (m, 2)
        From what the file has, drawn towards it.
    sd_angstrom : Tensor of float64, shape (m, 2)
        The Cramer-Rao bound without the file, defocus unknown, poses known; infinite of
        a micrograph whose images say nothing.
    """

    offset_angstrom: Tensor
    sd_angstrom: Tensor


def estimate_astigmatism(
    sums: AstigmatismSums, before_angstrom: Tensor
) -> AstigmatismEstimate:
    """Return a Gauss-Newton step of all micrographs, and draw it towards their file.

    Parameters
    ----------
    sums : AstigmatismSums
        Of images whose optics have the offsets of before.
    before_angstrom : Tensor of float64, shape (m, 2)
        Those offsets.
    """
    information, gradient = sums.information.cpu(), sums.gradient.cpu()
    inverse, problem = torch.linalg.inv_ex(information)
    diagonal = inverse.diagonal(dim1=1, dim2=2)
    known = (problem == 0) & (diagonal > 0).all(1) & diagonal.isfinite().all(1)
    found = before_angstrom.clone()
    sd = torch.full_like(found, torch.inf)
    step = (inverse[known] @ gradient[known, :, None])[:, 1:, 0]
    found[known] += step
    sd[known] = (diagonal[known, 1:] / 2).sqrt()
    # The spread that is left when errors are taken out; weighted by what is known.
    weight = sd.pow(-2)
    total = weight.sum()
    if not float(total) > 0:
        return AstigmatismEstimate(before_angstrom, sd)
    spread = weight * (found.square() - sd.square()).nan_to_num(posinf=0.0, neginf=0.0)
    variance = (spread.sum() / total).clamp(min=0.0)
    kept = variance / (variance + sd.square())
    return AstigmatismEstimate(torch.where(kept > 0, kept * found, 0.0), sd)
