"""Even aberrations, and trefoil, are found as well as the images allow."""

from dataclasses import replace

import pytest
import torch
from optics_set import BOX, PIXEL, optics_set
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.aberration_estimate import PhaseSums, estimate_beam_tilt
from cryoinfer.inference.even_estimate import EvenSums, estimate_even
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.aberrations import EVEN_TERMS, TREFOIL
from cryoinfer.records import Optics, ParticleBatch

N, NOISES = 100, 20
EVEN = torch.tensor(
    [200.1, 8.0, 300.0, -6.0, 700.0, 5.0, 100.0, -4.0, -500.0], dtype=torch.float64
)
"""Of which 200, 300 and 100 are 600 s^4, an error of Cs: 0.4 radian at the edge."""
TREFOIL_RADIAN = torch.tensor([60.0, -40.0], dtype=torch.float64)


class Seen:
    """Images with aberrations, but for their noise."""

    def __init__(self) -> None:
        self.made = optics_set(N, 0.0)
        odd = torch.zeros(N, 6, dtype=torch.float64)
        odd[:, TREFOIL] = TREFOIL_RADIAN
        true = self.told(EVEN)
        true = replace(true, odd_zernike_radian=odd)
        self.images = self.made.model.mean(self.made.latents, true).float()
        volume = FourierVolume.from_map(self.made.density().float(), BOX // 2 - 1)
        self.projector = MapProjector(volume)

    def told(self, even: Tensor) -> Optics:
        return replace(self.made.optics, even_zernike_radian=even.repeat(N, 1))

    def whitened(self, seed: int, told: Optics) -> WhitenedImages:
        generator = torch.Generator().manual_seed(seed)
        noise = self.made.model.noise
        images = self.images + noise.sample(N, BOX, generator)
        batch = ParticleBatch(images, told, torch.arange(N))
        return whiten(batch, ReferenceGrid(BOX, PIXEL), BOX // 2 - 1, noise.spectrum)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


def test_even_aberrations_are_found_to_the_cramer_rao_bound(seen):
    squares, disc = [], FourierDisc.of_box(BOX, BOX // 2 - 1)
    # Trefoil turns phases: known here.
    odd = torch.zeros(N, 6, dtype=torch.float64)
    odd[:, TREFOIL] = TREFOIL_RADIAN
    for seed in range(NOISES):
        found = torch.zeros(EVEN_TERMS, dtype=torch.float64)
        for _ in range(4):  # Gauss-Newton, each time from what was found
            told = replace(seen.told(found), odd_zernike_radian=odd)
            sums = EvenSums.empty(disc, PIXEL)
            images = seen.whitened(seed, told)
            for rows in torch.arange(N).split(60):
                latents = seen.made.latents[rows]
                sums.add(images.select(rows), seen.projector, latents)
            estimate = estimate_even(sums)
            assert estimate is not None
            found = found + estimate.change_radian
        error = found - EVEN
        squares.append(error @ torch.linalg.solve(estimate.covariance, error))
    # 180 numbers of unit variance: their root mean square is 1 +- 0.05.
    ratio = float((torch.stack(squares).mean() / EVEN_TERMS).sqrt())
    assert 0.8 < ratio < 1.3
    # It is worth it: the file is wrong by more.
    before = EVEN @ torch.linalg.solve(estimate.covariance, EVEN) / EVEN_TERMS
    assert float(before.sqrt()) > 4
    nothing = EvenSums.empty(disc, PIXEL)
    assert estimate_even(nothing) is None


def test_the_sd_of_a_phase_is_that_of_its_coefficients(seen):
    sums = EvenSums.empty(FourierDisc.of_box(BOX, BOX // 2 - 1), PIXEL)
    sums.add(seen.whitened(0, seen.told(EVEN)), seen.projector, seen.made.latents)
    found = estimate_even(sums)
    assert found is not None
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, EVEN_TERMS, generator=generator, dtype=torch.float64)
    draws = draws @ torch.linalg.cholesky(found.covariance).mT
    edge = sums.disc.ring == BOX // 2 - 1
    phases = draws @ sums.polynomials()[edge].mT
    largest = float(phases.std(0).max())
    # 4000 draws: 1.1 %; the ring is half a pixel of 15 wide, to the fourth power.
    assert abs(found.phase_sd_radian(15 / (BOX * PIXEL)) / largest - 1) < 0.2


def test_trefoil_is_found_to_the_cramer_rao_bound(seen):
    errors = []
    for seed in range(NOISES):
        images = seen.whitened(seed, seen.told(EVEN))
        sums = PhaseSums.empty(images.disc, images.optics[:1])
        sums.add(images, seen.projector, seen.made.latents)
        found = estimate_beam_tilt(sums, trefoil=True)
        tilt = found.beam_tilt_mrad / found.sd_mrad
        trefoil = (found.trefoil_radian - TREFOIL_RADIAN) / found.trefoil_sd_radian
        errors.append(torch.cat([tilt, trefoil]))
    # 80 numbers of unit variance: their root mean square is 1 +- 0.08.
    assert 0.7 < float(torch.stack(errors).square().mean().sqrt()) < 1.3
    assert float((TREFOIL_RADIAN.abs() / found.trefoil_sd_radian).min()) > 4
