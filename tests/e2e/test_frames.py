"""Maps and models of all commands lie on each other, where their files say they are."""

from dataclasses import replace
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
import roma
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.data.examples import named_atoms
from cryoinfer.data.particles import Particles
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Pose

ENZYME = "adenylate-kinase-open"
BOX, PIXEL = 32, 4.0
MIDDLE = BOX // 2 * PIXEL


def cryoinfer(*words: object) -> str:
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, [str(word) for word in words], env=environment)
    assert done.exit_code == 0, done.output
    return done.output


def atoms_of(path: Path, number: int = 0) -> NDArray[np.float64]:
    model = gemmi.read_structure(str(path))[number]
    return np.array([cra.atom.pos.tolist() for cra in model.all()])


def overlay(density: Path, model: Path, number: int = 0) -> tuple[float, float]:
    """Return how far a map is from that of a model, in voxels, and their correlation.

    Atoms are laid on the grid that the map's header describes, as viewers do. Both are
    compared to 10 A, beyond which maps of few particles are noise.
    """
    with mrcfile.open(density) as mrc:
        values = np.asarray(mrc.data, dtype=np.float64)
        voxel = float(mrc.voxel_size.x)
        origin = np.array([mrc.header.origin[axis] for axis in "xyz"], dtype=float)
        start = [mrc.header.nxstart, mrc.header.nystart, mrc.header.nzstart]
    if not origin.any():
        origin = np.array(start) * voxel
    n = len(values)
    found = gemmi.read_structure(str(model))[number]
    elements = tuple(cra.atom.element.name for cra in found.all())
    centred = atoms_of(model, number) - origin - n // 2 * voxel
    laid = GaussianAtoms.from_elements(torch.from_numpy(centred).float(), elements)
    own = laid.to_map(n, voxel).double().numpy()
    along = np.fft.fftfreq(n, voxel)
    squared = along[:, None, None] ** 2 + along[:, None] ** 2 + along**2
    shown = squared < 1 / 10**2
    values, own = (np.fft.ifftn(np.fft.fftn(one) * shown).real for one in (values, own))
    product = np.fft.ifftn(np.fft.fftn(values) * np.fft.fftn(own).conj()).real
    top = np.array(np.unravel_index(product.argmax(), product.shape))
    away = (top + n // 2) % n - n // 2
    correlation = np.corrcoef(values.ravel(), own.ravel())[0, 1]
    return float(np.linalg.norm(away)), float(correlation)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return particles of a chain of alpha carbons: an eighth of the atoms."""
    folder = tmp_path_factory.mktemp("frames") / "set"
    structure = folder.with_name("chain.cif")
    enzyme = named_atoms(ENZYME)
    alpha = np.flatnonzero([name == "CA" for name in enzyme.atom_names])
    write_ensemble(structure, "chain", [enzyme.select(alpha)])
    cryoinfer(
        *("simulate", structure, "--n", 60, "--box", BOX, "--pixel-size", PIXEL),
        *("--snr-db", 10, "--shift", 3, "--modes", "1:N(0,1)", "--out", folder),
    )
    return folder


def test_the_truth_lies_in_its_map(simulated: Path) -> None:
    away, correlation = overlay(simulated / "truth.mrc", simulated / "truth.cif")
    assert away == 0
    # The same density, but for three decimals of the coordinates and single precision.
    assert correlation > 0.999


def moved_map(simulated: Path, folder: Path) -> tuple[Path, Path]:
    """Return particles and model of a map that lies aside and turned in its box."""
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64))
    offset = torch.tensor([6.0, -5.0, 4.0], dtype=torch.float64)
    true = Particles.load(simulated / "truth.star")
    assert true.pose is not None
    rotation = true.pose.rotation @ turn.mT
    shift = true.pose.shift_angstrom - (rotation @ offset)[:, :2]
    true.with_results(pose=Pose(rotation, shift)).save(folder / "posed.star")
    atoms = named_atoms(str(simulated.with_name("chain.cif")))
    centred = torch.from_numpy(atoms.coordinates_angstrom)
    centred = centred - centred.mean(0)
    placed = centred @ turn.mT + offset + MIDDLE
    docked = replace(atoms, coordinates_angstrom=placed.numpy())
    write_ensemble(folder / "docked.cif", "docked", [docked])
    return folder / "posed.star", folder / "docked.cif"


@pytest.mark.slow
@pytest.mark.parametrize("docked", [True, False])
def test_models_lie_in_the_map_of_given_poses(
    simulated: Path, tmp_path: Path, docked: bool
) -> None:
    posed, structure = moved_map(simulated, tmp_path)
    if not docked:
        # The same model, as far from the map as a file of the PDB.
        model = named_atoms(str(structure))
        away = replace(model, coordinates_angstrom=model.coordinates_angstrom + 500)
        write_ensemble(structure, "away", [away])
    said = cryoinfer(
        *("dynamics", posed, "--structure", structure, "--poses", "given"),
        *("--modes", 1, "--amplitude", 1, "--shift", 5, "--out", tmp_path / "run"),
    )
    assert "In the frame of the given poses the model's centre lies at (" in said
    for particles in (posed, tmp_path / "run" / "particles.star"):
        folder = tmp_path / particles.stem
        cryoinfer("reconstruct", particles, "--out", folder)
        for name in ("rest.cif", "mode1.cif", "centres.cif"):
            number = 5 if name == "mode1.cif" else 0
            away, correlation = overlay(
                folder / "map.mrc", tmp_path / "run" / name, number
            )
            assert away < 0.5, name
            assert correlation > 0.9, name
    lines = (tmp_path / "run" / "modes.nmd").read_text().splitlines()
    nodes = next(line for line in lines if line.startswith("coordinates "))
    places = np.array(nodes.split()[1:], dtype=float).reshape(-1, 3)
    # The atoms are the nodes; files have three decimals.
    atoms = atoms_of(tmp_path / "run" / "rest.cif")
    np.testing.assert_allclose(places, atoms, atol=1e-3)


@pytest.mark.parametrize("origin", [(0.0, 0.0, 0.0), (-64.0, 12.5, 200.0)])
def test_beads_lie_in_their_map(
    simulated: Path, tmp_path: Path, origin: tuple[float, float, float]
) -> None:
    path = tmp_path / "map.mrc"
    path.write_bytes((simulated / "truth.mrc").read_bytes())
    with mrcfile.open(path, "r+") as mrc:
        mrc.header.origin = origin
    cryoinfer("beads", path, "--count", 100, "--out", tmp_path / "beads.cif")
    away, correlation = overlay(path, tmp_path / "beads.cif")
    assert away == 0
    assert correlation > 0.9
