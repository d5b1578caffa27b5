"""Point groups that a model at rest has, and those that it has not."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from cryoinfer.data.examples import example_atoms, symmetric_copies
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.errors import InputError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.atoms import AtomicModel

RADIUS_ANGSTROM = {"C2": 16.0, "C3": 30.0, "D2": 30.0}
"""At which neighbours are 8 to 12 angstrom apart: within reach of the network."""


@cache
def copies(symmetry: str) -> AtomicModel:
    """Return copies of a kinase about the axes of a group."""
    one = example_atoms("adenylate-kinase-open")
    return symmetric_copies(one, symmetry, RADIUS_ANGSTROM[symmetry])


def require(model: AtomicModel, symmetry: str) -> None:
    moving = MovingModel.of(model, 1, 1.0)
    moving.require_symmetric(symmetry, symmetry_rotations(symmetry))


@pytest.mark.parametrize(
    ("made", "asked"), [("C2", "C2"), ("C2", "C1"), ("C3", "C3"), ("D2", "C2")]
)
def test_a_model_has_the_symmetry_that_it_is_made_with(made: str, asked: str) -> None:
    require(copies(made), asked)


@pytest.mark.parametrize("asked", ["C3", "C4", "D2", "T"])
def test_a_dimer_has_no_other_symmetry(asked: str) -> None:
    with pytest.raises(InputError, match=f"point group {asked}.*turn the model"):
        require(copies("C2"), asked)


def test_a_single_chain_has_none() -> None:
    alone = example_atoms("adenylate-kinase-open")
    require(alone, "C1")
    with pytest.raises(InputError, match="point group C2"):
        require(alone, "C2")


def test_the_axes_are_those_of_the_file_wherever_the_model_lies() -> None:
    dimer = copies("C2")
    place = dimer.coordinates_angstrom
    moved = replace(dimer, coordinates_angstrom=place + np.array([50.0, -20.0, 7.0]))
    require(moved, "C2")
    # Its axis along x, where that of C2 is z.
    turned = replace(dimer, coordinates_angstrom=place[:, [2, 0, 1]])
    with pytest.raises(InputError, match="highest along z"):
        require(turned, "C2")


def test_chains_of_a_crystal_are_mates_though_not_exactly() -> None:
    dimer = copies("C2")
    generator = torch.Generator().manual_seed(0)
    shape = dimer.coordinates_angstrom.shape
    apart = torch.randn(shape, generator=generator, dtype=torch.float64)
    # Copies of one chain in a crystal differ by half an angstrom or so.
    places = dimer.coordinates_angstrom + 0.4 * apart.numpy()
    require(replace(dimer, coordinates_angstrom=places), "C2")
