"""A scene: particles of a small map, with a likelihood that is written out naively."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.fourier.transform import fourier_to_image
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, RADIUS, PIXEL_SIZE = 32, 12, 2.0


def blob_map(symmetric: bool = False) -> Tensor:
    """Sample Gaussian blobs; with symmetry, turned by half a turn about z as well."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(12, 3, generator=generator, dtype=torch.float64) * 3.5
    if symmetric:
        half_turn = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
        centres = torch.cat([centres, centres * half_turn])
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    x, y, z = torch.exp(-((axis - centres.T[..., None]) ** 2) / (2 * 1.2**2))
    return torch.einsum("bz,by,bx->zyx", z, y, x).float()


def microscope(n: int, pixel_size_angstrom: float) -> Optics:
    """Return optics with an astigmatic CTF, another defocus for every particle."""
    defocus = torch.linspace(6000, 14000, n, dtype=torch.float64)
    return replace(
        Optics.without_ctf(n, pixel_size_angstrom),
        cs_mm=torch.full_like(defocus, 2.7),
        amplitude_contrast=torch.full_like(defocus, 0.1),
        defocus_u_angstrom=defocus + 300,
        defocus_v_angstrom=defocus - 300,
        defocus_angle_radian=torch.full_like(defocus, 0.4),
    )


@dataclass(frozen=True)
class Scene:
    """Whitened images of known poses."""

    volume: FourierVolume
    images: WhitenedImages
    truth: Latents

    @property
    def projector(self) -> MapProjector:
        """The map as a forward model."""
        return MapProjector(self.volume)

    def model(self, rotation: Tensor, shift: Tensor, defocus: Tensor) -> Tensor:
        """Predict the whitened coefficients in float64, differentiably, (n, p).

        Written out from the conventions: trilinear interpolation, phases and CTF.
        """
        images, disc = self.images, self.images.disc
        k = torch.stack([disc.kx, disc.ky], -1).double()
        point = k @ rotation[:, :2] * (self.volume.padding * images.scale)
        mirrored = point[..., 0] < 0
        point = torch.where(mirrored[..., None], -point, point)
        grid = torch.view_as_complex(self.volume.values.double())
        centre = torch.tensor([0, self.volume.centre, self.volume.centre])
        low = point.detach().floor().long()
        part = point - low
        value = torch.zeros(point.shape[:-1], dtype=torch.complex128)
        for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
            weight = torch.where(corner == 1, part, 1 - part).prod(-1)
            x, y, z = (low + corner + centre).unbind(-1)
            value = value + weight * grid[z, y, x]
        value = torch.where(mirrored, value.conj(), value)
        length = disc.box * images.pixel_size_angstrom
        phase = torch.exp(-2j * math.pi * (shift @ k.T) / length)
        optics = replace(
            images.optics,
            defocus_u_angstrom=images.optics.defocus_u_angstrom + defocus,
            defocus_v_angstrom=images.optics.defocus_v_angstrom + defocus,
        )
        ctf = evaluate_ctf(optics, *(k.T / length)) * images.weight.double()
        return ctf * phase * value

    def loss(self, rotation: Tensor, shift: Tensor, defocus: Tensor) -> Tensor:
        """Return the squared residual of every image, (n,)."""
        residual = self.images.coefficients - self.model(rotation, shift, defocus)
        return residual.abs().square().sum(1)

    def loss_of(self, latents: Latents) -> Tensor:
        pose, defocus = latents.pose, latents.defocus_offset_angstrom
        return self.loss(pose.rotation, pose.shift_angstrom, defocus)

    def power(self) -> Tensor:
        """Return the constant of every image that searches leave out, (n,)."""
        return self.images.coefficients.abs().square().sum(1).double()


def make_scene(
    n: int,
    noise_sd: float = 0.0,
    pixel_size_angstrom: float = PIXEL_SIZE,
    defocus_error_angstrom: float = 0.0,
    symmetric: bool = False,
) -> Scene:
    """Make images out of slices of the map itself, without interpolation error."""
    generator = torch.Generator().manual_seed(11)
    volume = FourierVolume.from_map(blob_map(symmetric), RADIUS, 1.5)
    optics = microscope(n, pixel_size_angstrom)
    uniform = torch.rand(n, 3, generator=generator, dtype=torch.float64) * 2 - 1
    rotation = random_rotations(n, generator)
    shift, defocus = uniform[:, :2] * 4, uniform[:, 2] * defocus_error_angstrom
    grid = ReferenceGrid(BOX, PIXEL_SIZE)
    silent = ParticleBatch(torch.zeros(n, BOX, BOX), optics, torch.arange(n))
    empty = whiten(silent, grid, RADIUS, torch.ones(BOX // 2))
    truth = Latents.rigid(Pose(rotation, shift), defocus)
    clean = Scene(volume, empty, truth).model(rotation, shift, defocus)
    images = fourier_to_image(empty.disc.scatter(clean), BOX).float()
    images += noise_sd * torch.randn(images.shape, generator=generator)
    noise_power = torch.full((BOX // 2,), noise_sd**2 if noise_sd > 0 else 1e-4)
    whitened = whiten(replace(silent, images=images), grid, RADIUS, noise_power)
    return Scene(volume, whitened, truth)
