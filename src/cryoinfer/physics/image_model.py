"""p(image | latents, optics): a structure, seen by a microscope, in noise."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.interfaces import MovingStructure, Structure
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.records import Latents, Optics


@dataclass(frozen=True)
class ImageModel:
    """The probability of images.

    ``image = CTF * (projection of the structure at the pose) + noise``.

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
    ctf = evaluate_ctf(
        actual, x.flatten().to(images.device), y.flatten().to(images.device)
    )
    transform = image_to_fourier(images)
    return fourier_to_image(transform * ctf.unflatten(-1, y.shape), box)
