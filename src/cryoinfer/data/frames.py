"""The gate that trajectories come in by: frames of a model, whole and on its place."""

from pathlib import Path

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoinfer.data.periodic import Chains, ResidueTree
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel, KeptAtoms
from cryoinfer.io.trajectories import Frames, read_frames

_LONGER_ANGSTROM = 10.0
"""Than in the model, above which neighbours along a chain are torn apart."""

_NEIGHBOUR_ANGSTROM = 5.0
_SHORTEST, _LONGEST = 0.4, 2.5
"""Over its length in the model, of the way from an atom to the one that is nearest
there: bonds keep theirs, also where a path leads straight through a turn."""

_STRAYED = 0.1
"""Of such ways, that may be otherwise: ends of side chains without hydrogens touch."""


def frames_of(
    trajectory: Path | str, kept: KeptAtoms, model: AtomicModel
) -> NDArray[np.float64]:
    """Return a trajectory's frames of a model, each superposed on it, (f, a, 3).

    Parameters
    ----------
    trajectory : path
        What :func:`cryoinfer.io.trajectories.read_frames` reads.
    kept : KeptAtoms
        Which atoms of the structure's file the model holds.
    model : AtomicModel

    Raises
    ------
    InputError
        If the file cannot be used, a molecule lies in parts and no periodic cell says
        how they belong together, or a frame is not one of the model: other molecule,
        other order of atoms, or not in angstrom.
    """
    chains = Chains.of(model)
    frames = read_frames(trajectory, kept)
    places = _whole(frames, chains, model)
    _require_unbroken(places, chains, model, trajectory)
    _require_shape(places, model, trajectory)
    onto = torch.from_numpy(model.coordinates_angstrom)
    placed = superposed(torch.from_numpy(places), onto).numpy()
    _require_near(placed, model, trajectory)
    return placed


def _whole(frames: Frames, chains: Chains, model: AtomicModel) -> NDArray[np.float64]:
    """Return frames whose molecules no periodic cell has cut."""
    places = frames.coordinates_angstrom.astype(np.float64)
    if frames.vectors_angstrom is None:
        return places
    tree = ResidueTree.of(model.coordinates_angstrom, chains)
    return tree.whole(places, chains, frames.vectors_angstrom)


def _require_unbroken(
    places: NDArray[np.float64],
    chains: Chains,
    model: AtomicModel,
    trajectory: Path | str,
) -> None:
    rest = chains.apart_angstrom(model.coordinates_angstrom)
    longer = chains.apart_angstrom(places) - rest
    if not longer.size or longer.max() < _LONGER_ANGSTROM:
        return
    frame = int((longer >= _LONGER_ANGSTROM).any(1).argmax())
    pair = int(longer[frame].argmax())
    one, other = chains.anchor[[chains.first[pair], chains.second[pair]]].tolist()
    raise InputError(
        f"frame {frame + 1} of {trajectory} is not whole: "
        f"{model.residue_label(one)} and {model.residue_label(other)} follow each "
        f"other {rest[pair]:.1f} A apart in the structure, and "
        f"{rest[pair] + longer[frame, pair]:.1f} A there. Where a periodic box has cut "
        "the molecule, make it whole (gmx trjconv -pbc mol, cpptraj autoimage); or is "
        "this the trajectory of another structure?"
    )


def _require_shape(
    places: NDArray[np.float64], model: AtomicModel, trajectory: Path | str
) -> None:
    """Refuse frames in which atoms that are bonded in the model are not."""
    at = model.coordinates_angstrom
    if len(at) < 2:
        return
    away, near = cKDTree(at).query(at, k=2)
    row = np.flatnonzero(away[:, 1] < _NEIGHBOUR_ANGSTROM)
    other = near[row, 1]
    if not len(row):
        return
    for number, frame in enumerate(places, 1):
        now = np.linalg.norm(frame[row] - frame[other], axis=1) / away[row, 1]
        strayed = float(((now < _SHORTEST) | (now > _LONGEST)).mean())
        if strayed > _STRAYED:
            raise _stranger(
                number,
                trajectory,
                f"{strayed:.0%} of its atoms are not where their neighbours in the "
                f"structure are (their distances are {np.median(now):.2g} times as "
                "long)",
                _rmsd(frame, at),
            )


def _require_near(
    placed: NDArray[np.float64], model: AtomicModel, trajectory: Path | str
) -> None:
    """Refuse frames as far from the model as another molecule of its size."""
    at = model.coordinates_angstrom
    radius = float(np.sqrt(((at - at.mean(0)) ** 2).sum(1).mean()))
    apart = np.sqrt(((placed - at) ** 2).sum(2).mean(1))
    if apart.max() > radius > 0:
        number = int((apart > radius).argmax())
        raise _stranger(
            number + 1,
            trajectory,
            f"the structure's own radius of gyration is {radius:.1f} A",
            float(apart[number]),
        )


def _stranger(
    number: int, trajectory: Path | str, said: str, rmsd_angstrom: float
) -> InputError:
    return InputError(
        f"frame {number} of {trajectory} is not one of the structure: it is "
        f"{rmsd_angstrom:.1f} A from it (RMSD after superposition), and {said}. "
        "Expected the same molecule, its atoms in the order of the structure's file, "
        "in angstrom (DCD, PDB) or nanometres (XTC), and its molecules together"
    )


def _rmsd(frame: NDArray[np.float64], at: NDArray[np.float64]) -> float:
    """Return how far a frame is from a model, once superposed."""
    placed = superposed(torch.from_numpy(frame[None]), torch.from_numpy(at))[0].numpy()
    return float(np.sqrt(((placed - at) ** 2).sum(1).mean()))


def superposed(frames: Tensor, coordinates: Tensor) -> Tensor:
    """Return frames turned and moved to lie on a structure, float64, (f, a, 3).

    By least squares over all atoms, so that poses mean the same in every frame.

    Parameters
    ----------
    frames : Tensor, shape (f, a, 3)
    coordinates : Tensor, shape (a, 3)
    """
    onto = coordinates.double()
    found = []
    for frame in frames.double():
        rotation, translation = roma.rigid_points_registration(frame, onto)
        found.append(frame @ rotation.mT + translation)
    return torch.stack(found)
