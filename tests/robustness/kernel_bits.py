"""Print a digest of what every compiled kernel computes from fixed random numbers.

Run as a script. Kernels that are compiled in the process and kernels that are loaded
from the cache (``NUMBA_CACHE_DIR``) print the same.
"""

import hashlib
from dataclasses import replace

import torch

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import (
    FourierVolume,
    SliceAccumulator,
    extract_slices,
    insert_slices,
)
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.reconstruction.backproject import shell_sums, solve
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, RADIUS, IMAGES = 32, 14, 40


def digest(*values: torch.Tensor) -> str:
    parts = [value.detach().contiguous().numpy().tobytes() for value in values]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = FourierVolume.from_map(
        torch.randn(BOX, BOX, BOX, generator=generator), RADIUS, 1.5
    )
    rotation = random_rotations(IMAGES, generator)
    disc = FourierDisc.of_box(BOX, RADIUS)
    slices = extract_slices(volume, rotation, disc)
    print("extract", digest(torch.view_as_real(slices)))
    sums = SliceAccumulator.empty(BOX, RADIUS, 1.5)
    insert_slices(sums, rotation, disc, slices, torch.ones(slices.shape))
    print("insert", digest(sums.sums))
    sums = symmetrise(sums, symmetry_rotations("C3"))
    print("symmetrise", digest(sums.sums))
    print("weigh", digest(shell_sums(sums).mean_weight))
    signal = torch.full((RADIUS + 2,), 100.0)
    print("divide", digest(solve(sums, signal, BOX, BOX)))
    defocus = torch.rand(IMAGES, generator=generator) * 1e4 + 5e3
    optics = replace(
        Optics.without_ctf(IMAGES, 2.0),
        amplitude_contrast=torch.full((IMAGES,), 0.1),
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus + 300,
    )
    pixels = torch.randn(IMAGES, BOX, BOX, generator=generator)
    batch = ParticleBatch(pixels, optics, torch.arange(IMAGES))
    images = whiten(batch, ReferenceGrid(BOX, 2.0), RADIUS, torch.ones(BOX // 2))
    still = torch.zeros(IMAGES, 2, dtype=torch.float64)
    start = Latents.rigid(Pose(rotation, still), still[:, 0])
    projector = MapProjector(volume)
    print("score", digest(projector.log_likelihood(images, start)))
    for sd in (0.0, 1000.0):  # the defocus is held, or found
        prior = PosePrior(5.0, sd)
        found = projector.refine_locally(images, start, prior, 8, 0.1)
        pose, offset = found.pose, found.latents.defocus_offset_angstrom
        where = pose.rotation, pose.shift_angstrom, offset
        print("refine", digest(*where, found.information))


if __name__ == "__main__":
    main()
