"""p(image | latents, optics): a structure, seen by a microscope, in noise."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.fourier.distortion import (
    distorted_transform,
    is_distorted,
    mapped_frequencies,
)
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.interfaces import MovingStructure, Structure
from cryoinfer.physics.aberrations import has_odd_aberrations, turned_phases
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.records import Latents, Optics


@dataclass(frozen=True)
class ImageModel:
    """The probability of images.

    ``image = CTF * (projection of the structure at the pose) + noise``, the image
    without noise turned and distorted as the optics have it
    (:mod:`cryoinfer.physics.aberrations`, :mod:`cryoinfer.fourier.distortion`).

    Attributes
    ----------
    structure : Structure, or MovingStructure where latents have a conformation
    noise : GaussianNoise
        Of all particles; where optics groups differ, use one model a group.
    box : int
        Size of the images.
    """

    structure: Structure | MovingStructure
    noise: GaussianNoise
    box: int

    def mean(self, latents: Latents, optics: Optics) -> Tensor:
        """Return the images without noise.

        Parameters
        ----------
        latents : Latents
            Of n particles; the defocus offset is added to both defoci, the conformation
        is the structure's.
        optics : Optics
            Of the same particles; their pixel sizes may differ.

        Returns
        -------
        Tensor, shape (n, box, box)
        """
        sizes, member = optics.pixel_size_angstrom.unique(return_inverse=True)
        parts = []
        for i, pixel_size_angstrom in enumerate(sizes.tolist()):
            index = torch.nonzero(member == i).squeeze(1)
            structure = self._structure_of(latents, index)
            images = structure.project(
                latents.pose[index], self.box, pixel_size_angstrom
            )
            offset = latents.defocus_offset_angstrom[index]
            parts.append(_apply_ctf(images, optics[index], offset, pixel_size_angstrom))
        order = torch.argsort(member, stable=True)
        return torch.cat(parts)[torch.argsort(order)]

    def _structure_of(self, latents: Latents, index: Tensor) -> Structure:
        if not latents.conformation.shape[-1]:
            return self.structure
        moving = self.structure
        if not hasattr(moving, "at"):
            raise ValueError(
                "latents with a conformation need a structure that has conformations, "
                f"got {type(moving).__name__}"
            )
        moved: Structure = moving.at(latents.conformation[index])
        return moved

    def sample(
        self, latents: Latents, optics: Optics, generator: torch.Generator
    ) -> Tensor:
        """Draw images, shape (n, box, box)."""
        mean = self.mean(latents, optics)
        return mean + self.noise.sample(len(latents), self.box, generator).to(mean)

    def log_prob(self, images: Tensor, latents: Latents, optics: Optics) -> Tensor:
        """Return the log density of images of shape (n, box, box), in nats, (n,)."""
        return self.noise.log_prob(images - self.mean(latents, optics))


def _apply_ctf(
    images: Tensor,
    optics: Optics,
    defocus_offset_angstrom: Tensor,
    pixel_size_angstrom: float,
) -> Tensor:
    """Multiply the transforms of images that share a pixel size by their CTFs."""
    box = images.shape[-1]
    rows = torch.fft.fftfreq(box, pixel_size_angstrom, dtype=images.dtype)
    columns = torch.fft.rfftfreq(box, pixel_size_angstrom, dtype=images.dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    actual = replace(
        optics,
        defocus_u_angstrom=optics.defocus_u_angstrom + defocus_offset_angstrom,
        defocus_v_angstrom=optics.defocus_v_angstrom + defocus_offset_angstrom,
    )
    frequencies = x.flatten().to(images.device), y.flatten().to(images.device)
    if is_distorted(optics.magnification):
        # While a projection ends within the box; what the CTF spreads may not.
        images = _distorted(images, optics.magnification)
        frequencies = mapped_frequencies(optics.magnification, *frequencies)
    ctf = evaluate_ctf(actual, *frequencies).unflatten(-1, y.shape)
    transform = image_to_fourier(images) * ctf
    if has_odd_aberrations(optics):
        turned = turned_phases(optics, *frequencies)
        transform = transform * turned.unflatten(-1, y.shape)
    return fourier_to_image(transform, box)


def _distorted(images: Tensor, magnification: Tensor) -> Tensor:
    """Return images distorted by a matrix each, of which there are few."""
    matrices, member = magnification.unique(dim=0, return_inverse=True)
    seen = torch.empty_like(images)
    for i, matrix in enumerate(matrices):
        own = member == i
        transform = distorted_transform(images[own], matrix)
        seen[own] = fourier_to_image(transform, images.shape[-1])
    return seen
