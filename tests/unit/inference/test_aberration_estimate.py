"""A beam tilt is found from images, to the width that their information allows."""

from dataclasses import dataclass, replace

import pytest
import torch
from optics_set import BOX, PIXEL, optics_set
from torch import Tensor

from cryoinfer.data.simulate import Simulation
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.aberration_estimate import PhaseSums, estimate_beam_tilt
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.records import ParticleBatch

N = 60
TILT_MRAD = torch.tensor([6.0, -4.0], dtype=torch.float64)


@dataclass(frozen=True)
class Seen:
    """Simulated images without noise, and what they show."""

    simulation: Simulation
    images: Tensor
    projector: MapProjector


@pytest.fixture(scope="module")
def seen() -> Seen:
    made = optics_set(N, -3.0)
    tilted = replace(made.optics, beam_tilt_mrad=TILT_MRAD.repeat(N, 1))
    volume = FourierVolume.from_map(made.density().float(), BOX // 2 - 1)
    images = made.model.mean(made.latents, tilted).float()
    return Seen(replace(made, optics=tilted), images, MapProjector(volume))


def sums_of(seen: Seen, seed: int, given_mrad: Tensor) -> PhaseSums:
    """Return the sums of images in new noise, whose file gives another tilt."""
    simulation = seen.simulation
    generator = torch.Generator().manual_seed(seed)
    noise = simulation.model.noise
    images = seen.images + noise.sample(N, BOX, generator)
    told = replace(simulation.optics, beam_tilt_mrad=given_mrad.repeat(N, 1))
    batch = ParticleBatch(images, told, torch.arange(N))
    grid = ReferenceGrid(BOX, PIXEL)
    whitened = whiten(batch, grid, BOX // 2 - 1, noise.spectrum)
    sums = PhaseSums.empty(whitened.disc, told[:1])
    halves = torch.arange(N) % 2
    for half in (0, 1):
        own = whitened.select(torch.nonzero(halves == half)[:, 0])
        sums.add(own, seen.projector, simulation.latents[halves == half])
    return sums


def test_a_tilt_is_found_as_well_as_the_cramer_rao_bound_allows(seen):
    found = [
        estimate_beam_tilt(sums_of(seen, seed, torch.zeros(2).double()))
        for seed in range(40)
    ]
    errors = torch.stack([one.beam_tilt_mrad - TILT_MRAD for one in found])
    bounds = torch.stack([one.sd_mrad for one in found])
    ratio = float((errors / bounds).square().mean().sqrt())
    # 80 numbers of unit variance: their root mean square is 1 +- 0.08.
    assert ratio < 1.3
    assert ratio > 0.7
    # The tilt is worth finding: it is many times its error.
    assert float(bounds.max()) < 1.0


def test_what_the_file_gives_is_added_to(seen):
    none, most = torch.zeros(2).double(), 0.9 * TILT_MRAD
    first = estimate_beam_tilt(sums_of(seen, 0, none))
    second = estimate_beam_tilt(sums_of(seen, 0, most))
    # The same images: they say the same, to the curvature that steps leave.
    torch.testing.assert_close(
        second.beam_tilt_mrad, first.beam_tilt_mrad, atol=1e-3, rtol=0
    )


def test_without_spherical_aberration_there_is_nothing_to_find(seen):
    sums = sums_of(seen, 0, torch.zeros(2).double())
    blind = replace(sums.optics, cs_mm=torch.zeros(1).double())
    with pytest.raises(ValueError, match="spherical aberration alone"):
        estimate_beam_tilt(replace(sums, optics=blind))
