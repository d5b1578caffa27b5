"""The nodes of a structure: one a residue, and which of them an atom goes with."""

from dataclasses import dataclass
from typing import Self

import gemmi
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.physics.structures.deformation import turns

_ALPHA_CARBON, _PHOSPHORUS = ("CA", "C"), ("P", "P")  # name and element
_BACKBONE = {"N", "CA", "C"}
"""Atoms that tell amino acids under names of their own (HSD) from ligands. Nucleotides
have nothing that AMP has not: strange ones get no node."""


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
    """

    atom: NDArray[np.int64]
    of_atom: NDArray[np.int64]

    @classmethod
    def of_model(cls, model: AtomicModel) -> Self:
        """Take the alpha carbons of amino acids and the phosphorus of nucleotides.

        Raises
        ------
        InputError
            If there are none of either.
        """
        residue = _residue_of_atom(model)
        names: list[set[str]] = [set() for _ in range(residue.max() + 1)]
        for row, name in enumerate(model.atom_names):
            names[residue[row]].add(name)
        chosen = [
            row
            for row, named in enumerate(
                zip(model.atom_names, model.elements, strict=True)
            )
            if _is_node(named, model.residue_names[row], names[residue[row]])
        ]
        if not chosen:
            raise InputError(
                "found no alpha carbon (CA) of an amino acid and no phosphorus (P) of "
                f"a nucleotide among {len(model)} atoms: expected a protein, or a "
                "nucleic acid"
            )
        # Of a residue that has several, the first.
        _, first = np.unique(residue[chosen], return_index=True)
        atom = np.array(chosen, dtype=np.int64)[first]
        node_of_residue = np.full(residue.max() + 1, -1, dtype=np.int64)
        node_of_residue[residue[atom]] = np.arange(len(atom))
        of_atom = node_of_residue[residue]
        without = of_atom < 0
        if without.any():
            coordinates = model.coordinates_angstrom
            _, nearest = cKDTree(coordinates[atom]).query(coordinates[without])
            of_atom[without] = nearest
        return cls(atom, of_atom)

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


def _residue_of_atom(model: AtomicModel) -> NDArray[np.int64]:
    """Return the number of each atom's residue, shape (a,).

    A new one begins wherever its chain, its number or its name changes.
    """
    keys = list(
        zip(
            model.chain_names,
            model.residue_numbers,
            model.insertion_codes,
            model.residue_names,
            strict=True,
        )
    )
    begins = [row > 0 and keys[row] != keys[row - 1] for row in range(len(keys))]
    return np.cumsum(begins).astype(np.int64)


def _is_node(named: tuple[str, str], residue_name: str, beside: set[str]) -> bool:
    """Tell whether an atom, of a name and an element, stands for its residue."""
    known = gemmi.find_tabulated_residue(residue_name)
    if named == _ALPHA_CARBON:
        return known.is_amino_acid() or beside >= _BACKBONE
    return named == _PHOSPHORUS and known.is_nucleic_acid()
