"""Images of three blobs, with and without a CTF, at rotations that are known."""

from dataclasses import replace

import torch

from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import Optics, ParticleBatch, Pose

BOX = 16
PIXEL_SIZE = 4.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(box: int = BOX) -> torch.Tensor:
    """Return a smooth map without symmetry, well inside its box."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centres = torch.tensor([[2.0, 0.5, -1.0], [-2.5, 1.0, 0.5], [0.5, -2.0, 2.0]])
    density = torch.zeros(box, box, box, dtype=torch.float64)
    for height, (a, b, c) in enumerate(centres.tolist(), 1):
        squared = (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2
        density += height * torch.exp(-squared / (2 * 1.3**2))
    return density.float()


def microscope(n: int) -> Optics:
    return replace(
        Optics.without_ctf(n, PIXEL_SIZE),
        cs_mm=torch.full((n,), 2.7, dtype=torch.float64),
        amplitude_contrast=torch.full((n,), 0.1, dtype=torch.float64),
        defocus_u_angstrom=torch.linspace(4e3, 12e3, n, dtype=torch.float64),
        defocus_v_angstrom=torch.linspace(4e3, 12e3, n, dtype=torch.float64),
    )


def particles(n: int, with_ctf: bool = False) -> tuple[ParticleBatch, torch.Tensor]:
    """Return images of the blobs at random rotations, by the library's own slices."""
    rotation = random_rotations(n, seeded(1))
    centred = Pose(rotation, torch.zeros(n, 2, dtype=torch.float64))
    images = VoxelVolume(blobs(), PIXEL_SIZE).project(centred, BOX, PIXEL_SIZE)
    optics = Optics.without_ctf(n, PIXEL_SIZE)
    if with_ctf:
        optics = microscope(n)
        rows = torch.fft.fftfreq(BOX, PIXEL_SIZE)[:, None].expand(BOX, BOX // 2 + 1)
        columns = torch.fft.rfftfreq(BOX, PIXEL_SIZE)[None].expand_as(rows)
        ctf = evaluate_ctf(optics, columns.flatten(), rows.flatten())
        half = torch.fft.rfft2(images) * ctf.unflatten(1, rows.shape)
        images = torch.fft.irfft2(half, s=(BOX, BOX))
    return ParticleBatch(images, optics, torch.arange(n)), rotation
