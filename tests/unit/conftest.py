"""A small simulated set, what a run on it might have found, and scenes of a map."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scenes import Scene, make_scene

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.geometry.rotations import rotate_in_image_frame
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map
from cryoinfer.records import Latents, Pose
from cryoinfer.results.run_result import Iteration, Reconstruction, RunResult

COUNT, BOX, PIXEL = 120, 16, 6.4
ROTATION_SD_RADIAN, SHIFT_SD_ANGSTROM = 0.05, 0.6


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with particles and their truth."""
    folder = tmp_path_factory.mktemp("simulated")
    config = SimulationConfig(
        n=COUNT,
        box=BOX,
        pixel_size_angstrom=PIXEL,
        snr_db=10.0,
        defocus_range_angstrom=(8000.0, 15000.0),
        max_shift_angstrom=4.0,
    )
    simulate(config, folder, SilentMonitor())
    return folder


@pytest.fixture(scope="session")
def reconstruction(simulated: Path) -> Reconstruction:
    """Return the true map as if it had been reconstructed."""
    density = torch.tensor(read_map(simulated / "truth.mrc").density)
    noise = torch.randn(
        (2, BOX, BOX, BOX), generator=torch.Generator().manual_seed(3)
    ) * float(0.01 * density.std())
    curve = torch.linspace(1.0, 0.0, BOX // 2 + 1, dtype=torch.float64)
    return Reconstruction(
        density=density,
        half1=density + noise[0],
        half2=density + noise[1],
        mask=torch.ones(BOX, BOX, BOX),
        fsc=curve,
        fsc_masked=curve**0.9,
        fsc_randomised=curve * 0.1,
        fsc_unmasked=curve**2,
        pixel_size_angstrom=PIXEL,
        resolution_angstrom=14.0,
        symmetry="C1",
    )


@pytest.fixture(scope="session")
def result(simulated: Path, reconstruction: Reconstruction) -> RunResult:
    """Return the truth, with errors as large as the stated covariance says."""
    generator = torch.Generator().manual_seed(11)
    true = Particles.load(simulated / "truth.star").pose
    assert true is not None

    def normal(size: int) -> torch.Tensor:
        return torch.randn(COUNT, size, generator=generator, dtype=torch.float64)

    pose = Pose(
        rotate_in_image_frame(true.rotation, normal(3) * ROTATION_SD_RADIAN),
        true.shift_angstrom + normal(2) * SHIFT_SD_ANGSTROM,
    )
    sd = torch.tensor([ROTATION_SD_RADIAN] * 3 + [SHIFT_SD_ANGSTROM] * 2 + [0.0])
    modes = Pose(
        torch.stack([pose.rotation, pose.rotation.mT], 1),
        torch.stack([pose.shift_angstrom, -pose.shift_angstrom], 1),
    )
    return RunResult(
        reconstruction=reconstruction,
        inferred=ParticlePosterior.of_modes(
            Latents.rigid(modes, torch.zeros(COUNT, 2).double()),
            torch.tensor([0.75, 0.25]).double().expand(COUNT, 2),
            torch.diag(sd.double() ** 2).expand(COUNT, 1, 6, 6),
            torch.linspace(-2, -1, COUNT).double(),
        ),
        random_subset=torch.arange(COUNT) % 2 + 1,
        noise_power=(torch.linspace(2.0, 1.0, BOX // 2),),
        iterations=(
            Iteration("grid", 1.0, 4.0, 20.0, -10.0, 30.0),
            Iteration("local", 2.0, 7.0, 14.0, -9.0, 0.1),
        ),
    )


@pytest.fixture(scope="session")
def scene() -> Callable[..., Scene]:
    """Return the function that makes whitened images of known poses."""
    return make_scene
