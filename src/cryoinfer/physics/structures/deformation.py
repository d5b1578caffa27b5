"""Large motions that keep a chain whole.

Displacements along normal modes are straight. Where a domain turns by tens of degrees
they stretch it: opening adenylate kinase by its ten softest modes tears neighbouring
alpha carbons 13 angstrom apart. Springs between residues that are near each other along
the chain, at rest in the structure that was given, mend that: they hold helices and
loops in shape and leave domains free to move against each other. Residues then ride on
their nodes as rigid bodies, turned as their neighbourhood is. Nonlinear modes of rigid
blocks (Hoffmann and Grudinin, J. Chem. Theory Comput. 13, 2123, 2017) bend the path of
every mode instead, and leave what joins the blocks to itself.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoinfer.physics.structures.elastic import ElasticNetwork

_ALONG_CHAIN = 4  # residues: a turn of a helix
_JUMP = 10  # of residue numbers, that ends a piece: schemes of antibodies jump by less
_LONGEST_ANGSTROM = 20.0  # of four residues in a row; farther ends a gap in the chain
_ROUNDS = 100  # of the minimiser, at most
_NEIGHBOURS = 8  # that turn a residue
_LEAST_INERTIA_ANGSTROM2 = 1e-3


def chain_network(
    coordinates_angstrom: NDArray[np.float64],
    chains: Sequence[str],
    numbers: Sequence[int],
) -> ElasticNetwork:
    """Join nodes up to four places apart along their chain.

    Where residue numbers jump by ten, or places are too far apart, there is a gap.

    Parameters
    ----------
    coordinates_angstrom : ndarray, shape (n, 3)
        In the order of the residues.
    chains : sequence of str, length n
        Which chain a node is of.
    numbers : sequence of int, length n
        Of the nodes' residues.
    """
    jumps = np.abs(np.diff(np.asarray(numbers, dtype=np.int64))) >= _JUMP
    begins = np.concatenate([[False], jumps]).cumsum()
    names = np.asarray(chains)
    first, second = [], []
    for apart in range(1, _ALONG_CHAIN + 1):
        same = (names[:-apart] == names[apart:]) & (begins[:-apart] == begins[apart:])
        rows = np.flatnonzero(same)
        first.append(rows)
        second.append(rows + apart)
    one, other = np.concatenate(first), np.concatenate(second)
    length = np.linalg.norm(
        coordinates_angstrom[one] - coordinates_angstrom[other], axis=1
    )
    near = length < _LONGEST_ANGSTROM
    return ElasticNetwork(
        np.asarray(coordinates_angstrom, dtype=np.float64),
        one[near],
        other[near],
        np.ones(int(near.sum())),
    )


def restrained(chain: ElasticNetwork, target_angstrom: Tensor, pull: float) -> Tensor:
    """Return nodes near a target, whose neighbours along the chain keep their distance.

    The minimum of the springs' energy and that of springs towards the target.

    Parameters
    ----------
    chain : ElasticNetwork
        As :func:`chain_network` returns it.
    target_angstrom : Tensor of float64, shape (n, 3)
    pull : float
        Stiffness towards the target, over that of the chain.

    Returns
    -------
    Tensor of float64, shape (n, 3)
    """
    nodes = target_angstrom.double().clone().requires_grad_()
    minimiser = torch.optim.LBFGS(
        [nodes], max_iter=_ROUNDS, line_search_fn="strong_wolfe"
    )

    def energy() -> Tensor:
        minimiser.zero_grad()
        away = (nodes - target_angstrom).square().sum()
        value = chain.energy(nodes) + 0.5 * pull * away
        value.backward()
        return value

    minimiser.step(energy)
    return nodes.detach()


def turns(before: Tensor, displacement: Tensor) -> Tensor:
    """Return how residues turn where nodes are displaced a little, in radian.

    Each as its node and the eight nearest do, by least squares.

    Parameters
    ----------
    before : Tensor of float64, shape (n, 3)
        The nodes.
    displacement : Tensor of float64, shape (..., n, 3)

    Returns
    -------
    Tensor of float64, shape (..., n, 3)
        Rotation vectors.
    """
    near = _nearest(before)
    around, moved = before[near], displacement[..., near, :]
    arm = around - around.mean(1, keepdim=True)
    apart = moved - moved.mean(-2, keepdim=True)
    eye = torch.eye(3, dtype=before.dtype)
    squared = arm.square().sum(-1)[..., None, None] * eye
    inertia = (squared - arm[..., :, None] * arm[..., None, :]).sum(1)
    # Nodes in a row do not tell how they turn about it: as little as possible.
    inertia = inertia + _LEAST_INERTIA_ANGSTROM2 * eye
    torque = torch.linalg.cross(arm.expand_as(apart), apart).sum(-2)
    return torch.linalg.solve(inertia, torque[..., None])[..., 0]


def _nearest(nodes: Tensor) -> Tensor:
    """Return the numbers of each node and of those around it, shape (n, c)."""
    count = min(_NEIGHBOURS + 1, len(nodes))
    _, near = cKDTree(nodes.numpy()).query(nodes.numpy(), k=count)
    return torch.from_numpy(np.asarray(near).reshape(len(nodes), count))


def carried(
    atoms_angstrom: Tensor, node_of_atom: Tensor, before: Tensor, after: Tensor
) -> Tensor:
    """Return where atoms come when they ride on their nodes as rigid residues.

    Every residue turns as its node and the eight nearest do, by least squares.

    Parameters
    ----------
    atoms_angstrom : Tensor of float64, shape (a, 3)
    node_of_atom : Tensor of int64, shape (a,)
    before, after : Tensor of float64, shape (n, 3)
        The nodes.

    Returns
    -------
    Tensor of float64, shape (a, 3)
    """
    import roma

    near = _nearest(before)
    old = before[near] - before[:, None]
    new = after[near] - after[:, None]
    turn, _ = roma.rigid_points_registration(old, new)
    arm = atoms_angstrom - before[node_of_atom]
    turned = (turn[node_of_atom] @ arm[..., None])[..., 0]
    return after[node_of_atom] + turned
