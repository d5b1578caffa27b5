"""Molecules that a periodic box has cut, made whole.

Programs of molecular dynamics may write every atom at its image inside the box: a
molecule that crosses a face then lies in parts at either end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    minimum_spanning_tree,
)
from scipy.spatial import cKDTree

from cryoinfer.data.nodes import node_rows
from cryoinfer.io.atoms import AtomicModel

BONDED_ANGSTROM = 9.0
"""Between the nodes of neighbours along a chain, at most: alpha carbons are 3.8, the
phosphorus of nucleotides up to 7.5 apart."""

CUT_ANGSTROM = 15.0
"""Between neighbours along a chain, or an atom and its residue's node: farther ones are
not bonded as they stand."""

_BOND_ANGSTROM = 3.0  # at most, with an atom left out between
_CONTACT_ANGSTROM = 6.0  # of a molecule with the next
_NO_CONTACT_ANGSTROM = 10.0
_NEAREST = 12  # residues around each that a tree may join it to

Places = NDArray[np.float64]


@dataclass(frozen=True)
class Chains:
    """Residues of a model, and which of them follow each other along a chain.

    Attributes
    ----------
    anchor : ndarray of int64, shape (r,)
        An atom of each residue: its node where it has one, or else the first.
    of_atom : ndarray of int64, shape (a,)
        The residue of each atom.
    first, second : ndarray of int64, shape (b,)
        Residues with nodes whose numbers follow each other.
    """

    anchor: NDArray[np.int64]
    of_atom: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @classmethod
    def of(cls, model: AtomicModel) -> Self:
        """Return the chains of a model."""
        residues, nodes = model.residues(), node_rows(model)
        anchor = [
            rows[0] if node is None else node
            for rows, node in zip(residues, nodes, strict=True)
        ]
        polymer = [place for place, node in enumerate(nodes) if node is not None]
        pairs = [
            (one, other)
            for one, other in pairwise(polymer)
            if _follows(model, anchor[one], anchor[other])
        ]
        first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        lengths = [len(rows) for rows in residues]
        of_atom = np.repeat(np.arange(len(residues)), lengths)
        return cls(np.array(anchor, dtype=np.int64), of_atom, first, second)

    def apart_angstrom(self, coordinates_angstrom: Places) -> Places:
        """Return how far neighbours along the chains are apart, shape (..., b)."""
        at = coordinates_angstrom[..., self.anchor, :]
        return np.linalg.norm(at[..., self.second, :] - at[..., self.first, :], axis=-1)


def _follows(model: AtomicModel, one: int, other: int) -> bool:
    same = model.chain_names[one] == model.chain_names[other]
    return same and 0 <= model.residue_numbers[other] - model.residue_numbers[one] <= 1


def nearest_image(apart_angstrom: Places, vectors_angstrom: Places) -> Places:
    """Return the shift by a cell's vectors that brings points nearest, (..., 3).

    Of points that are less than half a cell apart in truth.

    Parameters
    ----------
    apart_angstrom : ndarray, shape (..., 3)
    vectors_angstrom : ndarray, shape (3, 3)
        A row each.
    """
    return -np.rint(apart_angstrom @ np.linalg.inv(vectors_angstrom)) @ vectors_angstrom


def whole_model(
    coordinates_angstrom: Places,
    chains: Chains,
    vectors_angstrom: Places,
    together: bool,
) -> Places:
    """Return a model with its molecules whole.

    Parameters
    ----------
    coordinates_angstrom : ndarray, shape (a, 3)
    chains : Chains
    vectors_angstrom : ndarray, shape (3, 3)
        Of the cell, a row each.
    together : bool
        Whether to bring molecules near each other as well, that touch in the next cell
        only.

    Returns
    -------
    ndarray, shape (a, 3)
    """
    moved = np.array(coordinates_angstrom, dtype=np.float64)
    arm = moved - moved[chains.anchor][chains.of_atom]
    torn = torn_atoms(moved, chains)
    moved[torn] += nearest_image(arm[torn], vectors_angstrom)
    at = moved[chains.anchor]
    shift, piece = np.zeros_like(at), np.arange(len(at))
    for one, other in zip(chains.first, chains.second, strict=True):
        apart = at[other] - at[one]
        near = nearest_image(apart, vectors_angstrom)
        cut = np.linalg.norm(apart) > CUT_ANGSTROM
        if cut and np.linalg.norm(apart + near) < BONDED_ANGSTROM:
            shift[other] = near
        shift[other] += shift[one]
        piece[other] = piece[one]
    moved += shift[chains.of_atom]
    return (
        _together(moved, piece[chains.of_atom], vectors_angstrom) if together else moved
    )


def torn_atoms(coordinates_angstrom: Places, chains: Chains) -> NDArray[np.bool_]:
    """Return which atoms are of residues that lie in parts, shape (a,).

    Of those with atoms far from their anchor; long ligands have such and are whole.
    """
    at = np.asarray(coordinates_angstrom)
    arm = np.linalg.norm(at - at[chains.anchor][chains.of_atom], axis=1)
    torn = np.zeros(len(at), dtype=bool)
    for residue in np.unique(chains.of_atom[arm > CUT_ANGSTROM]).tolist():
        rows = np.flatnonzero(chains.of_atom == residue)
        bonds = cKDTree(at[rows]).sparse_distance_matrix(
            cKDTree(at[rows]), _BOND_ANGSTROM
        )
        torn[rows] = connected_components(bonds, directed=False)[0] > 1
    return torn


def _together(moved: Places, piece: NDArray[np.int64], vectors: Places) -> Places:
    """Return molecules where they touch the largest group of them, if they can."""
    group = _groups(moved, piece)
    names, counts = np.unique(group, return_counts=True)
    largest, *others = names[np.argsort(-counts)].tolist()
    shifts = np.array(list(product((0, -1, 1), repeat=3))) @ vectors
    placed, found = np.flatnonzero(group == largest), moved.copy()
    tree = cKDTree(found[placed])
    for name in others:
        rows = np.flatnonzero(group == name)
        away = [float(tree.query(found[rows] + one)[0].min()) for one in shifts]
        if away[0] > _NO_CONTACT_ANGSTROM and min(away) < _CONTACT_ANGSTROM:
            found[rows] += shifts[int(np.argmin(away))]
            placed = np.concatenate([placed, rows])
            tree = cKDTree(found[placed])
    return found


def _groups(at: Places, piece: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which group of pieces, in touch with each other, an atom is of.

    By cells of a grid that are neighbours: atoms nearer than a cell's side are in such.
    """
    sides = np.floor(at / _CONTACT_ANGSTROM).astype(np.int64)
    cells, cell = np.unique(sides, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    beside = cKDTree(cells).query_pairs(1.8, output_type="ndarray")
    # All of a piece are together.
    _, first, own = np.unique(piece, return_index=True, return_inverse=True)
    one = np.concatenate([beside[:, 0], cell])
    other = np.concatenate([beside[:, 1], cell[first][own.reshape(-1)]])
    shape = (len(cells), len(cells))
    graph = coo_matrix((np.ones(len(one)), (one, other)), shape)
    return connected_components(graph, directed=False)[1][cell].astype(np.int64)


@dataclass(frozen=True)
class ResidueTree:
    """Which residue of a model each other is placed by: one that is near.

    Attributes
    ----------
    child, parent : ndarray of int64, shape (r - 1,)
        Parents come before their children.
    arm_angstrom : ndarray, shape (a,)
        From each atom to the anchor of its residue.
    """

    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    arm_angstrom: Places

    @classmethod
    def of(cls, coordinates_angstrom: Places, chains: Chains) -> Self:
        """Join the residues of a model that is whole, by the shortest ways."""
        at = np.asarray(coordinates_angstrom[chains.anchor], dtype=np.float64)
        arm = np.linalg.norm(coordinates_angstrom - at[chains.of_atom], axis=1)
        count = len(at)
        if count < 2:
            none = np.zeros(0, dtype=np.int64)
            return cls(none, none, arm)
        away, near = cKDTree(at).query(at, k=min(_NEAREST, count))
        rows = np.repeat(np.arange(count), near.shape[1])
        # Zero is no edge to scipy.
        graph = coo_matrix(
            (np.maximum(away.ravel(), 1e-6), (rows, near.ravel())), (count, count)
        )
        edges = coo_matrix(minimum_spanning_tree(graph))
        bridges = list(_bridges(at, edges))
        one = np.concatenate([edges.row, *(main for main, _ in bridges)])
        other = np.concatenate([edges.col, *(piece for _, piece in bridges)])
        tree = coo_matrix((np.ones(len(one)), (one, other)), (count, count)).tocsr()
        order, before = breadth_first_order(tree, 0, directed=False)
        child = order[1:].astype(np.int64)
        return cls(child, before[child].astype(np.int64), arm)

    def whole(self, frames: Places, chains: Chains, vectors_angstrom: Places) -> Places:
        """Return frames (f, a, 3) with residues near those that place them.

        Parameters
        ----------
        frames : ndarray, shape (f, a, 3)
        chains : Chains
        vectors_angstrom : ndarray, shape (f, 3, 3)
            Of each frame's cell, a row each.
        """
        moved = np.array(frames)
        for frame, vectors in zip(moved, vectors_angstrom, strict=True):
            at = frame[chains.anchor]
            arm = frame - at[chains.of_atom]
            longer = np.linalg.norm(arm, axis=1) - self.arm_angstrom
            torn = longer > CUT_ANGSTROM
            inner = np.where(torn[:, None], nearest_image(arm, vectors), 0.0)
            step = nearest_image(at[self.child] - at[self.parent], vectors)
            shift = np.zeros_like(at)
            if step.any():
                shift[self.child] = step
                for child, parent in zip(self.child, self.parent, strict=True):
                    shift[child] += shift[parent]
            frame += inner + shift[chains.of_atom]
        return moved


def _bridges(
    at: Places, edges: coo_matrix
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the shortest way from the first of several pieces to each other."""
    count, label = connected_components(edges, directed=False)
    main = np.flatnonzero(label == label[0])
    tree = cKDTree(at[main])
    for piece in range(count):
        if piece != label[0]:
            rows = np.flatnonzero(label == piece)
            away, near = tree.query(at[rows])
            best = int(np.argmin(away))
            yield main[[near[best]]], rows[[best]]
