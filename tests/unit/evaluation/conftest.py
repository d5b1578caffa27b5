"""Maps of which one lacks a part."""

import pytest
import torch

from cryoinfer.data.examples import example_atoms
from cryoinfer.evaluation.rigid_search import MapPair
from cryoinfer.physics.structures.atoms import GaussianAtoms


@pytest.fixture(scope="session")
def without_lid() -> MapPair:
    """Return closed adenylate kinase on 32 voxels; the fixed map lacks the lid."""
    model, box, length = example_atoms("adenylate-kinase-closed"), 32, 96.0
    residue = torch.tensor(model.residue_index)
    maps = []
    for kept in ((residue < 121) | (residue > 158), residue >= 0):
        place = torch.tensor(model.coordinates_angstrom).double()[kept]
        elements = [e for e, k in zip(model.elements, kept, strict=True) if k]
        atoms = GaussianAtoms.from_elements(place, elements, 50.0)
        maps.append(atoms.to_map(box, length / box).double())
    return MapPair(maps[0], maps[1], None, length)
