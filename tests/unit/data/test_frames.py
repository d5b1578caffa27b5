"""The gate of trajectories: frames of the structure, whole, in its order of atoms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mdtraj.formats import DCDTrajectoryFile, XTCTrajectoryFile
from numpy.typing import NDArray

from cryoinfer.data.examples import example_atoms, named_structure, symmetric_copies
from cryoinfer.data.frames import frames_of
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel, KeptAtoms

REAL = Path(__file__).parents[4] / "shared/data"
XTC_ANGSTROM = 0.01  # half of its precision of a picometre along each axis, and more
BOX = 75.0  # angstrom: the protein, of 70, crosses its faces

Places = NDArray[np.float64]


@pytest.fixture(scope="module")
def protein() -> AtomicModel:
    return example_atoms("adenylate-kinase-open")


@pytest.fixture(scope="module")
def places(protein: AtomicModel) -> Places:
    """Return conformations along the softest mode, shape (5, a, 3)."""
    model = MovingModel.of(protein, 1, 2.0)
    ends = torch.linspace(-3.0, 3.0, 5)
    return np.stack([model.at(one[None]).coordinates_angstrom for one in ends])


def every(model: AtomicModel) -> KeptAtoms:
    return KeptAtoms(np.arange(len(model)), len(model))


def dcd(path: Path, places: Places, box: float | None = None) -> Path:
    cells = {}
    if box is not None:
        cells["cell_lengths"] = np.full((len(places), 3), box, dtype=np.float32)
        cells["cell_angles"] = np.full((len(places), 3), 90, dtype=np.float32)
    with DCDTrajectoryFile(str(path), "w") as file:
        file.write(places.astype(np.float32), **cells)
    return path


def xtc(path: Path, places: Places, box: float | None = None) -> Path:
    vectors = None
    if box is not None:
        vectors = np.tile(
            np.float32(box / 10) * np.eye(3, dtype="f4"), (len(places), 1, 1)
        )
    with XTCTrajectoryFile(str(path), "w") as file:
        file.write(places.astype(np.float32) / 10, box=vectors)
    return path


def from_each_other(one: Places, other: Places) -> float:
    """Return the largest difference of distances from atoms to the first, in A."""
    lengths = [np.linalg.norm(p - p[:, :1], axis=2) for p in (one, other)]
    return float(np.abs(lengths[0] - lengths[1]).max())


@pytest.mark.parametrize("write", [dcd, xtc])
def test_molecules_cut_by_their_box_are_made_whole(
    write: type, protein: AtomicModel, places: Places, tmp_path: Path
) -> None:
    wrapped = (places + 11.0) % BOX
    assert from_each_other(wrapped, places) > 20
    path = write(tmp_path / f"a.{write.__name__}", wrapped, BOX)
    found = frames_of(path, every(protein), protein)
    assert from_each_other(found, places) < 4 * XTC_ANGSTROM


def test_copies_in_other_cells_come_together(tmp_path: Path) -> None:
    pair = symmetric_copies(example_atoms("adenylate-kinase-open"), "C2", 16.0)
    frames = np.stack([pair.coordinates_angstrom] * 3)
    frames[1, np.array(pair.chain_names) == "B"] += (0.0, 3 * 120.0, -120.0)
    found = frames_of(dcd(tmp_path / "a.dcd", frames, 120.0), every(pair), pair)
    # Single precision of hundreds of angstrom.
    assert np.abs(found - pair.coordinates_angstrom).max() < 1e-3


def test_without_a_box_the_frame_is_named(
    protein: AtomicModel, places: Places, tmp_path: Path
) -> None:
    wrapped = places.copy()
    wrapped[2] = (wrapped[2] + 11.0) % BOX
    path = dcd(tmp_path / "a.dcd", wrapped)
    with pytest.raises(InputError, match=r"frame 3 of .*a\.dcd is not whole: A "):
        frames_of(path, every(protein), protein)


def reordered(places: Places) -> Places:
    shuffled = np.random.default_rng(0).permutation(places.shape[1])
    found = places.copy()
    found[3] = found[3][shuffled]
    return found


def in_nanometres(places: Places) -> Places:
    return places / 10


def in_angstrom_of_nanometres(places: Places) -> Places:
    return places * 10


def another(places: Places) -> Places:
    drawn = np.random.default_rng(0).normal(scale=15.0, size=places.shape)
    return np.where(np.arange(len(places))[:, None, None] > 3, drawn, places)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (reordered, r"frame 4 .* not whole|frame 4 of .* RMSD"),
        (another, r"frame 5 .* not whole|frame 5 of .* RMSD"),
        (in_nanometres, r"frame 1 of .* it is \d+\.\d A from it .*0\.1 times as long"),
        (in_angstrom_of_nanometres, r"frame 1 of .* is not whole"),
    ],
)
def test_frames_of_something_else_are_refused(
    change: type, said: str, protein: AtomicModel, places: Places, tmp_path: Path
) -> None:
    path = dcd(tmp_path / "a.dcd", change(places))
    with pytest.raises(InputError, match=said):
        frames_of(path, every(protein), protein)


def test_a_copy_that_has_left_is_refused(tmp_path: Path) -> None:
    pair = symmetric_copies(example_atoms("adenylate-kinase-open"), "C2", 16.0)
    frames = np.stack([pair.coordinates_angstrom] * 3)
    frames[1, np.array(pair.chain_names) == "B"] += (0.0, 300.0, 0.0)
    with pytest.raises(InputError, match=r"frame 2 .* A from it .* molecules together"):
        frames_of(dcd(tmp_path / "a.dcd", frames), every(pair), pair)


def test_the_largest_motion_of_the_protein_is_no_stranger(
    protein: AtomicModel, tmp_path: Path
) -> None:
    closed = example_atoms("adenylate-kinase-closed")
    frames = np.stack([closed.coordinates_angstrom])
    found = frames_of(dcd(tmp_path / "a.dcd", frames), every(protein), protein)
    apart = np.sqrt(((found[0] - protein.coordinates_angstrom) ** 2).sum(1).mean())
    assert apart == pytest.approx(6.99, abs=0.01)


@pytest.mark.skipif(not REAL.is_dir(), reason="wants the real trajectory of shared")
def test_a_real_trajectory_passes() -> None:
    given = named_structure(str(REAL / "models/adk_4ake_open_charmm.pdb"))
    found = frames_of(REAL / "traj/adk_dims2.dcd", given.kept, given.model)
    assert found.shape == (102, 1656, 3)
