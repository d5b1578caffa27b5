"""Two motions that know nothing of each other, and a mask around one of them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.interfaces import SILENT
from cryoinfer.io.mrc import StackWriter
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.problem import define_problem, initial_noise
from cryoinfer.workflows.subspace_loop import (
    FIRST_INFLATION,
    SubspaceConfig,
    SubspaceLoop,
    SubspaceState,
)

N, PIXEL_SIZE, RADIUS = 400, 4.0, 7
LARGE, SMALL = (-5.0, 2.0, 0.0), (5.0, -1.0, 1.0)  # where the parts are, in voxels
BODY = (0.0, -1.0, 0.0), (1.0, 2.0, -2.0), (-1.0, 1.0, 3.0)
TRAVEL = 4.0, 3.0  # of the parts, in voxels
WEIGHT = 4.0, 3.0, 2.0, 2.0, 2.0  # of projections, at their middle
WIDTH, NOISE = 1.5, 1.0  # of a blob in voxels, and of a pixel


@dataclass(frozen=True)
class Moving:
    """Particles with their poses, and how far their parts have moved."""

    particles: Particles
    large: Tensor
    small: Tensor


def projections(rotation: Tensor, centre: Tensor, box: int) -> Tensor:
    """Return images of Gaussians about points (n, b, 3), (n, box, box), by formula."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    x, y = (rotation @ centre.mT)[:, :2].unbind(1)
    along_x, along_y = (
        (-(axis - one[..., None]).square() / (2 * WIDTH**2)).exp() for one in (x, y)
    )
    each = torch.einsum("nby,nbx->nbyx", along_y, along_x)
    return torch.einsum("b,nbyx->nyx", torch.tensor(WEIGHT).double(), each)


def moving(folder: Path, box: int) -> Moving:
    """Write images of a body with two parts, of which one changes the images more."""
    generator = torch.Generator().manual_seed(0)
    large, small = torch.rand(2, N, generator=generator).double() - 0.5
    rotation = random_rotations(N, generator)
    centre = torch.tensor([LARGE, SMALL, *BODY]).double().repeat(N, 1, 1)
    centre[:, 0, 1] += TRAVEL[0] * large
    centre[:, 1, 2] += TRAVEL[1] * small
    seen = projections(rotation, centre, box)
    seen = seen + NOISE * torch.randn(seen.shape, generator=generator)
    path = folder / f"particles_{box}.mrcs"
    with StackWriter(path, N, box, PIXEL_SIZE) as writer:
        writer.write(seen.float())
    pose = Pose(rotation, torch.zeros(N, 2, dtype=torch.float64))
    return Moving(Particles.load(path).with_results(pose=pose), large, small)


def mask_around(box: int, place: tuple[float, float, float]) -> Tensor:
    """Return a soft ball of 4 voxels about a point."""
    x, y, z = (round(one) for one in place)
    return soft_sphere(box, 4.0, 2.0).roll((z, y, x), (0, 1, 2))


@pytest.fixture(scope="module", params=[24, pytest.param(30, marks=pytest.mark.slow)])
def made(request, tmp_path_factory: pytest.TempPathFactory) -> Moving:
    return moving(tmp_path_factory.mktemp("set"), request.param)


def found(made: Moving, focus_mask: Tensor | None) -> tuple[SubspaceLoop, Tensor]:
    """Return a loop of one component, and z of all particles in the end."""
    generator = torch.Generator().manual_seed(0)
    problem = define_problem(made.particles, "C1", None, 0.0, 0.0, generator)
    config = SubspaceConfig(1, RADIUS, RADIUS)
    loop = SubspaceLoop.of(problem, initial_noise(problem), config, focus_mask)
    pose = made.particles.pose
    assert pose is not None
    begun = loop.begun(Latents.rigid(pose, torch.zeros(N)).double())
    state: SubspaceState = loop.at_poses(begun, "it", 12, FIRST_INFLATION, SILENT)
    assert state.subspace is not None
    outside = loop.mask[1] == 0
    assert float(state.subspace.maps[1][outside].abs().max()) == 0
    assert float(state.subspace.maps[0][loop.mask[0] > 0].abs().max()) > 0
    return loop, state.posterior.mode().conformation[:, 0]


def rank_correlation(z: Tensor, truth: Tensor) -> float:
    return abs(float(spearmanr(z.numpy(), truth.numpy()).statistic))


def test_z_follows_the_motion_inside_the_mask(made: Moving) -> None:
    box = made.particles.box
    _, z = found(made, None)
    # A correlation of 0 has a standard error of 0.05, and one component may mix some of
    # the other motion in (0.13 was found; 0.35 of 300 particles). Motions are hardly
    # seen from along their direction: 0.91 to 0.93 and 0.87 were found.
    assert rank_correlation(z, made.large) > 0.85
    assert rank_correlation(z, made.small) < 0.4
    loop, z = found(made, mask_around(box, SMALL))
    assert float(loop.mask[1].mean()) < 0.2 * float(loop.mask[0].mean())
    assert rank_correlation(z, made.small) > 0.8
    assert rank_correlation(z, made.large) < 0.25
    _, z = found(made, mask_around(box, LARGE))
    assert rank_correlation(z, made.large) > 0.85


def test_a_mask_of_ones_changes_nothing(made: Moving) -> None:
    _, z = found(made, None)
    _, masked = found(made, torch.ones(3 * (made.particles.box,)))
    # Of the voxels of a smaller map ones are ones to rounding.
    torch.testing.assert_close(masked, z, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_whole_run_stays_inside_the_mask(made: Moving) -> None:
    mask = mask_around(made.particles.box, SMALL)
    config = HeterogeneityConfig(
        dims=1, poses="given", resolution_angstrom=13.0, focus_mask=mask
    )
    run = heterogeneity(made.particles, config)
    assert rank_correlation(run.z[:, 0], made.small) > 0.8
    assert run.gain.step_nats[0] > 3 * run.gain.step_se_nats[0]
    inside = mask > 0
    # Its voxels were those of a smaller map.
    left = run.maps[1][~inside].square().sum() / run.maps[1].square().sum()
    assert float(left) < 0.05


def test_a_frame_that_is_not_known_is_refused(made: Moving) -> None:
    mask = torch.ones(3 * (made.particles.box,))
    with pytest.raises(InputError, match="given"):
        heterogeneity(made.particles, HeterogeneityConfig(dims=1, focus_mask=mask))
