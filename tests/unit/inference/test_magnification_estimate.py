"""A magnification is found from images, to the width that their information allows."""

import math
from dataclasses import replace

import pytest
import torch
from optics_set import BOX, PIXEL, optics_set
from torch import Tensor

from cryoinfer.data.simulate import Simulation
from cryoinfer.inference.magnification_estimate import (
    MagnificationEstimate,
    MagnificationSums,
    MapGradient,
    estimate_magnification,
)
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.records import ParticleBatch

N = 60
STRETCH = torch.tensor([0.006, -0.004], dtype=torch.float64)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return optics_set(N, -3.0)


@pytest.fixture(scope="module")
def stretched(simulation: Simulation) -> Tensor:
    """Images without noise, of a magnification that the file does not tell."""
    a, b = STRETCH.tolist()
    matrix = torch.tensor([[1 + a, b], [b, 1 - a]], dtype=torch.float64)
    optics = replace(simulation.optics, magnification=matrix.expand(N, 2, 2))
    return simulation.model.mean(simulation.latents, optics).float()


@pytest.fixture(scope="module")
def gradient(simulation: Simulation) -> MapGradient:
    return MapGradient.of_map(simulation.density().float(), PIXEL, BOX // 2 - 1, 2.0)


def found_of(
    simulation: Simulation, images: Tensor, gradient: MapGradient, seed: int
) -> MagnificationEstimate:
    noise = simulation.model.noise
    noisy = images + noise.sample(N, BOX, torch.Generator().manual_seed(seed))
    batch = ParticleBatch(noisy, simulation.optics, torch.arange(N))
    whitened = whiten(batch, ReferenceGrid(BOX, PIXEL), BOX // 2 - 1, noise.spectrum)
    sums = MagnificationSums.empty(whitened.disc, PIXEL)
    for rows in torch.arange(N).split(25):
        latents = simulation.latents[rows]
        sums.add(whitened.select(rows), gradient, latents)
    found = estimate_magnification(sums)
    assert found is not None
    return found


def test_slopes_are_those_of_the_sum_over_voxels(simulation: Simulation):
    density = simulation.density().float()
    made = MapGradient.of_map(density, PIXEL, 9, 2.0)
    rotation = simulation.latents.pose.rotation[:1]
    batch = ParticleBatch(
        torch.ones(1, BOX, BOX), simulation.optics[:1], torch.arange(1)
    )
    images = whiten(batch, ReferenceGrid(BOX, PIXEL), 9, torch.ones(BOX // 2))
    slices = made.slices(images, rotation)
    axis = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) * PIXEL
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    seen = rotation[0] @ torch.stack([x, y, z]).flatten(1)
    disc, length = images.disc, BOX * PIXEL
    angle = (disc.kx[:, None] * seen[0] + disc.ky[:, None] * seen[1]) / length
    wave = torch.polar(torch.ones_like(angle), -2 * math.pi * angle)
    values = density.flatten().double() / BOX
    for found, factor in zip(slices, (1, seen[0], seen[1]), strict=True):
        expected = (wave * (values * factor)).sum(1)
        expected = expected * (1 if found is slices[0] else -2j * math.pi)
        error = (found[0] - expected).abs().square().mean().sqrt()
        # Trilinear interpolation at padding 2 is wrong by some percent.
        assert float(error) < 0.05 * float(expected.abs().square().mean().sqrt())


def test_a_stretch_is_found_as_well_as_the_cramer_rao_bound_allows(
    simulation, stretched, gradient
):
    found = [found_of(simulation, stretched, gradient, seed) for seed in range(40)]
    errors = torch.stack([one.stretch - STRETCH for one in found])
    bounds = torch.stack([one.sd for one in found])
    ratio = float((errors / bounds).square().mean().sqrt())
    # 80 numbers of unit variance: their root mean square is 1 +- 0.08.
    assert ratio < 1.3
    assert ratio > 0.7
    # The stretch is worth finding: it is more than its error.
    assert float(bounds.max()) < 0.003
