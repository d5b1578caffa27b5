"""The gate that structures of users come in by: read, tested, and what to know."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryoinfer.data.periodic import Chains, torn_atoms, whole_model
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel, KeptAtoms, ReadStructure, read_structure

_COINCIDENT_ANGSTROM = 0.05
_SHARED = 0.01
"""Of atoms, that may lie on others: metals that share a site do, copies of a chain do
with all."""

_FEW = 3
_FACE_ANGSTROM = 25.0
"""Of a jump within a chain, at least, and within which share of it along one axis: what
a box has cut is a box apart, loops that are left out are not."""

_ALONG_AXIS = 0.99


@dataclass(frozen=True)
class GivenStructure:
    """A structure that may be used.

    Attributes
    ----------
    model : AtomicModel
        Whole, where a periodic box had cut it.
    kept : KeptAtoms
        Which atoms of the file those are.
    notes : tuple of str
        What is left out and why, and what else a user should know.
    """

    model: AtomicModel
    kept: KeptAtoms
    notes: tuple[str, ...]


def given_structure(path: str) -> GivenStructure:
    """Read an mmCIF or PDB file, and refuse what cannot be a structure.

    Parameters
    ----------
    path : str

    Raises
    ------
    InputError
        If the file cannot be read, atoms lie at no place or on each other, or a
        periodic box of unknown size has cut its molecules.
    """
    found = read_structure(path)
    model = found.model
    _require_apart(model, path)
    chains = Chains.of(model)
    made_whole = False
    if found.cell is not None:
        whole = whole_model(
            model.coordinates_angstrom,
            chains,
            found.cell.vectors_angstrom,
            found.cell.alone,
        )
        made_whole = not np.array_equal(whole, model.coordinates_angstrom)
        if made_whole:
            model = replace(model, coordinates_angstrom=whole)
    _require_whole(model, chains, path)
    notes = tuple(_notes(found, path, made_whole))
    return GivenStructure(model, found.kept, notes)


def _notes(found: ReadStructure, path: str, made_whole: bool) -> Iterator[str]:
    if found.models > 1:
        yield (
            f"{path} holds {found.models} models: the first is used. Particles that "
            "show all of them come from `cryoinfer simulate --trajectory`; models that "
            "are the copies of one assembly belong into one."
        )
    if left_out := str(found.left_out):
        yield f"Left out of {path}: {left_out}"
    if found.named_chains:
        yield (
            f"{path} names chains alike or not at all: here they are called "
            f"{_some(found.named_chains)}"
        )
    if made_whole:
        yield f"Molecules of {path} that its periodic box had cut are made whole"
    if found.odd_b_factors:
        yield (
            f"B-factors of {found.odd_b_factors:,} atoms are no numbers from 0 to "
            "10,000 A2: none is used"
        )
    if found.odd_occupancies:
        yield (
            f"Occupancies of {found.odd_occupancies:,} atoms are 0 or none can be: all "
            "atoms count as there"
        )


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_FEW])
    return shown if len(names) <= _FEW else f"{shown} ... {names[-1]}"


def _require_apart(model: AtomicModel, path: str) -> None:
    """Refuse atoms on each other."""
    pairs = np.array([[0, 1]])
    if not _is_point(model):
        tree = cKDTree(model.coordinates_angstrom)
        pairs = tree.query_pairs(_COINCIDENT_ANGSTROM, output_type="ndarray")
    if _is_point(model) or len(pairs) > max(_FEW, _SHARED * len(model)):
        first, second = (model.residue_label(int(row)) for row in pairs[0])
        every = "all atoms" if _is_point(model) else f"{len(np.unique(pairs)):,} atoms"
        raise InputError(
            f"{path}: {every} of {len(model):,} lie on others, such as those of "
            f"{first} and {second}: expected a place an atom. Look for copies of a "
            "chain or a model, or for coordinates that were never filled in"
        )


def _is_point(model: AtomicModel) -> bool:
    extent = np.ptp(model.coordinates_angstrom, axis=0).max()
    return len(model) > 1 and bool(extent < _COINCIDENT_ANGSTROM)


def _require_whole(model: AtomicModel, chains: Chains, path: str) -> None:
    """Refuse chains that jump along an axis, as those do that a box has cut."""
    at = model.coordinates_angstrom[chains.anchor]
    jump = np.abs(at[chains.second] - at[chains.first])
    length: NDArray[np.float64] = np.linalg.norm(jump, axis=1)
    torn = torn_atoms(model.coordinates_angstrom, chains)
    cut = (length > _FACE_ANGSTROM) & (jump.max(1, initial=0) > _ALONG_AXIS * length)
    if not cut.any() and not torn.any():
        return
    if cut.any():
        row = int(cut.argmax())
        one, other = chains.anchor[[chains.first[row], chains.second[row]]].tolist()
        said = (
            f"{model.residue_label(one)} and {model.residue_label(other)} follow each "
            f"other {length[row]:.0f} A apart"
        )
    else:
        row = int(torn.argmax())
        said = f"{model.residue_label(row)} lies in parts"
    raise InputError(
        f"{path}: {said}, as where a periodic box has cut a molecule, and the file "
        "does not say how large the box is. Make molecules whole (gmx trjconv "
        "-pbc mol, cpptraj autoimage), or give the box in a CRYST1 record"
    )
