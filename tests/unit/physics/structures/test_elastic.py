"""Elastic networks: known modes, a naive twin, and what is refused."""

import math

import numpy as np
import pytest
import torch

from cryoinfer.data.examples import example_atoms
from cryoinfer.data.nodes import Nodes
from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.physics.structures import elastic
from cryoinfer.physics.structures.elastic import ElasticNetwork


def cloud(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 20, (count, 3))


def crystal(count: int) -> np.ndarray:
    axis = 3.8 * np.arange(count)
    nodes = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    return nodes + np.random.default_rng(1).uniform(-0.5, 0.5, nodes.shape)


def tetrahedron(edge: float) -> np.ndarray:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    return corners * edge / math.sqrt(8)


@pytest.mark.parametrize("edge", [1.0, 3.8])
def test_the_modes_of_a_regular_tetrahedron(edge: float) -> None:
    # Six unit springs between four unit masses: the methane-like X4 molecule, whose
    # frequencies squared are as 4 (A1), 2 (T2, three times) and 1 (E, twice)
    # (Herzberg, Infrared and Raman Spectra, 1945, section II.4).
    network = ElasticNetwork.between(tetrahedron(edge), cutoff_angstrom=1.1 * edge)
    modes = network.normal_modes(6)
    expected = torch.tensor([1.0, 1.0, 2.0, 2.0, 2.0, 4.0], dtype=torch.float64)
    # Eigenvalues in double precision.
    torch.testing.assert_close(modes.stiffness, expected, rtol=0, atol=1e-12)
    assert len(modes) == 6
    assert modes.collectivity()[-1] == pytest.approx(1.0)  # all nodes breathe alike


@pytest.mark.parametrize("law", ["constant", "inverse-square"])
def test_the_hessian_is_the_second_derivative_of_the_energy(law) -> None:
    network = ElasticNetwork.between(cloud(12), 12.0, law)
    rest = torch.from_numpy(network.coordinates_angstrom)
    found = torch.autograd.functional.hessian(network.energy, rest).reshape(36, 36)
    # Two ways to the same numbers in double precision.
    assert np.allclose(network.hessian().toarray(), found.numpy(), atol=1e-12)
    assert float(network.energy(rest)) == 0.0


def test_turns_and_moves_cost_nothing_however_large() -> None:
    network = ElasticNetwork.between(cloud(30), 10.0)
    rotation = random_rotations(1, torch.Generator().manual_seed(1))[0]
    moved = torch.from_numpy(network.coordinates_angstrom) @ rotation.mT + 7.0
    assert float(network.energy(moved)) < 1e-20
    assert float(network.energy(1.1 * moved)) > 1.0


@pytest.mark.parametrize("count", [1, 5, 20])
def test_shift_and_invert_finds_what_a_dense_matrix_has(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ElasticNetwork.between(crystal(4), 7.0)
    dense = network.normal_modes(count)
    monkeypatch.setattr(elastic, "_DENSE_NODES", 0)
    found = network.normal_modes(count)
    # Arnoldi's tolerance is that of double precision.
    torch.testing.assert_close(found.stiffness, dense.stiffness, rtol=1e-9, atol=0)
    same = (found.direction * dense.direction).sum((1, 2))
    torch.testing.assert_close(same, torch.ones_like(same), rtol=0, atol=1e-7)


def test_amplitudes_are_root_mean_square_displacements() -> None:
    modes = ElasticNetwork.between(cloud(40), 12.0).normal_modes(4)
    rows = [[0.0, 2.5, 0.0, 0.0], [3.0, 0.0, 4.0, 0.0]]
    amplitude = torch.tensor(rows, dtype=torch.float64)
    moved = modes.displacement_angstrom(amplitude)
    rms = moved.square().sum(-1).mean(-1).sqrt()
    # Modes are orthogonal: 3 and 4 make 5.
    torch.testing.assert_close(rms, torch.tensor([2.5, 5.0]).double())
    overlap = (modes.direction * moved[1]).sum((1, 2)) / moved[1].norm()
    expected = torch.tensor([0.6, 0.0, 0.8, 0.0], dtype=torch.float64)
    torch.testing.assert_close(overlap, expected, rtol=0, atol=1e-12)
    sd = modes.amplitude_sd_angstrom(2.0)
    assert float(sd[0]) == 2.0
    torch.testing.assert_close(sd**2 * modes.stiffness, 4 * modes.stiffness[0] + 0 * sd)


def test_fluctuations_are_those_of_the_thermal_ensemble() -> None:
    network = ElasticNetwork.between(cloud(20), 14.0)
    modes = network.normal_modes(3 * 20 - 6)
    inverse = np.linalg.pinv(network.hessian().toarray(), rcond=1e-10)
    expected = np.diag(inverse).reshape(20, 3).sum(1)
    # All modes but the rigid ones are the pseudo-inverse.
    assert np.allclose(modes.fluctuation().numpy(), expected, rtol=1e-9)


def test_adenylate_kinase_opens_along_its_softest_modes() -> None:
    models = [example_atoms(f"adenylate-kinase-{name}") for name in ("open", "closed")]
    opened, closed = (
        Nodes.of_model(model).coordinates_angstrom(model) for model in models
    )
    modes = ElasticNetwork.between(opened, 15.0).normal_modes(3)
    # The least-squares superposition of the one on the other (Kabsch).
    one, other = opened - opened.mean(0), closed - closed.mean(0)
    u, _, vt = np.linalg.svd(other.T @ one)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    opening = torch.from_numpy(other @ turn - one)
    overlap = (modes.direction * opening).sum((1, 2)).abs() / opening.norm()
    # One mode of 636 says three quarters of it (0.62 of the square), as is known of
    # this protein (Tama and Sanejouand, Protein Eng. 14, 1-6, 2001).
    assert float(overlap[0]) > 0.75
    assert float(overlap.square().sum()) < 1


def test_networks_that_have_no_modes_are_refused() -> None:
    with pytest.raises(InputError, match="4 nodes or more, found 3"):
        ElasticNetwork.between(cloud(3))
    broken = cloud(5)
    broken[2, 1] = np.nan
    with pytest.raises(InputError, match="node 3 are not finite"):
        ElasticNetwork.between(broken)
    with pytest.raises(InputError, match="nodes 1 and 9 are"):
        ElasticNetwork.between(np.concatenate([cloud(8), cloud(1) + 0.01]))
    apart = np.concatenate([cloud(10), cloud(8) + 500])
    with pytest.raises(InputError, match="in 2 pieces, of 10, 8 nodes"):
        ElasticNetwork.between(apart, 30.0).normal_modes(1)
    hanging = np.concatenate([tetrahedron(3.8), [[0.0, 0.0, 6.0]]])
    with pytest.raises(InputError, match=r"7 motions that cost nothing, .* node 5"):
        ElasticNetwork.between(hanging, 5.5).normal_modes(1)
    with pytest.raises(InputError, match="from 1 to 6, found 7"):
        ElasticNetwork.between(tetrahedron(3.8), 5.0).normal_modes(7)
