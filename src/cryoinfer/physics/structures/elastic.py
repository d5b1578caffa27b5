"""Elastic networks: the ways in which a structure moves most easily.

Nodes that are near each other are joined by springs, at rest in the given structure
(anisotropic network model: Atilgan et al., Biophys. J. 80, 505-515, 2001). The softest
normal modes of such a network are often those of the molecule.

Stiffness is in units of one spring, lengths are in angstrom. The amplitude of a mode is
the root mean square displacement of the nodes along it.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh, splu
from scipy.spatial import cKDTree
from torch import Tensor

from cryoinfer.errors import InputError

SpringLaw = Literal["constant", "inverse-square"]
"""All springs alike; or as stiff as the inverse square of their length, 1 at 3.8
angstrom, the distance of neighbouring alpha carbons (Yang et al., PNAS 106, 12347,
2009)."""

RIGID_MOTIONS = 6
FEWEST_NODES = 4

_NEIGHBOUR_ANGSTROM = 3.8
_COINCIDENT_ANGSTROM = 0.1
_FREE = 1e-8
"""Stiffness of a mode, over the nodes' mean, that counts as none: rounding leaves 1e-15
of a rigid motion, and the softest modes of large complexes have 1e-5."""

_DENSE_NODES = 150  # up to which a dense matrix is faster
_SHIFT = 1e-6  # over the mean stiffness of the nodes


@dataclass(frozen=True)
class ElasticNetwork:
    """Nodes, and springs between them.

    Attributes
    ----------
    coordinates_angstrom : ndarray of float64, shape (n, 3)
        Where all springs are at rest.
    first, second : ndarray of int64, shape (s,)
        The nodes that a spring joins.
    stiffness : ndarray of float64, shape (s,)
    """

    coordinates_angstrom: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    stiffness: NDArray[np.float64]

    @classmethod
    def between(
        cls,
        coordinates_angstrom: NDArray[np.float64],
        cutoff_angstrom: float = 15.0,
        law: SpringLaw = "constant",
    ) -> Self:
        """Join all nodes up to a distance.

        Parameters
        ----------
        coordinates_angstrom : ndarray, shape (n, 3)
        cutoff_angstrom : float
            Length of the longest spring.
        law : {"constant", "inverse-square"}

        Raises
        ------
        InputError
            If nodes are fewer than four, coincide or are not finite.
        """
        nodes = np.asarray(coordinates_angstrom, dtype=np.float64)
        if len(nodes) < FEWEST_NODES:
            raise InputError(
                f"an elastic network takes {FEWEST_NODES} nodes or more, found "
                f"{len(nodes)}"
            )
        if not np.isfinite(nodes).all():
            row = int(np.argmin(np.isfinite(nodes).all(1)))
            raise InputError(f"the coordinates of node {row + 1} are not finite")
        pairs = cKDTree(nodes).query_pairs(cutoff_angstrom, output_type="ndarray")
        # In an order that does not depend on the tree.
        pairs = pairs[np.lexsort(pairs.T[::-1])].astype(np.int64)
        length = np.linalg.norm(nodes[pairs[:, 0]] - nodes[pairs[:, 1]], axis=1)
        if len(length) and length.min() < _COINCIDENT_ANGSTROM:
            one, other = pairs[length.argmin()] + 1
            raise InputError(
                f"nodes {one} and {other} are {length.min():.2g} A apart: expected "
                "one node a residue; look for duplicate chains or models"
            )
        stiffness = np.ones_like(length)
        if law == "inverse-square":
            stiffness = (_NEIGHBOUR_ANGSTROM / length) ** 2
        return cls(nodes, pairs[:, 0], pairs[:, 1], stiffness)

    def __len__(self) -> int:
        return len(self.coordinates_angstrom)

    def energy(self, coordinates_angstrom: Tensor) -> Tensor:
        """Return the energy of nodes elsewhere, shape (...), differentiably.

        Half the stiffness times the square of each spring's change of length: unlike
        the normal modes it does not mind how far, and turns cost nothing.

        Parameters
        ----------
        coordinates_angstrom : Tensor, shape (..., n, 3)
        """
        rest = torch.from_numpy(self.coordinates_angstrom).to(coordinates_angstrom)
        first, second = torch.from_numpy(self.first), torch.from_numpy(self.second)

        def length(nodes: Tensor) -> Tensor:
            return (nodes[..., first, :] - nodes[..., second, :]).norm(dim=-1)

        change = length(coordinates_angstrom) - length(rest)
        stiffness = torch.from_numpy(self.stiffness).to(rest)
        return 0.5 * (stiffness * change.square()).sum(-1)

    def hessian(self) -> sparse.csc_matrix:
        """Return the second derivatives of the energy at rest, shape (3n, 3n).

        Row and column ``3 i + c`` are axis c of node i.
        """
        n = len(self)
        apart = self.coordinates_angstrom[self.first]
        apart = apart - self.coordinates_angstrom[self.second]
        squared = (apart**2).sum(1)
        outer = apart[:, :, None] * apart[:, None, :]
        block = outer * (self.stiffness / squared)[:, None, None]
        own = np.zeros((n, 3, 3))
        np.add.at(own, self.first, block)
        np.add.at(own, self.second, block)
        every = np.arange(n)
        rows = np.concatenate([self.first, self.second, every])
        columns = np.concatenate([self.second, self.first, every])
        values = np.concatenate([-block, -block, own])
        axis = np.arange(3)
        row = np.broadcast_to(3 * rows[:, None, None] + axis[:, None], values.shape)
        column = np.broadcast_to(3 * columns[:, None, None] + axis, values.shape)
        triplets = values.ravel(), (row.ravel(), column.ravel())
        return sparse.coo_matrix(triplets, shape=(3 * n, 3 * n)).tocsc()

    def pieces(self) -> NDArray[np.int64]:
        """Return the number of the connected piece that each node is in, shape (n,)."""
        ones = np.ones(len(self.first))
        shape = (len(self), len(self))
        joined = sparse.coo_matrix((ones, (self.first, self.second)), shape=shape)
        _, labels = connected_components(joined, directed=False)
        return np.asarray(labels, dtype=np.int64)

    def normal_modes(self, count: int) -> "NormalModes":
        """Return the softest normal modes, the rigid motions left out.

        By shift and invert: the matrix is sparse and stays so.

        Parameters
        ----------
        count : int
            At most ``3 n - 6``.

        Raises
        ------
        InputError
            If there are not as many modes, or other motions than the six rigid ones
            cost nothing: the network is in pieces, or nodes hang by too few springs.
        """
        most = 3 * len(self) - RIGID_MOTIONS
        if not 1 <= count <= most:
            raise InputError(
                f"{len(self)} nodes have {most} normal modes: expected --modes from 1 "
                f"to {most}, found {count}"
            )
        self._require_one_piece()
        hessian = self.hessian()
        values, vectors = _softest(hessian, count + RIGID_MOTIONS)
        free = int((values < _FREE * hessian.diagonal().mean()).sum())
        if free != RIGID_MOTIONS:
            ends = np.concatenate([self.first, self.second])
            loose = int(np.bincount(ends, minlength=len(self)).argmin())
            raise InputError(
                f"the elastic network has {free} motions that cost nothing, expected "
                f"the {RIGID_MOTIONS} of a rigid body: nodes hang by too few springs "
                f"(as node {loose + 1} may). Raise the cutoff, or leave loose ends out"
            )
        kept = vectors[:, RIGID_MOTIONS:].T.reshape(count, len(self), 3)
        # A sign that does not depend on the machine.
        largest = np.abs(kept).reshape(count, -1).argmax(1)
        sign = np.sign(kept.reshape(count, -1)[np.arange(count), largest])
        return NormalModes(
            torch.from_numpy(values[RIGID_MOTIONS:].copy()),
            torch.from_numpy(kept * sign[:, None, None]),
        )

    def _require_one_piece(self) -> None:
        sizes = np.bincount(self.pieces())
        if len(sizes) > 1:
            shown = ", ".join(str(size) for size in np.sort(sizes)[::-1][:5])
            raise InputError(
                f"the elastic network is in {len(sizes)} pieces, of {shown} nodes: "
                "expected one. Raise the cutoff, or choose chains that touch"
            )


@dataclass(frozen=True)
class NormalModes:
    """The softest ways to deform a structure.

    Attributes
    ----------
    stiffness : Tensor of float64, shape (k,)
        Eigenvalues, ascending: twice the energy at unit length of the displacement
        of all nodes.
    direction : Tensor of float64, shape (k, n, 3)
        Of unit length over all nodes, orthogonal to each other.
    """

    stiffness: Tensor
    direction: Tensor

    def __len__(self) -> int:
        return len(self.stiffness)

    def displacement_angstrom(self, amplitude_angstrom: Tensor) -> Tensor:
        """Return how far nodes move, shape (..., n, 3).

        Parameters
        ----------
        amplitude_angstrom : Tensor, shape (..., k)
            Along each mode: the root mean square displacement of the nodes.
        """
        per_node = self.direction * self.direction.shape[1] ** 0.5
        return torch.einsum(
            "...k,knc->...nc", amplitude_angstrom, per_node.to(amplitude_angstrom)
        )

    def per_angstrom(self) -> Tensor:
        """Return how far nodes move for an amplitude of 1 angstrom, (k, n, 3)."""
        return self.displacement_angstrom(torch.eye(len(self), dtype=torch.float64))

    def amplitude_sd_angstrom(self, first_angstrom: float) -> Tensor:
        """Return the spread of thermal amplitudes, shape (k,).

        Each mode has as much energy as any other: its amplitude goes with the inverse
        root of its stiffness.

        Parameters
        ----------
        first_angstrom : float
            Of the softest mode.
        """
        return first_angstrom * (self.stiffness[0] / self.stiffness).sqrt()

    def fluctuation(self) -> Tensor:
        """Return the mean square displacement of every node, shape (n,).

        In units of temperature over the stiffness of a spring, of these modes alone.
        """
        per_node = self.direction.square().sum(-1)
        return (per_node / self.stiffness[:, None]).sum(0)

    def collectivity(self) -> Tensor:
        """Return the share of nodes that take part in each mode, shape (k,).

        From ``1 / n`` for one node to 1 for all alike: the exponential of the entropy
        of squared displacements (Bruschweiler, J. Chem. Phys. 102, 3396, 1995).
        """
        share = self.direction.square().sum(-1)
        entropy = -torch.xlogy(share, share).sum(1)
        return entropy.exp() / share.shape[1]


def _softest(
    hessian: sparse.csc_matrix, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues, ascending, and eigenvectors in columns."""
    size = hessian.shape[0]
    if size <= 3 * _DENSE_NODES or count > size // 3:
        values, vectors = np.linalg.eigh(hessian.toarray())
        return values[:count], vectors[:, :count]
    shift = -_SHIFT * hessian.diagonal().mean()
    shifted = hessian - shift * sparse.identity(size, format="csc")
    # Symmetric and positive: no pivots are needed, and fewer zeros are filled.
    factors = splu(
        shifted,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    inverse = LinearOperator((size, size), factors.solve, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    values, vectors = eigsh(hessian, count, sigma=shift, OPinv=inverse, v0=start)
    order = values.argsort()
    return values[order], vectors[:, order]
