"""Astigmatism of micrographs is found as well as their particles allow."""

from dataclasses import replace

import torch
from optics_set import BOX, PIXEL, optics_set

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.astigmatism_estimate import (
    AstigmatismSums,
    estimate_astigmatism,
)
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.physics.ctf import with_astigmatism
from cryoinfer.records import ParticleBatch

N, MICROGRAPHS = 400, 40


def test_offsets_are_found_to_the_cramer_rao_bound_and_drawn_to_the_file():
    made = optics_set(N, 0.0)
    micrograph = torch.arange(N) % MICROGRAPHS
    generator = torch.Generator().manual_seed(0)
    true = 150 * torch.randn(MICROGRAPHS, 2, generator=generator, dtype=torch.float64)
    optics = with_astigmatism(made.optics, true[micrograph])
    noise = made.model.noise
    images = made.model.mean(made.latents, optics).float()
    images = images + noise.sample(N, BOX, generator)
    projector = MapProjector(
        FourierVolume.from_map(made.density().float(), BOX // 2 - 1)
    )
    found = torch.zeros(MICROGRAPHS, 2, dtype=torch.float64)
    for _ in range(3):  # Gauss-Newton, each time from what was found
        told = with_astigmatism(made.optics, found[micrograph])
        batch = ParticleBatch(images, told, torch.arange(N))
        whitened = whiten(
            batch, ReferenceGrid(BOX, PIXEL), BOX // 2 - 1, noise.spectrum
        )
        sums = AstigmatismSums.empty(MICROGRAPHS)
        for rows in torch.arange(N).split(150):
            some = whitened.select(rows)
            sums.add(some, projector, made.latents[rows], micrograph[rows])
        estimate = estimate_astigmatism(sums, found)
        found = estimate.offset_angstrom
    # Drawn to the file, estimates are nearer than the bound of those that are not.
    ratio = float(((found - true) / estimate.sd_angstrom).square().mean().sqrt())
    # 80 numbers of unit variance at most: their root mean square is 1 +- 0.08.
    assert ratio < 1.3
    # It is worth it: the file is wrong by more.
    before = float((true / estimate.sd_angstrom).square().mean().sqrt())
    assert ratio < 0.8 * before
    nothing = AstigmatismSums.empty(MICROGRAPHS)
    unchanged = estimate_astigmatism(nothing, found)
    assert torch.equal(unchanged.offset_angstrom, found)
    alike = replace(made.optics)
    zero = with_astigmatism(alike, torch.zeros(N, 2).double())
    torch.testing.assert_close(zero.defocus_u_angstrom, alike.defocus_u_angstrom)
