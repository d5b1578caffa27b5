"""Elastic networks against ProDy itself, where it is installed.

It does not build beside the versions that this project pins, but in an environment of
its own (numpy below 2), where this project's checks of modes can be repeated.
"""

import numpy as np
import pytest

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.nodes import Nodes
from cryoinfer.physics.structures.elastic import ElasticNetwork

prody = pytest.importorskip("prody", reason="ProDy is not installed")


def test_modes_of_adenylate_kinase_are_those_of_prody() -> None:
    model = named_atoms("adenylate-kinase-open")
    nodes = Nodes.of_model(model).coordinates_angstrom(model)
    network = prody.ANM()
    network.buildHessian(nodes, cutoff=15.0, gamma=1.0)
    network.calcModes(n_modes=20)
    modes = ElasticNetwork.between(nodes, 15.0).normal_modes(20)
    # Two eigensolvers in double precision: 7e-12 was seen.
    np.testing.assert_allclose(modes.stiffness, network.getEigvals(), rtol=1e-9)
    vectors = modes.direction.numpy().reshape(20, -1)
    overlap = np.abs((vectors * network.getEigvecs().T).sum(1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-9)
