"""The page about normal modes: places along a chain are named by residue and chain."""

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryoinfer.io.atoms import AtomicModel
from cryoinfer.report.modes import (
    ModesContent,
    _label_residues,
    mode_rows,
    render_modes_report,
)


def nodes(*chains: tuple[str, list[int], str]) -> AtomicModel:
    """Return alpha carbons of chains of a name, residue numbers and one code."""
    rows = [(name, number, code) for name, own, code in chains for number in own]
    count = len(rows)
    return AtomicModel(
        coordinates_angstrom=np.random.default_rng(0).normal(size=(count, 3)),
        elements=("C",) * count,
        atom_names=("CA",) * count,
        residue_names=("GLY",) * count,
        chain_names=tuple(name for name, _, _ in rows),
        residue_numbers=tuple(number for _, number, _ in rows),
        insertion_codes=tuple(code for _, _, code in rows),
        b_factors_angstrom2=np.arange(1.0, count + 1),
        residue_index=np.arange(count),
    )


@pytest.fixture
def axes() -> Axes:
    return Figure().add_subplot()


def ticks(axes: Axes) -> list[tuple[float, str]]:
    labels = [label.get_text() for label in axes.get_xticklabels()]
    return list(zip(axes.get_xticks().tolist(), labels, strict=True))


def test_one_chain_has_its_residue_numbers(axes: Axes) -> None:
    _label_residues(axes, nodes(("B", list(range(95, 125)), "")))
    # Ticks are at nodes from 1, every five residues.
    assert ticks(axes) == [
        (float(n - 94), str(n)) for n in (95, 100, 105, 110, 115, 120)
    ]
    assert axes.get_xlabel() == "residue of chain B"


def test_several_chains_are_named_and_divided(axes: Axes) -> None:
    _label_residues(axes, nodes(("A", list(range(1, 13)), ""), ("B", [1, 5, 6], "")))
    of_a = [(float(n), str(n)) for n in range(2, 13, 2)]
    assert ticks(axes) == [*of_a, (15.0, "6")]
    assert [text.get_text() for text in axes.texts] == ["chain A", "chain B"]
    assert [line.get_xdata()[0] for line in axes.lines] == [12.5]


def test_many_chains_have_names_alone(axes: Axes) -> None:
    names = [f"{letter}1" for letter in "ABCDEFGHIJ"]
    _label_residues(axes, nodes(*((name, [1, 2, 3], "") for name in names)))
    assert ticks(axes) == [(2.0 + 6 * n, name) for n, name in enumerate(names[::2])]
    assert axes.get_xlabel() == "chain"


def test_the_page_names_residues_and_no_nodes() -> None:
    content = ModesContent(
        title="a",
        created="today",
        nodes=nodes(("A", list(range(1, 13)), ""), ("B", [7], "C")),
        springs=20,
        direction=np.eye(13)[[3, 12]][:, :, None] * np.ones(3),
        stiffness=np.array([0.1, 0.2]),
        amplitude=np.array([1.0, 0.7]),
        collectivity=np.array([0.5, 0.4]),
        fluctuation=np.arange(1.0, 14.0),
        fluctuation_modes=2,
        notes=("Left out of a: 7 waters (SOL)",),
    )
    assert [row[-1] for row in mode_rows(content)] == ["A GLY 4", "B GLY 7C"]
    page = render_modes_report(content)
    assert "B GLY 7C" in page
    assert "Left out of a: 7 waters (SOL)." in page
    # No unit is written with a bare A.
    assert not re.search(r"\d A\b", re.sub(r"<svg.*?</svg>", "", page, flags=re.S))
