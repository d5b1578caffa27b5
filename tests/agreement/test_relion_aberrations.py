"""RELION has the same CTFs of aberrations, and makes the same maps of such images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.conventions.relion import table_to_relion
from cryoinfer.io.conventions.table import ImageReferences, ParticleTable
from cryoinfer.io.mrc import StackWriter, read_map, write_map
from cryoinfer.physics.image_model import ImageModel
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.records import Optics
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct

# The box is as large as the CTF spreads the particle at 4 A.
BOX, PIXEL, N = 96, 1.6, 500
TILT_MRAD = (1.5, -2.0)
TREFOIL = (0.3, -0.5, 80.0, 0.0, 0.0, 50.0)
EVEN = (0.2, 10.0, 0.0, -20.0, 250.0, 100.0, -150.0, 60.0, 100.0)
MATRIX = (1.015, 0.012, 0.006, 0.985)


def row(values: tuple[float, ...], n: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).repeat(n, 1)


def with_terms(optics: Optics, names: str) -> Optics:
    n = len(optics)
    terms = {
        "tilt": {"beam_tilt_mrad": row(TILT_MRAD, n)},
        "trefoil": {"odd_zernike_radian": row(TREFOIL, n)},
        "even": {"even_zernike_radian": row(EVEN, n)},
        "magnification": {"magnification": row(MATRIX, n).unflatten(1, (2, 2))},
    }
    for name in names.split(", "):
        optics = replace(optics, **terms[name])
    return optics


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    config = SimulationConfig(
        n=N,
        box=BOX,
        pixel_size_angstrom=PIXEL,
        snr_db=0.0,
        defocus_range_angstrom=(3000.0, 7000.0),
        max_shift_angstrom=5.0,
        seed=3,
    )
    return Simulation.of(config)


def write_star(path: Path, simulation: Simulation, optics: Optics, stack: str) -> None:
    rows = np.arange(len(optics))
    table = ParticleTable(
        images=ImageReferences((stack,), np.zeros_like(rows), rows),
        sign=torch.ones(len(optics)),
        box=torch.full((len(optics),), BOX),
        optics=optics,
        has_ctf=True,
        pose=simulation.latents.pose[: len(optics)],
    )
    table_to_relion(table).write(path)


def weakest_shells(density: Tensor, truth: Tensor) -> Tensor:
    """Return the FSC inside the particle at 5.1 to 3.7 A."""
    mask = soft_sphere(BOX, 25.0, 3.0)
    return fourier_shell_correlation(density * mask, truth * mask)[30:43]


@pytest.mark.slow
@pytest.mark.parametrize("names", ["tilt", "trefoil", "magnification"])
def test_both_programs_make_the_true_map_with_the_terms_alone(
    tmp_path, relion, simulation, names
):
    truth = simulation.density().float()
    optics = with_terms(simulation.optics, names)
    with StackWriter(tmp_path / "a.mrcs", N, BOX, PIXEL) as writer:
        for batch in replace(simulation, optics=optics).batches():
            writer.write(batch.images)
    lowest = {}
    for name, given in (("with", optics), ("without", simulation.optics)):
        star = tmp_path / f"{name}.star"
        write_star(star, simulation, given, "a.mrcs")
        output = f"{name}.mrc"
        relion(tmp_path, "relion_reconstruct", "--i", star.name, "--ctf", "--o", output)
        theirs = torch.from_numpy(read_map(tmp_path / output).density.copy()).float()
        config = ReconstructConfig(particle_diameter_angstrom=80.0)
        ours = reconstruct(Particles.load(star), config, SilentMonitor()).density
        for who, density in (("relion", theirs), ("ours", ours)):
            lowest[who, name] = float(weakest_shells(density, truth).min())
    # Found with the terms, ours and RELION's: see benchmarks/README.md, "Optics".
    assert lowest["ours", "with"] > lowest["ours", "without"] + 0.005
    assert lowest["relion", "with"] > lowest["relion", "without"] + 0.005
    assert lowest["ours", "with"] == pytest.approx(lowest["relion", "with"], abs=0.01)
    assert lowest["ours", "with"] > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("names", ["even", "even, magnification"])
def test_images_projected_by_relion_have_our_ctf(tmp_path, relion, simulation, names):
    # relion_project of 3.1 has the CTF of even terms and of M, but neither the phases
    # of odd terms nor the slices of M.
    count = 50
    optics = with_terms(simulation.optics[:count], names)
    truth = simulation.density().float()
    write_map(tmp_path / "map.mrc", truth, PIXEL)
    write_star(tmp_path / "ask.star", simulation, optics, "none.mrcs")
    relion(
        tmp_path,
        "relion_project",
        *("--i", "map.mrc", "--ang", "ask.star", "--ctf", "--o", "made"),
    )
    made = Particles.load(tmp_path / "made.star").images(torch.arange(count)).double()
    structure = VoxelVolume(truth, PIXEL)
    model = ImageModel(structure, GaussianNoise.white(0.0, BOX), BOX)
    latents = simulation.latents[:count]
    found = {}
    for name, given in (("same", optics), ("none", simulation.optics[:count])):
        ours = torch.fft.rfft2(model.mean(latents, given).double())
        theirs = torch.fft.rfft2(made)
        cross = (ours * theirs.conj()).real.sum()
        power = ours.abs().square().sum() * theirs.abs().square().sum()
        found[name] = float(cross / power.sqrt())
    # The slices of M, 1.5 % off, cost what this leaves.
    assert found["same"] > (0.998 if names == "even" else 0.98)
    assert found["none"] < 0.9
