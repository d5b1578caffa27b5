"""Elastic networks against the stored results of ProDy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryoinfer.data.nodes import Nodes
from cryoinfer.io.atoms import read_atoms
from cryoinfer.physics.structures.elastic import RIGID_MOTIONS, ElasticNetwork


def nodes_of(path: Path) -> np.ndarray:
    model = read_atoms(path)
    return Nodes.of_model(model).coordinates_angstrom(model)


@pytest.fixture(scope="module")
def ubiquitin(shared_data: Path) -> ElasticNetwork:
    return ElasticNetwork.between(nodes_of(shared_data / "models/1ubi.pdb"), 15.0)


def test_the_hessian_of_ubiquitin(ubiquitin, shared_data: Path) -> None:
    rows = np.loadtxt(shared_data / "oracles/anm/anm1ubi_hessian.coo")
    expected = np.zeros((3 * len(ubiquitin),) * 2)
    row, column = (rows[:, axis].astype(int) - 1 for axis in (0, 1))
    expected[row, column] = expected[column, row] = rows[:, 2]
    # They were summed in single precision: of the largest, 23, four roundings.
    assert np.allclose(ubiquitin.hessian().toarray(), expected, rtol=0, atol=1e-5)


def test_the_modes_of_ubiquitin(ubiquitin, shared_data: Path) -> None:
    values = np.loadtxt(shared_data / "oracles/anm/anm1ubi_evalues.dat")[:, 1]
    count = len(values) - RIGID_MOTIONS
    assert (np.abs(values[:RIGID_MOTIONS]) < 1e-6).all()
    modes = ubiquitin.normal_modes(count)
    # Stored in five digits, of which single precision has taken half a unit.
    found = modes.stiffness.numpy()
    assert np.allclose(found, values[RIGID_MOTIONS:], rtol=3e-5)
    assert np.allclose(found[:3], [0.033933, 0.15243, 0.35979], rtol=1e-4)
    table = np.loadtxt(shared_data / "oracles/anm/anm1ubi_vectors.dat")
    vectors = torch.from_numpy(table[:, 1:].T.copy()).view(-1, len(ubiquitin), 3)
    same = (vectors * modes.direction[: len(vectors)]).sum((1, 2)).abs()
    # Stored with six decimals.
    assert float(same.min()) > 0.9999


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("animate_adk_open.pdb", "animate_adk_closed.pdb"),
        ("4akeA_alg_fixed.pdb", "1ake_prody.pdb"),
    ],
)
def test_the_opening_of_adenylate_kinase(
    shared_data: Path, opened: str, closed: str
) -> None:
    one, other = (nodes_of(shared_data / "models" / name) for name in (opened, closed))
    other = other[: len(one)]  # the second chain of 1AKE
    modes = ElasticNetwork.between(one, 15.0).normal_modes(5)
    one, other = one - one.mean(0), other - other.mean(0)
    u, _, vt = np.linalg.svd(other.T @ one)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    opening = torch.from_numpy(other @ turn - one)
    overlap = (modes.direction * opening).sum((1, 2)).abs() / opening.norm()
    # As found with ProDy, to three digits.
    expected = torch.tensor([0.799, 0.276, 0.107, 0.305, 0.260], dtype=torch.float64)
    torch.testing.assert_close(overlap, expected, rtol=0, atol=1e-3)
