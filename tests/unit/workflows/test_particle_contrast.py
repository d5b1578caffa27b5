"""The contrast of particles is told from their conformation."""

from dataclasses import dataclass, replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from pyarrow.parquet import read_table
from torch import Tensor

from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.interfaces import SILENT
from cryoinfer.records import Latents, Pose
from cryoinfer.results.conformation_files import write_heterogeneity
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.particle_contrast import without_contrast
from cryoinfer.workflows.subspace_update import SubspaceSums, _without_mean
from cryoinfer.workflows.unseen_conformations import (
    LearnedMaps,
    search_conformations,
)

SPREAD = 0.2
OFFSET = 0.1  # of the mean contrast of particles whose map is too weak
BOX, PIXEL_SIZE = 24, 4.8
STATES = ("adenylate-kinase-open", "adenylate-kinase-closed")


@dataclass(frozen=True)
class Uneven:
    """Particles at their true poses, and how strong each is."""

    particles: Particles
    contrast: Tensor


def uneven(folder: Path, names: tuple[str, ...], each: int, spread: float) -> Uneven:
    """Return noisy images of states, every one times a contrast of its own."""
    random = np.random.default_rng(0)
    parts, contrasts = [], []
    for number, name in enumerate(names):
        config = SimulationConfig(
            name,
            n=each,
            box=BOX,
            pixel_size_angstrom=PIXEL_SIZE,
            snr_db=60.0,
            seed=number,
        )
        simulate(config, folder / str(number), SILENT)
        contrast = 1.0 + spread * random.normal(size=each)
        with mrcfile.open(folder / str(number) / "particles.mrcs", mode="r+") as stack:
            clean = np.array(stack.data)
            noise = random.normal(scale=clean.std(), size=clean.shape)
            stack.set_data((contrast[:, None, None] * clean + noise).astype("f4"))
        parts.append(Particles.load(folder / str(number) / "truth.star"))
        contrasts.append(torch.from_numpy(contrast))
    particles = parts[0]
    if len(parts) > 1:
        poses = [one.pose for one in parts if one.pose is not None]
        particles = join(parts).particles.with_results(pose=Pose.joined(poses))
    return Uneven(particles, torch.cat(contrasts))


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1])


CONFIG = HeterogeneityConfig(poses="given", resolution_angstrom=12.0)


def test_uneven_contrast_is_no_conformation(tmp_path: Path) -> None:
    truth = uneven(tmp_path, STATES[:1], 500, SPREAD)
    found = heterogeneity(truth.particles, CONFIG)
    assert found.dims == 0
    assert found.contrast is not None
    # 500 particles, each to 0.1, tell a spread of 0.2 to 4 %, a standard error.
    assert found.contrast.spread == pytest.approx(SPREAD, rel=0.15)
    assert correlation(found.contrast.mean, truth.contrast) > 0.85
    error = found.contrast.mean - truth.contrast
    # The noise at given poses is the power of the images, signal included.
    assert 0.5 < float(error.std() / found.contrast.sd.median()) < 1.1
    # Without it, the mean itself is a component that says much of held-out images.
    plain = heterogeneity(truth.particles, replace(CONFIG, contrast=False))
    assert plain.dims == 1
    assert abs(correlation(plain.z[:, 0], truth.contrast)) > 0.8


def test_particles_that_are_alike_have_no_contrast(tmp_path: Path) -> None:
    truth = uneven(tmp_path, STATES[:1], 300, 0.0)
    found = heterogeneity(truth.particles, CONFIG)
    assert found.contrast is None
    assert found.dims == 0


@pytest.mark.slow
def test_states_of_uneven_particles_are_told_apart(tmp_path: Path) -> None:
    truth = uneven(tmp_path, STATES, 250, SPREAD)
    found = heterogeneity(truth.particles, CONFIG)
    assert found.dims == 1
    state = torch.arange(500) >= 250
    z = found.z[:, 0]
    middle = (z[state].mean() + z[~state].mean()) / 2
    wrong = ((z > middle) != state).double().mean()
    assert min(float(wrong), 1 - float(wrong)) < 0.01
    assert found.contrast is not None
    assert correlation(found.contrast.mean, truth.contrast) > 0.85
    plain = heterogeneity(truth.particles, replace(CONFIG, contrast=False, dims=1))
    for own in (state, ~state):
        # The prior of z draws weak particles nearer to the middle, as it should.
        left = abs(correlation(z[own], truth.contrast[own]))
        assert left < 0.6 * abs(correlation(plain.z[own, 0], truth.contrast[own]))
    write_heterogeneity(tmp_path, truth.particles, torch.ones(500) > 0, found)
    written = read_table(tmp_path / "latents.parquet")
    np.testing.assert_allclose(written["contrast"], found.contrast.mean)
    np.testing.assert_allclose(written["contrast_sd"], found.contrast.sd)
    # Maps know how uneven their particles were: others are searched accordingly.
    learned = LearnedMaps(
        tuple(found.maps), PIXEL_SIZE, found.last_radius, found.contrast.spread
    )
    again = search_conformations(truth.particles, learned)
    assert again.contrast is not None
    assert correlation(again.contrast.mean, truth.contrast) > 0.8
    # Of 500 images on a grid of poses: 0.914 and 0.900 by two ways to search it.
    assert abs(correlation(again.z[:, 0], z)) > 0.85


def test_a_component_along_the_mean_is_contrast() -> None:
    random = torch.Generator().manual_seed(3)
    mean, other = torch.randn(2, 6, 6, 6, generator=random)
    other -= (other * mean).sum() / mean.square().sum() * mean
    components = torch.stack([0.3 * mean + other, 0.4 * mean - 2 * other])
    free, variance = _without_mean(components, mean)
    torch.testing.assert_close(free, torch.stack([other, -2 * other]))
    # Of unit z each: 0.3^2 + 0.4^2.
    assert variance == pytest.approx(0.25)


def gaussian(mean: Tensor, covariance: Tensor) -> ParticlePosterior:
    """Return posteriors whose conformation is normal, at some pose."""
    n, width = mean.shape
    pose = Pose(random_rotations(n, torch.Generator().manual_seed(0)).double(), None)
    pose = replace(pose, shift_angstrom=torch.zeros(n, 2, dtype=torch.float64))
    modes = Latents(pose, torch.zeros(n, dtype=torch.float64), mean)[:, None]
    whole = torch.zeros(n, 1, 6 + width, 6 + width, dtype=torch.float64)
    whole[:, 0, 6:, 6:] = covariance
    weight = torch.ones(n, 1, dtype=torch.float64)
    return ParticlePosterior.of_modes(modes, weight, whole)


@pytest.mark.parametrize("assumed", [0.05, 0.2, 0.6])
def test_the_spread_is_measured_whatever_was_assumed(assumed: float) -> None:
    n = 20_000
    random = torch.Generator().manual_seed(1)
    true = torch.randn(n, generator=random, dtype=torch.float64) * SPREAD + OFFSET
    # Images of unequal information of c: standard deviations from 0.1 to 0.4.
    error = 0.1 + 0.3 * torch.rand(n, generator=random, dtype=torch.float64)
    seen = true + error * torch.randn(n, generator=random, dtype=torch.float64)
    variance = 1 / (1 + (assumed / error) ** 2)
    mean = (1 - variance) * seen / assumed
    sums = SubspaceSums.empty(0, 16, 4, contrast_sd=assumed)
    sums._measure_contrast(gaussian(mean[:, None], variance[:, None, None]))
    # Squares of 20,000 particles, to 2 % (a standard error); half of that of the root.
    strength, spread = sums.measured_contrast()
    assert spread == pytest.approx(SPREAD, rel=0.04)
    assert strength == pytest.approx(1.0 + OFFSET, abs=0.01)


def test_no_spread_is_measured_as_next_to_none() -> None:
    n = 5000
    random = torch.Generator().manual_seed(1)
    seen = 0.1 * torch.randn(n, generator=random, dtype=torch.float64)
    variance = torch.full((n,), 1 / (1 + (0.1 / 0.1) ** 2), dtype=torch.float64)
    sums = SubspaceSums.empty(0, 16, 4, contrast_sd=0.1)
    mean = (1 - variance) * seen / 0.1
    sums._measure_contrast(gaussian(mean[:, None], variance[:, None, None]))
    assert sums.measured_contrast()[1] < 0.025


def test_the_covariance_of_z_is_that_of_draws() -> None:
    n, width = 3, 3
    random = torch.Generator().manual_seed(2)
    root = 0.05 * torch.randn(n, width, width, generator=random, dtype=torch.float64)
    mean = torch.randn(n, width, generator=random, dtype=torch.float64)
    mean[:, 0] = torch.tensor([-1.0, 0.0, 1.5])
    covariance = root @ root.mT
    posterior = gaussian(mean, covariance)
    placed, contrast = without_contrast(posterior, SPREAD)
    draws = torch.randn(200_000, n, width, 1, generator=random, dtype=torch.float64)
    known = mean + (root @ draws)[..., 0]
    c = 1 + SPREAD * known[..., 0]
    z = known[..., 1:] / c[..., None]
    torch.testing.assert_close(contrast.mean, c.mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(contrast.sd, c.std(0), atol=0, rtol=0.01)
    centre = placed.mode().conformation
    torch.testing.assert_close(centre, z.mean(0), atol=2e-3, rtol=0)
    for one in range(n):
        # First order, and draws: a hundredth of a standard deviation squared.
        expected = torch.cov(z[:, one].T)
        found = placed.covariance[one, 0, 6:, 6:]
        size = expected.diagonal().max()
        torch.testing.assert_close(found / size, expected / size, atol=0.03, rtol=0)


def test_an_image_of_nothing_keeps_a_finite_z() -> None:
    mean = torch.tensor([[-1 / SPREAD, 1.0], [0.0, 1.0], [0.0, 1.0]]).double()
    placed, contrast = without_contrast(
        gaussian(mean, 0.01 * torch.eye(2).double()), SPREAD
    )
    assert float(contrast.mean[0]) == pytest.approx(0.0)
    assert float(placed.mode().conformation[0, 0]) == pytest.approx(5.0)
