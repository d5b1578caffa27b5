"""Residues and chains are told apart by their place in a file, not by their names."""

from collections.abc import Callable
from pathlib import Path

import gemmi
import numpy as np
import pytest

from cryoinfer.data.examples import example_atoms, symmetric_copies
from cryoinfer.data.nodes import Nodes
from cryoinfer.io.atoms import AtomicModel, read_atoms, read_structure
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.io.residues import fresh_names

LENGTH = 12  # residues of each copy


def line(
    name: str,
    residue: str,
    number: int | str,
    place: tuple[float, float, float] = (0.0, 0.0, 0.0),
    chain: str = "",
    **more: str,
) -> str:
    """Return a record of a PDB file; more are letter, code, segment and element."""
    x, y, z = place
    return (
        f"ATOM      1 {name:>2s}{'':{4 - max(2, len(name))}}{more.get('letter', ''):1s}"
        f"{residue:<4s}{chain:1s}{number:>4}{more.get('code', ''):1s}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00      {more.get('segment', ''):<4s}"
        f"{more.get('element', name[0]):>2s}"
    )


def records(model: AtomicModel, *, chain: str, segment: str = "", add: int = 0) -> list:
    return [
        line(
            model.atom_names[row],
            model.residue_names[row],
            model.residue_numbers[row] + add,
            tuple(model.coordinates_angstrom[row]),
            chain,
            segment=segment,
            element=model.elements[row],
        )
        for row in range(len(model))
    ]


@pytest.fixture(scope="module")
def copies() -> list[AtomicModel]:
    """Return two copies of the first residues of a protein."""
    pair = symmetric_copies(example_atoms("adenylate-kinase-open"), "C2", 16.0)
    chain, number = np.array(pair.chain_names), np.array(pair.residue_numbers)
    return [
        pair.select(np.flatnonzero((chain == name) & (number <= LENGTH)))
        for name in ("A", "B")
    ]


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def two(
    first: dict[str, str | int], second: dict[str, str | int], between: tuple = ("TER",)
) -> Callable[[list[AtomicModel]], list[str]]:
    def lines(copies: list[AtomicModel]) -> list[str]:
        one, other = copies
        return [*records(one, **first), *between, *records(other, **second)]

    return lines


BLANK = {"chain": ""}
VARIANTS = {
    "names": (two({"chain": "A"}, {"chain": "B"}), ("A", "B")),
    "blank": (two(BLANK, BLANK), ("A", "B")),
    "blank without TER": (two(BLANK, BLANK, ()), ("A", "B")),
    "blank, numbered through": (two(BLANK, {"chain": "", "add": LENGTH}), ("A", "B")),
    "one name": (two({"chain": "A"}, {"chain": "A"}), ("A", "A2")),
    "one name without TER": (two({"chain": "A"}, {"chain": "A"}, ()), ("A", "A2")),
    "one name and segments": (
        two({"chain": "A", "segment": "P1"}, {"chain": "A", "segment": "P2"}, ()),
        ("P1", "P2"),
    ),
    "segments alone": (
        two({"chain": "", "segment": "PROA"}, {"chain": "", "segment": "PROB"}, ()),
        ("PROA", "PROB"),
    ),
    "one segment": (
        two({"chain": "", "segment": "PRO"}, {"chain": "", "segment": "PRO"}),
        ("A", "B"),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_copy_is_never_lost(
    variant: str, copies: list[AtomicModel], tmp_path: Path
) -> None:
    lines, names = VARIANTS[variant]
    model = read_atoms(written(tmp_path / "a.pdb", lines(copies)))
    nodes = Nodes.of_model(model)
    assert len(model) == sum(map(len, copies))
    assert len(nodes) == 2 * LENGTH
    assert tuple(dict.fromkeys(model.chain_names)) == names
    # No two nodes share a chain and a number in what is written of them.
    kept = model.select(nodes.atom)
    assert len(set(zip(kept.chain_names, kept.residue_numbers, strict=True))) == len(
        kept
    )
    places = np.concatenate([one.coordinates_angstrom for one in copies])
    assert np.abs(model.coordinates_angstrom - places).max() < 5.1e-4  # three decimals


def test_a_chain_numbered_through_stays_one(
    copies: list[AtomicModel], tmp_path: Path
) -> None:
    """A named chain with a gap that its program marks with TER."""
    lines = two({"chain": "A"}, {"chain": "A", "add": LENGTH})(copies)
    model = read_atoms(written(tmp_path / "a.pdb", lines))
    assert set(model.chain_names) == {"A"}


def test_a_ligand_with_a_residue_number_stays(
    copies: list[AtomicModel], tmp_path: Path
) -> None:
    lines = [
        *records(copies[0], chain="A"),
        "TER",
        line("CA", "CA", 5, (10.0, 0, 0), "A", element="Ca"),
    ]
    model = read_atoms(written(tmp_path / "a.pdb", lines))
    assert len(model) == len(copies[0]) + 1
    assert model.elements[-1] == "Ca"
    assert model.chain_names[-1] == "A"
    nodes = Nodes.of_model(model)
    assert len(nodes) == LENGTH
    assert nodes.without == {"CA": 1}


def backbone(residue: str, number: int, letter: str = "", **more: str) -> list[str]:
    at = 4.0 * number
    return [
        line(
            name,
            residue,
            number,
            (at + step, 0.3 * bool(letter), 0),
            letter=letter,
            **more,
        )
        for step, name in enumerate(("N", "CA", "C"))
    ]


def interleaved(*blocks: list[str]) -> list[str]:
    return [one for rows in zip(*blocks, strict=True) for one in rows]


A, B = ({"letter": letter, "chain": "A"} for letter in "AB")
PLAIN = {"chain": "A"}
ALTERNATIVES = {
    "one after another": [*backbone("LYS", 2, **A), *backbone("LYS", 2, **B)],
    "atom by atom": interleaved(backbone("LYS", 2, **A), backbone("LYS", 2, **B)),
    "the second alone": backbone("LYS", 2, **B),
    "of several names": [*backbone("SER", 2, **A), *backbone("THR", 2, **B)],
    "of several names, atom by atom": interleaved(
        backbone("SER", 2, **A), backbone("THR", 2, **B)
    ),
}


@pytest.mark.parametrize("kind", ALTERNATIVES)
def test_of_alternatives_the_first_is_kept(kind: str, tmp_path: Path) -> None:
    lines = [
        *backbone("GLY", 1, **PLAIN),
        *ALTERNATIVES[kind],
        *backbone("GLY", 3, **PLAIN),
    ]
    found = read_structure(written(tmp_path / "a.pdb", lines))
    assert found.model.atom_names == ("N", "CA", "C") * 3
    assert len(Nodes.of_model(found.model)) == 3
    name = ALTERNATIVES[kind][0][17:20]
    assert found.model.residue_names[3:6] == (name,) * 3
    assert found.left_out.alternatives == len(ALTERNATIVES[kind]) - 3


def test_alternatives_listed_behind_the_chain_are_alternatives(tmp_path: Path) -> None:
    lines = [
        *backbone("GLY", 1, **PLAIN),
        *backbone("LYS", 2, **A),
        *backbone("GLY", 3, **PLAIN),
        *backbone("LYS", 2, **B),
    ]
    model = read_atoms(written(tmp_path / "a.pdb", lines))
    assert model.atom_names == ("N", "CA", "C") * 3
    assert set(model.chain_names) == {"A"}


def test_insertion_codes_tell_residues_apart(tmp_path: Path) -> None:
    lines = [
        *backbone("GLY", 1, **PLAIN),
        *backbone("ALA", 1, code="A", **PLAIN),
        *backbone("GLY", 1, code="B", **PLAIN),
        *backbone("GLY", 2, **PLAIN),
    ]
    model = read_atoms(written(tmp_path / "a.pdb", lines))
    nodes = Nodes.of_model(model)
    assert model.select(nodes.atom).insertion_codes == ("", "A", "B", "")
    assert set(model.chain_names) == {"A"}
    assert model.residue_label(3) == "A ALA 1A"


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["9998", "9999", "A000", "A001"], (9998, 9999, 10000, 10001)),  # hybrid-36
        (["9998", "9999", "   0", "   1"], (9998, 9999, 10000, 10001)),  # wraps
        (["9999", "   0", "   1", "   2"], (9999, 10000, 10001, 10002)),
    ],
)
def test_numbers_go_on_after_four_digits(
    words: list[str], numbers: tuple[int, ...], tmp_path: Path
) -> None:
    lines = []
    for place, word in enumerate(words):
        lines += [one[:22] + word + one[26:] for one in backbone("GLY", place, **PLAIN)]
    model = read_atoms(written(tmp_path / "a.pdb", lines))
    assert model.residue_numbers[::3] == numbers
    assert set(model.chain_names) == {"A"}


def test_numbers_of_five_digits_in_the_code_column(tmp_path: Path) -> None:
    lines = []
    for number in (10_000, 10_001):
        lines += [
            f"{one[:22]}{number}{one[27:]}"
            for one in backbone("GLY", number % 7, **PLAIN)
        ]
    model = read_atoms(written(tmp_path / "a.pdb", lines))
    assert model.residue_numbers[::3] == (10_000, 10_001)
    assert set(model.insertion_codes) == {""}


def test_chain_names_of_two_letters_and_residue_names_of_four(tmp_path: Path) -> None:
    """Both use column 21; a chain has several residues, TIP3 one name."""
    two_letters = [
        one[:17] + residue + "XY" + one[22:]
        for number, residue in enumerate(("GLY", "ALA"), 1)
        for one in backbone(residue, number, **PLAIN)
    ]
    ends = [one[:17] + "CYS2A" + one[22:] for one in backbone("CYS", 3, **PLAIN)]
    tail = backbone("GLY", 4, **PLAIN)
    water = [line("OH2", "TIP3", 1, (50.0, 0, 0), "W")]
    found = read_structure(
        written(tmp_path / "a.pdb", [*two_letters, *ends, *tail, *water])
    )
    assert tuple(dict.fromkeys(found.model.chain_names)) == ("XY", "A")
    assert found.model.residue_names[::3] == ("GLY", "ALA", "CYS2", "GLY")
    assert found.left_out.waters == {"TIP3": 1}


def test_mmcif_residues_of_one_name_and_number(
    copies: list[AtomicModel], tmp_path: Path
) -> None:
    """Programs that write one auth chain, and tell copies by label_asym_id."""
    head = ["data_x", "loop_"]
    head += [
        f"_atom_site.{name}"
        for name in (
            "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id "
            "label_asym_id auth_asym_id auth_seq_id Cartn_x Cartn_y Cartn_z"
        ).split()
    ]
    rows = [
        f"ATOM {row} {one.elements[row]} {one.atom_names[row]} . "
        f"{one.residue_names[row]} {label} X {one.residue_numbers[row]} "
        + " ".join(f"{value:.3f}" for value in one.coordinates_angstrom[row])
        for label, one in zip("AB", copies, strict=True)
        for row in range(len(one))
    ]
    path = tmp_path / "a.cif"
    path.write_text("\n".join([*head, *rows, ""]))
    model = read_atoms(path)
    assert len(model) == sum(map(len, copies))
    assert len(Nodes.of_model(model)) == 2 * LENGTH
    assert tuple(dict.fromkeys(model.chain_names)) == ("A", "B")


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_is_read_with_the_same_nodes(
    variant: str, copies: list[AtomicModel], tmp_path: Path
) -> None:
    lines, names = VARIANTS[variant]
    model = read_atoms(written(tmp_path / "a.pdb", lines(copies)))
    write_ensemble(tmp_path / "b.cif", "b", [model, model])
    again = read_structure(tmp_path / "b.cif")
    assert again.models == 2
    assert np.array_equal(again.model.residue_index, model.residue_index)
    assert tuple(dict.fromkeys(again.model.chain_names)) == names
    assert (
        Nodes.of_model(again.model).atom.tolist() == Nodes.of_model(model).atom.tolist()
    )
    # Another program tells as many residues apart.
    assert (
        sum(len(chain) for chain in gemmi.read_structure(str(tmp_path / "b.cif"))[0])
        == 2 * LENGTH
    )


def test_nucleotides_under_names_of_their_own_are_one_chain_again(
    tmp_path: Path,
) -> None:
    """Other programs take them for ligands, each a segment of its own."""
    turn = np.radians(32.7)
    lines = [
        line(
            name,
            residue,
            number,
            ((9 - inward) * np.cos(turn * number), inward, 2.8 * number),
            "R",
        )
        for number, residue in enumerate(("ADE", "CYT", "GUA", "URA"), 1)
        for inward, name in enumerate(("P", "O5'", "C5'", "C1'"))
    ]
    model = read_atoms(written(tmp_path / "a.pdb", lines))
    assert len(Nodes.of_model(model)) == 4
    write_ensemble(tmp_path / "b.cif", "b", [model])
    again = read_atoms(tmp_path / "b.cif")
    assert len(Nodes.of_model(again)) == 4
    assert set(again.chain_names) == {"R"}
    assert again.residue_numbers == model.residue_numbers


def test_segments_of_a_chain_whose_numbers_go_on_are_one_chain(
    copies: list[AtomicModel], tmp_path: Path
) -> None:
    lines = two(
        {"chain": "A", "segment": "S1"}, {"chain": "A", "segment": "S2", "add": LENGTH}
    )(copies)
    model = read_atoms(written(tmp_path / "a.pdb", lines))
    assert set(model.chain_names) == {"A"}


def test_atoms_are_read_in_the_order_of_the_file(
    copies: list[AtomicModel], tmp_path: Path
) -> None:
    """Rows of a trajectory go by it; a chain's ligand may follow another chain."""
    one, other = copies
    lines = [
        *records(one, chain="A"),
        *records(other, chain="B"),
        line("ZN", "ZN", 90, (3.0, 0, 0), "A", element="Zn"),
        line("C1", "LIG", 91, (9.0, 0, 0), "B"),
        line("O1", "LIG", 91, (9.0, 1.4, 0), "B"),
    ]
    found = read_structure(written(tmp_path / "a.pdb", lines))
    assert found.kept.rows.tolist() == list(range(found.kept.of))
    assert found.model.atom_names[-3:] == ("ZN", "C1", "O1")
    assert found.model.chain_names[-3:] == ("A", "B", "B")


def test_more_chains_than_letters_have_names() -> None:
    names = [name for name, _ in zip(fresh_names(), range(1000), strict=False)]
    assert len(set(names)) == 1000
    assert names[:3] == ["A", "B", "C"]
