"""Whole runs without kernels: what a device does that has none of its own.

On the CPU; on a device that the CPU plays, where tensors of two devices do not mix; and
on a GPU where there is one.
"""

from collections.abc import Callable

import pytest
import torch
from elsewhere import DEVICE, Elsewhere

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.symmetry import nearest_mates, symmetry_rotations
from cryoinfer.interfaces import SILENT
from cryoinfer.io.mrc import read_map
from cryoinfer.operations import plain_only
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.refine import RefineConfig, StartingMap, refine

Run = Callable[[torch.device | str], RunResult]


@pytest.fixture(scope="module")
def from_nothing(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("set")
    config = SimulationConfig(n=100, box=20, pixel_size_angstrom=4.5, snr_db=10.0)
    particles = Particles.load(simulate(config, folder, SILENT))
    settings = AbinitioConfig(starts=1)
    return lambda device: abinitio(particles, settings, device=device)


@pytest.fixture(scope="module")
def from_a_map(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a refinement with all that there is: symmetry, pixel sizes, defoci."""
    folder = tmp_path_factory.mktemp("set")
    config = SimulationConfig(
        structure="adenylate-kinase-d2",
        n=60,
        box=24,
        pixel_size_angstrom=6.0,
        snr_db=10.0,
        optics_groups=2,
        defocus_range_angstrom=(8000.0, 12000.0),
        max_shift_angstrom=6.0,
    )
    particles = Particles.load(simulate(config, folder, SILENT))
    density = torch.from_numpy(read_map(folder / "truth.mrc").density.copy())
    start = StartingMap(density, config.pixel_size_angstrom)
    settings = RefineConfig("D2", refine_defocus=True)
    return lambda device: refine(particles, start, settings, device=device)


def require_same(found: RunResult, other: RunResult) -> None:
    # Both draw the same numbers, and end in the same hand and frame but for rounding.
    maps = found.reconstruction, other.reconstruction
    fsc = fourier_shell_correlation(*(one.density * one.mask for one in maps))
    length = len(maps[0].density) * maps[0].pixel_size_angstrom
    shells = int(length / maps[0].resolution_angstrom)
    assert float(fsc[1 : shells + 1].min()) > 0.99  # 0.9997 was found
    pose, others = found.latents.pose, other.latents.pose
    symmetry = symmetry_rotations(maps[0].symmetry)
    angle = geodesic_angle(
        pose.rotation, nearest_mates(others.rotation, pose.rotation, symmetry)
    )
    variance = found.inferred.covariance[:, 0].diagonal(dim1=1, dim2=2)
    # A refinement ends where a step promises a tenth of a nat, or a hundredth: within
    # half a standard deviation of the mode. Most end nearer: 0.10 and 0.03 were found.
    assert float((angle / variance[:, :3].sum(1).sqrt()).median()) < 0.5
    moved = pose.shift_angstrom - others.shift_angstrom
    assert float((moved.abs() / variance[:, 3:5].sqrt()).median()) < 0.5


@pytest.mark.slow
def test_plain_versions_find_the_map_and_poses_of_the_kernels(from_nothing) -> None:
    with plain_only():
        plain = from_nothing("cpu")
    require_same(from_nothing("cpu"), plain)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["from_nothing", "from_a_map"])
def test_another_device_finds_the_same(run: str, request) -> None:
    compute = request.getfixturevalue(run)
    with Elsewhere():
        there = compute(DEVICE)
    require_same(compute("cpu"), there)


@pytest.mark.gpu
@pytest.mark.parametrize("run", ["from_nothing", "from_a_map"])
def test_a_gpu_finds_the_same(run: str, request) -> None:
    compute = request.getfixturevalue(run)
    require_same(compute("cpu"), compute("cuda"))
