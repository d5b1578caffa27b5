"""The nodes of a structure: one a residue, and which of them an atom goes with."""

from collections import Counter
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.physics.structures.deformation import turns

_NODE_OF = {"amino acid": ("CA", "C"), "nucleotide": ("P", "P")}  # name and element


@dataclass(frozen=True)
class Nodes:
    """Some atoms of a model that stand for their residues.

    Attributes
    ----------
    atom : ndarray of int64, shape (n,)
        Rows of the nodes among the atoms.
    of_atom : ndarray of int64, shape (a,)
        The node that each atom goes with: that of its residue; in a residue without
        one (a ligand, the first nucleotide of a chain) the nearest.
    without : Counter
        Residues without a node, by what they are: ``"NAG"``, or ``"DA without a
        phosphate"``.
    """

    atom: NDArray[np.int64]
    of_atom: NDArray[np.int64]
    without: Counter[str]

    @classmethod
    def of_model(cls, model: AtomicModel) -> Self:
        """Take the alpha carbons of amino acids and the phosphorus of nucleotides.

        Raises
        ------
        InputError
            If there are none of either.
        """
        residues, kinds = model.residues(), model.residue_kinds()
        nodes = [_node(model, *one) for one in zip(residues, kinds, strict=True)]
        chosen = [row for row in nodes if row is not None]
        if not chosen:
            raise InputError(
                "found no alpha carbon (CA) of an amino acid and no phosphorus (P) of "
                f"a nucleotide among {len(model)} atoms: expected a protein, or a "
                "nucleic acid"
            )
        atom = np.array(chosen, dtype=np.int64)
        has = np.array([row is not None for row in nodes])
        node_of_residue = np.where(has, np.cumsum(has) - 1, -1)
        of_atom = np.repeat(node_of_residue, [len(rows) for rows in residues])
        without = of_atom < 0
        if without.any():
            coordinates = model.coordinates_angstrom
            _, nearest = cKDTree(coordinates[atom]).query(coordinates[without])
            of_atom[without] = nearest
        lacking = Counter(
            _lacking(model.residue_names[rows[0]], kind)
            for rows, kind, node in zip(residues, kinds, nodes, strict=True)
            if node is None
        )
        return cls(atom, of_atom, lacking)

    def __len__(self) -> int:
        return len(self.atom)

    def coordinates_angstrom(self, model: AtomicModel) -> NDArray[np.float64]:
        """Return where the nodes of a model are, shape (n, 3)."""
        return model.coordinates_angstrom[self.atom]

    def extended(self, displacement: Tensor, model: AtomicModel) -> Tensor:
        """Return displacements (..., n, 3) of nodes as ones of all atoms, (..., a, 3).

        Residues move as rigid bodies: with their nodes, and turned as the nodes around
        them are.
        """
        before = torch.from_numpy(self.coordinates_angstrom(model))
        of_atom = torch.from_numpy(self.of_atom)
        turn = turns(before, displacement)[..., of_atom, :]
        arm = torch.from_numpy(model.coordinates_angstrom) - before[of_atom]
        turned = torch.linalg.cross(turn, arm.expand_as(turn))
        return displacement[..., of_atom, :] + turned


def node_rows(model: AtomicModel) -> list[int | None]:
    """Return the atom that stands for each residue, None for those without."""
    pairs = zip(model.residues(), model.residue_kinds(), strict=True)
    return [_node(model, rows, kind) for rows, kind in pairs]


def _node(model: AtomicModel, rows: range, kind: str) -> int | None:
    """Return the atom that stands for a residue, None where there is none."""
    for row in rows:
        if (model.atom_names[row], model.elements[row]) == _NODE_OF.get(kind):
            return row
    return None


def _lacking(name: str, kind: str) -> str:
    return f"{name} without a phosphate" if kind == "nucleotide" else name
