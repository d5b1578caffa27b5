"""Modes for NMWiz and ProDy."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cryoinfer.data.examples import example_atoms
from cryoinfer.io.nmd import write_nmd


def test_a_line_a_property_and_a_value_a_node(tmp_path: Path) -> None:
    atoms = example_atoms("adenylate-kinase-open").select(np.array([1, 9]))
    direction = np.arange(12).reshape(2, 2, 3) / 10
    path = tmp_path / "modes.nmd"
    write_nmd(path, "open state", atoms, direction, (1.0, 0.5))
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    values = {line[0]: line[1:] for line in lines[:-2]}
    assert values["name"] == ["open_state"]
    for name in ("atomnames", "resnames", "chainids", "resids", "bfactors"):
        # No value may be empty, or those after it belong to other nodes.
        assert len(values[name]) == 2
        assert all(values[name])
    assert np.allclose(
        [float(value) for value in values["coordinates"]],
        atoms.coordinates_angstrom.ravel(),
        atol=5e-4,  # three decimals
    )
    assert lines[-1][:3] == ["mode", "2", "0.5000"]
    assert [float(value) for value in lines[-1][3:]] == [0.6, 0.7, 0.8, 0.9, 1.0, 1.1]


def test_names_are_a_word_each(tmp_path):
    """Whatever a structure's file has: NMD files are told apart by blanks."""
    atoms = example_atoms("adenylate-kinase-open").select(np.array([1, 9]))
    odd = replace(atoms, chain_names=("", "A B"), residue_names=("", "X\tY"))
    write_nmd(tmp_path / "a.nmd", "caf\udce9 1", odd, np.ones((1, 2, 3)), (1.0,))
    lines = (tmp_path / "a.nmd").read_text("utf-8").splitlines()
    rows = dict(line.split(" ", 1) for line in lines)
    assert rows["name"] == "caf?_1"
    assert rows["chainids"].split() == ["-", "A_B"]
    assert rows["resnames"].split() == ["-", "X_Y"]
