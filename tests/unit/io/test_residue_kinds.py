"""Waters, ions and nucleotides are known by their atoms, whatever they are called."""

from pathlib import Path

import numpy as np
import pytest

from cryoinfer.data.nodes import Nodes
from cryoinfer.io.atoms import read_structure
from cryoinfer.io.residue_kinds import Kind, residue_kinds

Atoms = list[tuple[str, str, tuple[float, float, float]]]  # name, element, place

HELIX = (9.0, 32.7, 2.8)  # radius, turn and rise of A-RNA, a nucleotide


def kinds(*residues: tuple[str, Atoms]) -> list[Kind]:
    rows, at = [], 0
    for _, atoms in residues:
        rows.append(range(at, at + len(atoms)))
        at += len(atoms)
    every = [(name, *atom) for name, atoms in residues for atom in atoms]
    return residue_kinds(
        rows,
        [name for _, name, _, _ in every],
        [element for _, _, element, _ in every],
        [name for name, _, _, _ in every],
        np.array([place for _, _, _, place in every]),
    )


def oxygen(x: float = 0.0, name: str = "O") -> tuple:
    return name, "O", (x, 0.0, 0.0)


def hydrogen(x: float, element: str = "H") -> tuple:
    return "H1", element, (x, 0.9, 0.0)


def site(x: float, name: str = "MW") -> tuple:
    return name, "X", (x, 0.1, 0.0)


@pytest.mark.parametrize(
    ("name", "atoms"),
    [
        ("SOL", [oxygen(name="OW"), hydrogen(0.3), hydrogen(-0.3)]),
        ("TIP3", [oxygen(name="OH2"), hydrogen(0.3), hydrogen(-0.3)]),
        ("TIP4", [oxygen(), hydrogen(0.3), hydrogen(-0.3), site(0.1)]),
        ("T5P", [oxygen(), hydrogen(0.3), site(0.5, "LP1"), site(-0.5, "LP2")]),
        # The charge of a polarisable water, named so that it reads as oxygen.
        ("SWM4", [oxygen(name="OH2"), oxygen(0.2, "OM"), hydrogen(0.3)]),
        ("DOD", [oxygen(), hydrogen(0.3, "D"), hydrogen(-0.3, "D")]),
        ("SPC", [oxygen(name="OW")]),
        ("HOH", [oxygen()]),
        ("anything", [oxygen()]),
    ],
)
def test_waters(name: str, atoms: Atoms) -> None:
    assert kinds((name, atoms)) == ["water"]


@pytest.mark.parametrize(
    ("name", "atoms", "kind"),
    [
        ("OXY", [oxygen(), oxygen(1.2, "O2")], "other"),  # molecular oxygen
        ("CO", [oxygen(), ("C", "C", (1.1, 0.0, 0.0))], "other"),
        ("ALA", [oxygen()], "other"),  # all that is modelled of a residue
        ("SOD", [("SOD", "Na", (0.0, 0.0, 0.0))], "ion"),
        ("MOH", [oxygen(), ("C", "C", (1.4, 0.0, 0.0))], "other"),
    ],
)
def test_what_is_no_water(name: str, atoms: Atoms, kind: Kind) -> None:
    assert kinds((name, atoms)) == [kind]


def nucleotide(place: int, *, phosphate: bool = True, prime: str = "'") -> Atoms:
    radius, turn, rise = HELIX
    angle = np.radians(turn) * place

    def at(inward: float) -> tuple[float, float, float]:
        r = radius - inward
        return r * np.cos(angle), r * np.sin(angle), rise * place

    atoms = [("P", "P", at(0.0)), ("O1P", "O", at(-1.4))] if phosphate else []
    names = ("O5", "C5", "C1")
    return atoms + [
        (f"{name}{prime}", name[0], at(1.4 * (n + 1))) for n, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("ADE", "CYT", "GUA", "URA", "THY"),  # CHARMM
        ("RA5", "RC", "RG", "RU", "RU3"),  # AMBER
        ("DA5", "DC", "DG", "DT", "DT3"),
        ("A5", "C", "G", "U", "U3"),
        ("PSU", "5MC", "YYG", "X1", "QUO"),  # modified
        ("A", "C", "G", "U", "A"),
    ],
)
@pytest.mark.parametrize("prime", ["'", "*"])
def test_nucleotides(names: tuple[str, ...], prime: str) -> None:
    residues = [(name, nucleotide(n, prime=prime)) for n, name in enumerate(names)]
    assert kinds(*residues) == ["nucleotide"] * 5
    # Listed from the other end.
    assert kinds(*residues[::-1]) == ["nucleotide"] * 5


def test_a_first_nucleotide_without_phosphate_is_one() -> None:
    first = ("ADE", nucleotide(0, phosphate=False))
    assert kinds(first, ("CYT", nucleotide(1))) == ["nucleotide"] * 2


def test_phosphorus_alone_for_each_nucleotide() -> None:
    residues = [("ADE", nucleotide(n)[:1]) for n in range(4)]
    assert kinds(*residues) == ["nucleotide"] * 4


def test_ligands_with_the_atoms_of_a_nucleotide_are_none() -> None:
    assert kinds(("AMP", nucleotide(0))) == ["other"]
    # Two of them, far apart.
    assert kinds(("AMP", nucleotide(0)), ("FMN", nucleotide(9))) == ["other"] * 2
    assert kinds(("PO4", nucleotide(0)[:1])) == ["ion"]


def peptide(*names: str) -> Atoms:
    return [(name, name[0], (1.4 * n, 0.0, 0.0)) for n, name in enumerate(names)]


@pytest.mark.parametrize(
    "name", ["MSE", "HID", "HIE", "HSD", "CYX", "ASH", "NALA", "DAL", "UNK", "anything"]
)
def test_amino_acids(name: str) -> None:
    assert kinds((name, peptide("N", "CA", "C", "O"))) == ["amino acid"]
    # A model of alpha carbons alone.
    assert kinds((name, [("CA", "C", (0.0, 0.0, 0.0))])) == ["amino acid"]


def test_calcium_is_no_alpha_carbon() -> None:
    assert kinds(("CA", [("CA", "Ca", (0.0, 0.0, 0.0))])) == ["ion"]


PROTEIN = [
    f"ATOM      1  {name:<3s} GLY A{number:4d}    {4.0 * number + step:8.3f}   0.000"
    f"   0.000  1.00 20.00          {name[0]:>2s}"
    for number in range(1, 6)
    for step, name in enumerate(("N", "CA", "C"))
]


def solvated(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*PROTEIN, *lines, "END", ""]))
    return path


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    lines = [
        f"HETATM    1  OW  SOL     1    {90.0 + n:8.3f}   0.000   0.000  1.00  0.00"
        for n in range(7)
    ]
    lines += [
        f"HETATM    1 {name:<4s} {name:<4s}    1    {x:8.3f}   0.000   0.000  1.00"
        for name, x in ((" SOD", 60.0), ("CLA ", 70.0), ("SOD ", 5.0))
    ]
    found = read_structure(solvated(tmp_path / "a.pdb", *lines))
    assert len(found.model) == 16
    assert found.left_out.waters == {"SOL": 7}
    assert found.left_out.ions == {"SOD": 1, "CLA": 1}
    # What is near the protein may be bound to it.
    assert found.model.elements[-1] == "Na"
    assert str(found.left_out) == (
        "7 waters (SOL); 2 ions farther than 5 A from any molecule (CLA, SOD)"
    )


def test_dummies_have_no_node_and_do_not_scatter(tmp_path: Path) -> None:
    dummy = (
        "ATOM      1  LP1 GLY A   5       1.000   0.000   0.000  1.00  0.00           X"
    )
    found = read_structure(solvated(tmp_path / "a.pdb", dummy))
    assert len(found.model) == 15
    assert found.left_out.dummies == 1


def test_a_nucleotide_without_phosphate_rides_on_the_nearest_node(
    tmp_path: Path,
) -> None:
    lines = [
        f"ATOM      1 {name:<4s} {residue:<3s} R{number:4d}    "
        + "".join(f"{value:8.3f}" for value in place)
        + f"  1.00 20.00          {element:>2s}"
        for number, residue in enumerate(("ADE", "CYT", "GUA"))
        for name, element, place in nucleotide(number, phosphate=number > 0)
    ]
    found = read_structure(solvated(tmp_path / "a.pdb", *lines))
    nodes = Nodes.of_model(found.model)
    assert len(nodes) == 5 + 2
    assert nodes.without == {"ADE without a phosphate": 1}
